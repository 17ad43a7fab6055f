//! What a run found: kept as JSON, summed up by medians, and judged.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::figures::{self, Bar};
use crate::scenario::Sample;
use crate::stats::median;
use crate::{Outcome, machine};

/// The peer that the bars speak of.
pub(crate) const NCHAN: &str = "nchan";

/// Everything, as it is written to the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) command: Vec<String>,
    machine: Machine,
    pub(crate) versions: BTreeMap<String, String>,
    /// The first is the subject, the others are its peers.
    pub(crate) servers: Vec<String>,
    /// Whether the subject runs on one thread: another bar holds.
    single: bool,
    /// Whether it was a short look, for which the bars are not meant.
    quick: bool,
    runs: Vec<Run>,
    pub(crate) summary: Vec<Line>,
}

/// Where it ran.
#[derive(Debug, Serialize, Deserialize)]
struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    /// Before anything was started.
    load_average: f64,
    cpu_time_from: String,
}

/// One scenario on one server.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    scenario: String,
    pair: usize,
    server: String,
    figures: BTreeMap<String, f64>,
    mistakes: Vec<String>,
}

/// One figure of a scenario over all pairs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) scenario: String,
    pub(crate) figure: String,
    pub(crate) title: String,
    pub(crate) unit: String,
    /// By server.
    pub(crate) medians: BTreeMap<String, f64>,
    /// Subject to peer, by peer: the median of the ratios of the pairs.
    pub(crate) ratios: BTreeMap<String, f64>,
    pub(crate) bars: Vec<Judged>,
    pub(crate) plotted: bool,
}

/// A bar, and whether it is met.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) text: String,
    /// Where it is a ratio to nchan.
    pub(crate) ratio: Option<f64>,
    pub(crate) met: bool,
}

impl Report {
    pub(crate) fn new(servers: Vec<String>, single: bool, quick: bool) -> Self {
        let now = std::time::SystemTime::now();
        Self {
            date: humantime::format_rfc3339_seconds(now).to_string(),
            command: std::env::args().skip(1).collect(),
            machine: Machine {
                kernel: machine::kernel(),
                cpu: machine::cpu_model(),
                cores: machine::cores(),
                load_average: machine::load_average(),
                cpu_time_from: machine::cpu_source().to_owned(),
            },
            versions: BTreeMap::new(),
            servers,
            single,
            quick,
            runs: Vec::new(),
            summary: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        directory.map_or(Ok(()), std::fs::create_dir_all)?;
        Ok(std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    /// Where it ran, in a line.
    pub(crate) fn place(&self) -> String {
        let Machine { kernel, cpu, cores, load_average, cpu_time_from } = &self.machine;
        format!("Linux {kernel}, {cores} cores, {cpu}, load {load_average} at the start; CPU time from {cpu_time_from}")
    }

    /// Adds one run, and sums up anew: what is there is written after each.
    pub(crate) fn add(&mut self, scenario: &str, pair: usize, server: &str, sample: Sample) {
        let figures = sample.figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mistakes = sample.tally.told;
        self.runs.push(Run { scenario: scenario.to_owned(), pair, server: server.to_owned(), figures, mistakes });
        self.sum_up();
    }

    fn sum_up(&mut self) {
        let mut scenarios: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !scenarios.contains(&run.scenario.as_str()) {
                scenarios.push(&run.scenario);
            }
        }
        let lines = scenarios
            .iter()
            .flat_map(|scenario| figures::of_scenario(scenario).filter_map(|figure| self.line(scenario, figure)));
        self.summary = lines.collect();
    }

    fn line(&self, scenario: &str, figure: &figures::Figure) -> Option<Line> {
        let values = |server: &str| -> BTreeMap<usize, f64> {
            let runs = self.runs.iter().filter(|run| run.scenario == scenario && run.server == server);
            runs.filter_map(|run| Some((run.pair, *run.figures.get(figure.name)?))).collect()
        };
        let of = |name: &String| Some((name.clone(), median(&values(name).into_values().collect::<Vec<_>>())?));
        let medians: BTreeMap<_, _> = self.servers.iter().filter_map(of).collect();
        let (subject, peers) = self.servers.split_first()?;
        let own = values(subject);
        let ratio = |peer: &String| {
            let theirs = values(peer);
            let pairs = own
                .iter()
                .filter(|(_, value)| **value > 0.0)
                .filter_map(|(pair, value)| Some(value / theirs.get(pair).filter(|theirs| **theirs > 0.0)?));
            Some((peer.clone(), median(&pairs.collect::<Vec<_>>())?))
        };
        let ratios = peers.iter().filter_map(ratio).collect();
        let bars = self.judge(scenario, figure.name, medians.get(subject), &ratios);
        (!medians.is_empty()).then(|| Line {
            scenario: scenario.to_owned(),
            figure: figure.name.to_owned(),
            title: figure.title.to_owned(),
            unit: figure.unit.to_owned(),
            medians,
            ratios,
            bars,
            plotted: figure.plotted,
        })
    }

    fn judge(&self, scenario: &str, name: &str, own: Option<&f64>, ratios: &BTreeMap<String, f64>) -> Vec<Judged> {
        let judged = |bar: Bar| {
            let (text, ratio, met) = match bar {
                Bar::AtMost(most) => (format!("<= {most}"), None, own.map(|&own| own <= most)),
                Bar::AtLeast(least) => (format!(">= {least}"), None, own.map(|&own| own >= least)),
                Bar::Ratio(most) => {
                    let met = ratios.get(NCHAN).map(|&ratio| ratio <= most);
                    (format!("<= {:.2} of nchan", most), Some(most), met)
                }
            };
            Some(Judged { text, ratio, met: met? })
        };
        let bars = figures::bars(scenario, name, self.single).into_iter();
        // With few waiters what a process takes once counts, and there is no time to wait for memory.
        bars.filter(|_| !self.quick || name == "bad").filter_map(judged).collect()
    }

    /// Whether anything was lost or wrong.
    pub(crate) fn has_mistakes(&self) -> bool {
        self.runs.iter().any(|run| run.figures.get("bad").is_some_and(|bad| *bad > 0.0))
    }

    /// What was wrong, in words.
    pub(crate) fn mistakes(&self) -> impl Iterator<Item = String> {
        self.runs.iter().flat_map(|run| {
            run.mistakes.iter().map(move |mistake| format!("{} of {}: {mistake}", run.scenario, run.server))
        })
    }
}
