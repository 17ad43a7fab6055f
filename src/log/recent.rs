//! The last few warnings and errors of the log, kept in memory for the dashboard.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::runtime::clock::system_ms;
use crate::runtime::sharded::lock;

/// The number of lines that are kept.
const MAX_LINES: usize = 20;
/// The most bytes that are kept of one line.
const MAX_LINE_BYTES: usize = 400;

/// One line. A line that comes again is kept once and counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    /// The time at which it came last, in ms since 1970.
    at: u64,
    level: &'static str,
    text: String,
    times: u64,
}

/// A handle to the lines that are kept. It is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Line>>>);

impl Recent {
    /// Returns the lines, the newest first.
    pub(crate) fn lines(&self) -> Vec<Line> {
        lock(&self.0).iter().rev().cloned().collect()
    }

    /// Keeps a line that stands for `count` lines.
    fn keep(&self, level: &'static str, text: String, count: u64) {
        let at = system_ms();
        let mut lines = lock(&self.0);
        // All lines are searched, so that two lines that alternate are kept as two.
        let times = match lines
            .iter()
            .position(|line| line.level == level && line.text == text)
        {
            Some(again) => lines.remove(again).map_or(0, |line| line.times) + count,
            None => count,
        };
        lines.push_back(Line {
            at,
            level,
            text,
            times,
        });
        if lines.len() > MAX_LINES {
            lines.pop_front();
        }
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => return,
        };
        let mut line = Writing::default();
        event.record(&mut line);
        self.keep(level, line.text, 1 + line.left_out);
    }
}

/// A line while it is written: the message and the fields, cut off at [`MAX_LINE_BYTES`].
#[derive(Default)]
struct Writing {
    text: String,
    /// The number of lines of its kind that were not written: see [`Seldom`](super::Seldom). It
    /// is no part of the text, so that lines that differ only in it are the same.
    left_out: u64,
}

impl Writing {
    fn push(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let gap = if self.text.is_empty() { "" } else { " " };
        // Writing into a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{gap}{value}"),
            name => write!(self.text, "{gap}{name}={value}"),
        };
        let most = MAX_LINE_BYTES.min(self.text.len());
        let end = (0..=most).rev().find(|&at| self.text.is_char_boundary(at));
        self.text.truncate(end.unwrap_or(0));
    }
}

impl Visit for Writing {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "left_out" => self.left_out = value,
            _ => self.record_debug(field, &value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error, info, subscriber, warn};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    use super::*;

    fn texts(recent: &Recent) -> Vec<(&'static str, String, u64)> {
        recent
            .lines()
            .into_iter()
            .map(|line| (line.level, line.text, line.times))
            .collect()
    }

    #[test]
    fn the_last_warnings_and_errors_are_kept_and_what_repeats_is_one() {
        let recent = Recent::default();
        subscriber::with_default(registry().with(recent.clone()), || {
            warn!(peer = "a:1", count = 2, "a node is slow");
            info!("all is well");
            for why in ["one", "two", "one"] {
                error!(%why, "no Redis");
            }
        });
        let kept = [
            ("error", "no Redis why=one".to_owned(), 2),
            ("error", "no Redis why=two".to_owned(), 1),
            ("warn", "a node is slow peer=a:1 count=2".to_owned(), 1),
        ];
        assert_eq!(texts(&recent), kept);
    }

    #[test]
    fn lines_that_were_left_out_are_counted_with_those_that_were_not() {
        let recent = Recent::default();
        subscriber::with_default(registry().with(recent.clone()), || {
            for left_out in [0_u64, 7] {
                warn!(limit = 5_u64, left_out, "full");
            }
        });
        assert_eq!(texts(&recent), [("warn", "full limit=5".to_owned(), 9)]);
    }

    #[test]
    fn lines_are_few_and_short() {
        let recent = Recent::default();
        subscriber::with_default(registry().with(recent.clone()), || {
            for number in 0..50 {
                warn!(number, "{}", "\u{e9}".repeat(1000));
            }
        });
        let lines = recent.lines();
        assert!(
            lines
                .iter()
                .all(|line| line.text.len() <= MAX_LINE_BYTES && line.text.starts_with('\u{e9}'))
        );
        // Once cut off, all lines are the same.
        assert_eq!((lines.len(), lines[0].times), (1, 50));
        subscriber::with_default(registry().with(recent.clone()), || {
            (0..50).for_each(|number| warn!(number, "short"))
        });
        assert_eq!(
            (recent.lines().len(), recent.lines()[0].text.as_str()),
            (MAX_LINES, "short number=49")
        );
    }
}
