//! The report as a table for people.

use std::fmt::Write as _;

use crate::report::{Line, Report};

/// Returns the whole report as text. Each line ends in a line feed.
pub(crate) fn table(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", report.date, report.place());
    for (name, version) in &report.versions {
        let _ = writeln!(text, "{name}: {version}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "{note}");
    }
    let mut scenario = "";
    for line in &report.summary {
        if line.scenario != scenario {
            scenario = &line.scenario;
            head(&mut text, report, scenario);
        }
        row(&mut text, report, line);
    }
    for mistake in report.mistakes() {
        let _ = writeln!(text, "wrong: {mistake}");
    }
    text
}

fn head(text: &mut String, report: &Report, scenario: &str) {
    let _ = write!(text, "\n{scenario:<38}");
    for (at, server) in report.servers.iter().enumerate() {
        let _ = write!(text, "{server:>21}");
        if at > 0 {
            text.push_str("   ratio");
        }
    }
    text.push('\n');
}

fn row(text: &mut String, report: &Report, line: &Line) {
    let _ = write!(text, "  {:<36}", line.title);
    for (at, server) in report.servers.iter().enumerate() {
        let value = line
            .medians
            .get(server)
            .map_or("-".to_owned(), |&value| number(value));
        let _ = write!(text, "{:>21}", format!("{value} {:<2}", line.unit));
        if at > 0 {
            let ratio = line
                .ratios
                .get(server)
                .map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let _ = write!(text, "{ratio:>8}");
        }
    }
    for bar in &line.bars {
        let _ = write!(
            text,
            "   {} {}",
            bar.text,
            if bar.met { "met" } else { "MISSED" }
        );
    }
    while text.ends_with(' ') {
        text.pop();
    }
    text.push('\n');
}

/// Formats a number with three digits or more.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}
