//! The parameters of a get. Each is checked by its own type, in the order that docs/contract.md
//! gives. Pure, except that it shortens holds at random.

use std::time::Duration;

use crate::http::query::{Given, Plus, fields};
use crate::model::key::Key;
use crate::model::mistake::{Fault, Mistake};
use crate::model::status::Version;
use crate::page::script::{Callback, Form, Prefix, Variable};

/// The parameters of a get, as they were given. All others are ignored, whatever they hold.
#[derive(Debug, Default)]
pub struct Params<'a> {
    key: Given<'a>,
    callback: Given<'a>,
    assign: Given<'a>,
    last: Given<'a>,
    wait: Given<'a>,
}

/// The content of a valid get.
#[derive(Debug)]
pub struct Target {
    /// The key.
    pub key: Key,
    /// The version that the page knows already.
    pub last: Version,
    /// The time that the get waits.
    pub wait: Duration,
}

/// The error of a wrong `callback` or `assign`: there is nothing that the answer may call or
/// assign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadForm;

impl<'a> Params<'a> {
    /// Reads the parameters of a query.
    #[must_use]
    pub fn parse(query: &'a str) -> Self {
        let mut params = Self::default();
        for (name, value) in fields(query.as_bytes(), Plus::Literal) {
            let given = match name.as_deref() {
                Some("key") => &mut params.key,
                Some("callback") => &mut params.callback,
                Some("assign") => &mut params.assign,
                Some("last") => &mut params.last,
                Some("wait") => &mut params.wait,
                _ => continue,
            };
            given.add(value);
        }
        params
    }

    /// Returns whether the page asks for a script, valid or not.
    #[must_use]
    pub fn wants_script(&self) -> bool {
        self.callback != Given::Missing || self.assign != Given::Missing
    }

    /// Returns whether the page names a key, valid or not.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key != Given::Missing
    }

    /// Returns the form in which the page wants its answer.
    ///
    /// # Errors
    /// Fails if `callback` or `assign` is wrong, or does not begin with `prefix`.
    pub fn form(&self, prefix: &Prefix) -> Result<Form, BadForm> {
        let form = match (&self.callback, &self.assign) {
            (Given::Missing, Given::Missing) => Some(Form::Json),
            (Given::Once(name), _) | (_, Given::Once(name)) if !prefix.allows(name) => None,
            (Given::Once(name), Given::Missing) => Callback::parse(name).map(Form::Jsonp),
            (Given::Missing, Given::Once(name)) => Variable::parse(name).map(Form::Assignment),
            _ => None,
        };
        form.ok_or(BadForm)
    }

    /// Returns the key and the version that the page knows already, for an answer that goes on.
    ///
    /// # Errors
    /// Returns the first mistake in the order key, last. With it comes `last`, unless that is
    /// wrong itself.
    pub fn watched(&self) -> Result<(Key, Version), (Mistake, Option<Version>)> {
        let key = self.key.required().and_then(Key::parse);
        let known = |text| Version::parse_last(text).ok_or(Fault::NotAVersion);
        let last = self
            .last
            .optional()
            .and_then(|last| last.map_or(Ok(Version::NONE), known));
        match (key, last) {
            (Ok(key), Ok(last)) => Ok((key, last)),
            (Err(what), last) => Err((Mistake::new("key", what), last.ok())),
            (_, Err(what)) => Err((Mistake::new("last", what), None)),
        }
    }

    /// Returns the content of the get.
    ///
    /// # Errors
    /// Returns the first mistake in the order key, last, wait. With it comes `last`, unless that
    /// is wrong itself.
    pub fn target(&self, hold: Duration) -> Result<Target, (Mistake, Option<Version>)> {
        let (key, last) = self.watched()?;
        let seconds = |text| parse_wait(text).ok_or(Fault::NotSeconds);
        let wait = self
            .wait
            .optional()
            .and_then(|wait| wait.map_or(Ok(hold), seconds));
        let wait = wait.map_err(|what| (Mistake::new("wait", what), Some(last)))?;
        Ok(Target {
            key,
            last,
            wait: shortened(wait, hold),
        })
    }
}

/// Reads `[0-9]{1,6}(\.[0-9]{1,3})?` as seconds. Returns `None` for any other text.
fn parse_wait(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 6) || !digits(fraction, 3) {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}").parse().ok()?;
    Some(Duration::from_millis(
        whole.parse::<u64>().ok()? * 1000 + millis,
    ))
}

/// Returns how long a get waits, at most the hold. A wait of the whole hold is shortened by up
/// to a sixteenth, so that pages that came together do not ask again together.
fn shortened(wait: Duration, hold: Duration) -> Duration {
    if wait < hold { wait } else { spread(hold) }
}

/// Returns a time shortened by up to a sixteenth at random, so that what began together does not
/// end together.
pub(in crate::page) fn spread(time: Duration) -> Duration {
    time.mul_f64(1.0 - rand::random_range(0.0..=1.0 / 16.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_with_up_to_three_decimals() {
        for (text, millis) in [
            ("0", 0),
            ("25", 25_000),
            ("0.001", 1),
            ("1.5", 1_500),
            ("000001.25", 1_250),
            ("999999", 999_999_000),
        ] {
            assert_eq!(
                parse_wait(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for bad in [
            "", ".5", "1.", "1.0001", "1234567", "-1", "+1", "1e3", " 1", "1,5", "1.5.5", "١",
        ] {
            assert_eq!(parse_wait(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_a_wait_as_long_as_the_hold_is_shortened() {
        let hold = Duration::from_secs(16);
        for _ in 0..100 {
            let wait = shortened(Duration::from_secs(20), hold);
            assert!(wait <= hold && wait >= Duration::from_secs(15), "{wait:?}");
        }
        assert_eq!(
            shortened(Duration::from_secs(15), hold),
            Duration::from_secs(15)
        );
        assert_eq!(shortened(Duration::ZERO, hold), Duration::ZERO);
    }
}
