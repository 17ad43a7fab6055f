//! The demo's ids: `demo-<when it expires, in milliseconds since 1970>-<22 characters>`. An id
//! contains its expiry, so that nothing needs to be remembered. No other id is ever taken for one
//! of the demo's.

use std::time::Duration;

use rand::distr::{Alphanumeric, SampleString};

use crate::backend::issue::issued;
use crate::http::refusal::Refusal;
use crate::http::response::Response;
use crate::model::key::Key;
use crate::model::mistake::{Fault, Mistake, named};
use crate::model::signing::Signing;
use crate::runtime::clock::millis;

/// The time within which a code may be scanned and confirmed.
const LIFE: Duration = Duration::from_secs(120);
/// The further time for which a status is kept. A button that is pressed in the last moment
/// needs the status of the scan, and a page that lost its network then needs the result.
const MARGIN: Duration = Duration::from_secs(60);
/// The beginning of each id.
const PREFIX: &str = "demo-";
/// The number of letters and digits that 131 random bits take.
const RANDOM_CHARS: usize = 22;

/// Makes a code that lives from `now` on, and returns the answer for its page.
pub(super) fn fresh(signing: &Signing, now: u64) -> Response {
    let (expires, expires_in_ms) = (now + millis(LIFE), millis(LIFE));
    let random = Alphanumeric.sample_string(&mut rand::rng(), RANDOM_CHARS);
    let id =
        Key::parse(&format!("{PREFIX}{expires}-{random}")).expect("letters, digits and two signs");
    // The page must still get a confirmation that comes in the last moment.
    let key = signing.sign(&id, expires + millis(MARGIN));
    issued(&id, key, expires_in_ms)
}

/// Parses an id of the demo. Returns it with the time for which a status under it is to be
/// kept.
///
/// # Errors
/// A [`Mistake`] if the text is no id of the demo; [`Refusal::Gone`] if the id has expired.
pub(super) fn parse(text: &str, now: u64) -> Result<(Key, Duration), Refusal> {
    let expires = expires(text).ok_or(Mistake::new("id", Fault::NotOfTheDemo))?;
    let key = named("id", Key::parse(text))?;
    if expires <= now {
        return Err(Refusal::Gone);
    }
    // A made-up id of a far future gets no more time than others.
    Ok((key, Duration::from_millis(expires - now).min(LIFE) + MARGIN))
}

/// Returns whether a text is an id of the demo.
pub(crate) fn is_id(text: &str) -> bool {
    expires(text).is_some()
}

fn expires(text: &str) -> Option<u64> {
    let (expires, random) = text.strip_prefix(PREFIX)?.split_once('-')?;
    let good =
        random.len() == RANDOM_CHARS && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let digits = expires.bytes().all(|byte| byte.is_ascii_digit()) && !expires.starts_with('0');
    if good && digits {
        expires.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_of_the_demo_by_its_form_until_it_expires() {
        let random = "aG9sZGZhc3QsIGEgZGVtbw";
        let ttl =
            |now| parse(&format!("demo-1000000-{random}"), now).map(|(_, ttl)| ttl.as_millis());
        assert_eq!(ttl(900_000), Ok(160_000));
        assert_eq!(ttl(0), Ok(180_000), "not more than its life and a minute");
        assert_eq!(ttl(999_999), Ok(60_001));
        assert_eq!(
            (ttl(1_000_000), ttl(2_000_000)),
            (Err(Refusal::Gone), Err(Refusal::Gone))
        );
        for bad in [
            "",
            "demo",
            random,
            &format!("demo--{random}"),
            &format!("demo-0-{random}"),
            &format!("demo-+5-{random}"),
            &format!("demo-99999999999999999999-{random}"),
            &format!("demo-1000000-{random}x"),
            &format!("demo-1000000-{}", &random[1..]),
            &format!("demo-1000000-{}=", &random[1..]),
            &format!("demo-1000000-{random}-{random}"),
            &format!("Demo-1000000-{random}"),
            &format!("order-1000000-{random}"),
        ] {
            assert_eq!(
                parse(bad, 0),
                Err(Mistake::new("id", Fault::NotOfTheDemo).into()),
                "{bad}"
            );
        }
    }
}
