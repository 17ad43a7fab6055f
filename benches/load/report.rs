//! The results of a run: kept as JSON, summarised by medians, and judged.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::figures::{self, Bar};
use crate::scenario::Sample;
use crate::stats::median;
use crate::{Outcome, machine};

/// The peer that most bars with a ratio refer to.
pub(crate) const NCHAN: &str = "nchan";
/// The peers that are holdfast: behind nginx with TLS, without TLS, and without a count of
/// addresses.
pub(crate) const PROXIED: &str = "nginx + holdfast";
pub(crate) const PLAIN: &str = "plain holdfast";
pub(crate) const UNCOUNTED: &str = "uncounted";

/// The whole report, as it is written to the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) command: Vec<String>,
    machine: Machine,
    pub(crate) versions: BTreeMap<String, String>,
    /// How the servers differ in what they do, for readers.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// The servers. The first is the subject, the others are its peers.
    pub(crate) servers: Vec<String>,
    /// Whether the subject runs on one thread. Then another bar applies.
    single: bool,
    /// Whether it was a quick run, for which the bars are not meant.
    quick: bool,
    runs: Vec<Run>,
    pub(crate) summary: Vec<Line>,
}

/// The machine of the run.
#[derive(Debug, Serialize, Deserialize)]
struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    /// The load average before anything was started.
    load_average: f64,
    cpu_time_from: String,
}

/// One run of a scenario on one server.
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
    /// The median of each server.
    pub(crate) medians: BTreeMap<String, f64>,
    /// The subject's ratio to each peer: the median of the ratios of the pairs.
    pub(crate) ratios: BTreeMap<String, f64>,
    pub(crate) bars: Vec<Judged>,
    pub(crate) plotted: bool,
}

/// A bar, and whether the figure meets it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) text: String,
    /// The limit, if the bar is a ratio to nchan.
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
            notes: Vec::new(),
            servers,
            single,
            quick,
            runs: Vec::new(),
            summary: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(
            serde_json::from_slice(&text)
                .map_err(|error| format!("{}: {error}", path.display()))?,
        )
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let directory = path
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty());
        directory.map_or(Ok(()), std::fs::create_dir_all)?;
        Ok(std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    /// Returns the machine of the run, in one line.
    pub(crate) fn place(&self) -> String {
        let Machine {
            kernel,
            cpu,
            cores,
            load_average,
            cpu_time_from,
        } = &self.machine;
        format!(
            "Linux {kernel}, {cores} cores, {cpu}, load {load_average} at the start; CPU time from {cpu_time_from}"
        )
    }

    /// Adds one run, and summarises anew, because the report is written after each run.
    pub(crate) fn add(&mut self, scenario: &str, pair: usize, server: &str, sample: Sample) {
        let figures = sample
            .figures
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let mistakes = sample.tally.told;
        self.runs.push(Run {
            scenario: scenario.to_owned(),
            pair,
            server: server.to_owned(),
            figures,
            mistakes,
        });
        self.sum_up();
    }

    fn sum_up(&mut self) {
        let mut scenarios: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !scenarios.contains(&run.scenario.as_str()) {
                scenarios.push(&run.scenario);
            }
        }
        let lines = scenarios.iter().flat_map(|scenario| {
            figures::of_scenario(scenario).filter_map(|figure| self.line(scenario, figure))
        });
        self.summary = lines.collect();
    }

    fn line(&self, scenario: &str, figure: &figures::Figure) -> Option<Line> {
        let values = |server: &str| -> BTreeMap<usize, f64> {
            let runs = self
                .runs
                .iter()
                .filter(|run| run.scenario == scenario && run.server == server);
            runs.filter_map(|run| Some((run.pair, *run.figures.get(figure.name)?)))
                .collect()
        };
        let of = |name: &String| {
            Some((
                name.clone(),
                median(&values(name).into_values().collect::<Vec<_>>())?,
            ))
        };
        let medians: BTreeMap<_, _> = self.servers.iter().filter_map(of).collect();
        let (subject, peers) = self.servers.split_first()?;
        let own = values(subject);
        let ratio = |peer: &String| {
            let theirs = values(peer);
            let pairs =
                own.iter()
                    .filter(|(_, value)| **value > 0.0)
                    .filter_map(|(pair, value)| {
                        Some(value / theirs.get(pair).filter(|theirs| **theirs > 0.0)?)
                    });
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

    fn judge(
        &self,
        scenario: &str,
        name: &str,
        own: Option<&f64>,
        ratios: &BTreeMap<String, f64>,
    ) -> Vec<Judged> {
        let judged = |bar: Bar| {
            let (text, ratio, met) = match bar {
                Bar::AtMost(most) => (format!("<= {most}"), None, own.map(|&own| own <= most)),
                Bar::AtLeast(least) => (format!(">= {least}"), None, own.map(|&own| own >= least)),
                Bar::Ratio(peer, most) => {
                    let met = ratios.get(peer).map(|&ratio| ratio <= most);
                    let plotted = (peer == NCHAN).then_some(most);
                    (format!("<= {most:.2} of {peer}"), plotted, met)
                }
            };
            Some(Judged {
                text,
                ratio,
                met: met?,
            })
        };
        let bars = figures::bars(scenario, name, self.single).into_iter();
        // With few waiters, the fixed memory of a process weighs too much, and a quick run does
        // not wait for memory.
        bars.filter(|_| !self.quick || name == "bad")
            .filter_map(judged)
            .collect()
    }

    /// Returns whether anything was lost or wrong.
    pub(crate) fn has_mistakes(&self) -> bool {
        self.runs
            .iter()
            .any(|run| run.figures.get("bad").is_some_and(|bad| *bad > 0.0))
    }

    /// Returns the mistakes in words.
    pub(crate) fn mistakes(&self) -> impl Iterator<Item = String> {
        self.runs.iter().flat_map(|run| {
            run.mistakes
                .iter()
                .map(move |mistake| format!("{} of {}: {mistake}", run.scenario, run.server))
        })
    }
}
