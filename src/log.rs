//! The log. Its lines go to standard error, through a bounded queue and a thread of their own.
//! If nobody reads them fast enough, lines are thrown away and counted, and nothing else stops.

mod recent;
mod seldom;

use std::io;
use std::panic;
use std::str::FromStr;

use tracing::error;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

pub(crate) use self::recent::Line;
pub use self::recent::Recent;
pub(crate) use self::seldom::Seldom;

/// The number of lines that may wait to be written. Beyond it, lines are thrown away.
const QUEUED_LINES: usize = 10_000;

/// The libraries that are silent unless the filter names them. A client can make h2 write a warning
/// for each frame that it sends, and redis several for each get, while a master of a cluster is
/// missing. This program's own lines tell the causes.
const FILLED_BY_CLIENTS: [&str; 2] = ["h2", "redis"];

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The log. When it is dropped, it writes the queued lines, but does not wait long for a
/// reader.
#[derive(Debug)]
pub struct Log {
    dropped: ErrorCounter,
    recent: Recent,
    _writer: WorkerGuard,
}

impl Log {
    /// Starts the log of this process. `filter` has been checked by `config`.
    ///
    /// # Panics
    /// Panics at a second call, because a process has one log.
    #[must_use]
    pub fn start(filter: &str, format: LogFormat) -> Self {
        let queue = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUED_LINES);
        let (writer, guard) = queue.finish(io::stderr());
        let dropped = writer.error_counter();
        let mut directives =
            EnvFilter::from_str(filter).expect("the filter is checked with the settings");
        for name in FILLED_BY_CLIENTS {
            let is_named = |one: &str| one.trim().starts_with(name);
            if !filter.split(',').any(is_named) {
                let off = format!("{name}=off").parse().expect("a good directive");
                directives = directives.add_directive(off);
            }
        }
        let filter = directives;
        let lines = fmt().with_env_filter(filter).with_writer(writer);
        let recent = Recent::default();
        match format {
            LogFormat::Text => lines.with_ansi(false).finish().with(recent.clone()).init(),
            LogFormat::Json => lines
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .finish()
                .with(recent.clone())
                .init(),
        }
        // The default hook writes to standard error itself, and blocks if nobody reads it.
        static PANICS: Seldom = Seldom::new();
        panic::set_hook(Box::new(|panic| {
            if let Some(left_out) = PANICS.admit() {
                error!(%panic, left_out, "a task panicked; its request ends");
            }
        }));
        Self {
            dropped,
            recent,
            _writer: guard,
        }
    }

    /// Returns a function that returns how many lines were thrown away so far.
    pub fn lines_dropped(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines()
    }

    /// Returns a handle to the last warnings and errors, including those still to come.
    #[must_use]
    pub fn recent(&self) -> Recent {
        self.recent.clone()
    }
}
