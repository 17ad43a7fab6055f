//! The results of a run: kept as JSON, and as a table for people.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::plan::Plan;
use crate::protocol::Tally;
use crate::{Outcome, machine, stats};

/// The whole report, as it is written to the file.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    date: String,
    command: Vec<String>,
    kernel: String,
    cpu: String,
    cores: usize,
    load_average: f64,
    cpu_time_from: &'static str,
    versions: Vec<String>,
    waiters: usize,
    nodes: usize,
    figures: Vec<Figure>,
    /// The limit that would be reached next, in words.
    pub(crate) next_limit: Option<String>,
    mistakes: u64,
    told: Vec<String>,
}

/// One measured number.
#[derive(Debug, Serialize)]
struct Figure {
    step: &'static str,
    what: &'static str,
    value: f64,
    unit: &'static str,
}

impl Report {
    pub(crate) fn new(plan: &Plan, versions: Vec<String>) -> Self {
        Self {
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            command: std::env::args().skip(1).collect(),
            kernel: machine::kernel(),
            cpu: machine::cpu_model(),
            cores: machine::cores(),
            load_average: machine::load_average(),
            cpu_time_from: machine::cpu_source(),
            versions,
            waiters: plan.waiters,
            nodes: plan.nodes,
            figures: Vec::new(),
            next_limit: None,
            mistakes: 0,
            told: Vec::new(),
        }
    }

    /// Adds a figure.
    pub(crate) fn put(
        &mut self,
        step: &'static str,
        what: &'static str,
        value: f64,
        unit: &'static str,
    ) {
        self.figures.push(Figure {
            step,
            what,
            value,
            unit,
        });
    }

    /// Adds quantiles of latencies that are given in nanoseconds.
    pub(crate) fn put_latencies(&mut self, step: &'static str, latencies: &[u64]) {
        let mut histogram = stats::histogram();
        for &latency in latencies {
            histogram += latency;
        }
        for (what, share) in [("wake p50", 0.5), ("wake p99", 0.99), ("wake max", 1.0)] {
            self.put(
                step,
                what,
                histogram.value_at_quantile(share) as f64 / 1e6,
                "ms",
            );
        }
    }

    /// Records the mistakes of the whole run.
    pub(crate) fn judge(&mut self, tally: &Tally) {
        self.mistakes = tally.mistakes();
        self.told.clone_from(&tally.told);
    }

    pub(crate) fn has_mistakes(&self) -> bool {
        self.mistakes > 0
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let directory = path
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty());
        directory.map_or(Ok(()), std::fs::create_dir_all)?;
        Ok(std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    pub(crate) fn table(&self) -> String {
        let Self {
            date,
            kernel,
            cpu,
            cores,
            load_average,
            ..
        } = self;
        let mut text = format!(
            "{date}\nLinux {kernel}, {cores} cores, {cpu}, load {load_average} at the start\n"
        );
        self.versions
            .iter()
            .for_each(|version| text += &format!("{version}\n"));
        let _ = writeln!(
            text,
            "{} waiters on {} nodes",
            grouped(self.waiters as f64),
            self.nodes
        );
        let mut step = "";
        for figure in &self.figures {
            if figure.step != step {
                step = figure.step;
                let _ = writeln!(text, "\n{step}");
            }
            let _ = writeln!(
                text,
                "  {:<52}{:>14} {}",
                figure.what,
                number(figure.value),
                figure.unit
            );
        }
        for told in &self.told {
            let _ = writeln!(text, "wrong: {told}");
        }
        if let Some(limit) = &self.next_limit {
            let _ = writeln!(text, "\n{limit}");
        }
        text
    }
}

/// Formats a number with three digits or more.
fn number(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 && value.fract() != 0.0 => format!("{value:.2}"),
        size if size < 100.0 && value.fract() != 0.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// Formats a whole number with its digits in groups of three.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
