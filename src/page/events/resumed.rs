//! The place at which a page goes on with a stream that broke off.

use hyper::header::{HeaderMap, HeaderName};

use crate::model::mistake::{Fault, Mistake};
use crate::model::status::Version;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The content of `last-event-id`: the last event that a browser had when its stream broke off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resumed {
    pub(super) last: Version,
    /// Whether the stream had ended for good, so that the browser need not reconnect.
    pub(super) has_ended: bool,
}

impl Resumed {
    /// Reads the id of the last event, if the browser sends one.
    ///
    /// # Errors
    /// Fails if its digits are no version that a page may have.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Mistake> {
        let Some(id) = headers.get(LAST_EVENT_ID) else {
            return Ok(None);
        };
        let id = id.as_bytes();
        let digits = id.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = id.split_at(digits);
        let last = match str::from_utf8(digits) {
            Ok("") | Err(_) => Version::NONE,
            Ok(digits) => Version::parse(digits)
                .filter(|last| *last <= Version::MAX_LAST)
                .ok_or(Mistake::new("last-event-id", Fault::NotAVersion))?,
        };
        let has_ended = !digits.is_empty() && matches!(rest, b".final" | b".gone");
        Ok(Some(Self { last, has_ended }))
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn the_id_of_the_last_event_says_how_far_a_page_came() {
        let of = |id: &str| {
            let id = HeaderValue::from_str(id).expect("a header");
            Resumed::of(&HeaderMap::from_iter([(LAST_EVENT_ID, id)]))
        };
        assert_eq!(Resumed::of(&HeaderMap::new()), Ok(None));
        for (id, last, has_ended) in [
            ("", 0, false),
            ("7", 7, false),
            ("7.final", 7, true),
            ("7.gone", 7, true),
            ("7.finale", 7, false),
            ("7x", 7, false),
            (".final", 0, false),
            ("x7", 0, false),
        ] {
            let last = Version::new(last).expect("good");
            assert_eq!(of(id), Ok(Some(Resumed { last, has_ended })), "{id:?}");
        }
        for id in ["9007199254740991", "99999999999999999999.final"] {
            assert!(of(id).is_err(), "{id}");
        }
    }
}
