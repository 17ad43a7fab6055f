//! The bytes of a stream: its events, its comments, and when the browser is to reconnect (the HTML
//! standard, 9.2.5).

use std::io::{self, Write};
use std::ops::RangeInclusive;

use crate::model::status::{Outcome, Version};
use crate::page::answer::{answer_json, code_of};

/// A comment: a line that every reader ignores.
pub(super) const COMMENT: &[u8] = b":\n\n";
/// The range of the time after which a browser reconnects, in milliseconds.
const RETRY_MS: RangeInclusive<u64> = 1_000..=3_000;

/// Renders the time after which the browser is to reconnect.
pub(super) fn render_retry() -> Vec<u8> {
    let ms = rand::random_range(RETRY_MS);
    format!("retry: {ms}\n\n").into_bytes()
}

/// Renders an outcome as an event. `last` is the version that the page knows, and `retry_ms` the time
/// after which it is to reconnect, if it is to wait.
pub(super) fn render_outcome(outcome: &Outcome, last: Version, retry_ms: Option<u64>) -> Vec<u8> {
    let id = match outcome {
        Outcome::Success(status) if status.is_final => Some((status.version, ".final")),
        Outcome::Success(status) => Some((status.version, "")),
        Outcome::Gone(version) => Some((*version, ".gone")),
        _ => None,
    };
    let name = match outcome {
        Outcome::Gone(_) => Some("gone"),
        Outcome::Retry => Some("retry"),
        Outcome::Busy => Some("busy"),
        Outcome::Unavailable(_) => Some("unavailable"),
        _ => None,
    };
    let json = answer_json(code_of(outcome), outcome, last, retry_ms);
    render(id, name, retry_ms, &json)
}

/// Renders an event. Its id is a version and a suffix.
fn render(
    id: Option<(Version, &str)>,
    name: Option<&str>,
    retry_ms: Option<u64>,
    json: &[u8],
) -> Vec<u8> {
    let mut event = Vec::with_capacity(json.len() + 64);
    let mut lines = || -> io::Result<()> {
        if let Some(ms) = retry_ms {
            writeln!(event, "retry: {ms}")?;
        }
        if let Some((version, suffix)) = id {
            writeln!(event, "id: {version}{suffix}")?;
        }
        if let Some(name) = name {
            writeln!(event, "event: {name}")?;
        }
        Ok(())
    };
    lines().expect("a vector takes all");
    push_data(&mut event, json);
    event.push(b'\n');
    event
}

/// Adds the JSON as lines of data, one for each of its lines. The browser joins them by line feeds,
/// and has the same JSON, in which a line end is white space.
fn push_data(event: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        event.push(b'\n');
        let Some(end) = end else { break };
        let length = if rest[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_in_a_value_begin_another_line_of_data() {
        let version = Version::new(5).expect("good");
        let event = render(
            Some((version, ".final")),
            None,
            None,
            b"{\r\n\"a\":\r1,\n\n2}",
        );
        let text = String::from_utf8(event).expect("UTF-8");
        assert_eq!(
            text,
            "id: 5.final\ndata: {\ndata: \"a\":\ndata: 1,\ndata: \ndata: 2}\n\n"
        );
        let event = render(None, Some("busy"), Some(300), b"{}");
        let text = String::from_utf8(event).expect("UTF-8");
        assert_eq!(text, "retry: 300\nevent: busy\ndata: {}\n\n");
    }
}
