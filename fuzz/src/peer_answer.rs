//! Checks answers of another node, or of any other program at its address.

use holdfast::cluster::message::parse_delivered;
use holdfast::fuzzed::parse_count;
use holdfast::model::status::Version;
use holdfast::waiters::Reached;
use serde_json::value::RawValue;

use super::grammar::whole_number;
use super::json::{elements, members, only};

/// The name of the node that is asked, as in its lease.
const NAME: &str = "n1@http://10.0.0.1:11001";

/// Checks that counts are taken only from an answer of holdfast, one for each update that was
/// sent.
pub fn check(input: &[u8]) {
    // Members that are ignored may have any bytes, even invalid UTF-8, but the readers here are
    // stricter. So answers that are not UTF-8 are not compared.
    if str::from_utf8(input).is_err() {
        let _ = (parse_delivered(input, 1), parse_count(input, NAME));
        return;
    }
    let delivered = delivered(input);
    for count in 0..4 {
        let expected = delivered
            .as_ref()
            .filter(|(delivered, _)| delivered.len() == count);
        assert_eq!(parse_delivered(input, count).as_ref(), expected);
    }
    assert_eq!(parse_count(input, NAME).ok(), held(input));
}

/// Returns the deliveries that an answer to a channel set reports, and whether the node uses
/// its store.
fn delivered(answer: &[u8]) -> Option<(Vec<Reached>, bool)> {
    let members = members(serde_json::from_slice(answer).ok()?)?;
    let counts = elements(only(&members, "delivered")?)?;
    let count = |raw: &RawValue| whole_number(raw.get(), u32::MAX.into())?.try_into().ok();
    let counts: Vec<usize> = counts.into_iter().map(count).collect::<Option<_>>()?;
    let behind = if members.iter().any(|(name, _)| name == "behind") {
        elements(only(&members, "behind")?)?
    } else {
        Vec::new()
    };
    let number = |raw: &RawValue| whole_number(raw.get(), u64::MAX);
    let behind: Vec<u64> = behind.into_iter().map(number).collect::<Option<_>>()?;
    let ahead_of = |at: usize| Version::new(*behind.get(at)?);
    let delivered = counts.into_iter().enumerate();
    let delivered = delivered.map(|(at, waiters)| Reached {
        waiters,
        ahead: ahead_of(at).unwrap_or_default(),
    });
    let delivered: Vec<_> = delivered.collect();
    let store = match members.iter().any(|(name, _)| name == "store") {
        true => only(&members, "store")?.get().parse().ok()?,
        false => false,
    };
    only(&members, "code")
        .filter(|code| code.get() == "0")
        .map(|_| (delivered, store))
}

/// Returns how many waiters the node holds, by its answer to a look at a key.
fn held(answer: &[u8]) -> Option<u64> {
    let members = members(serde_json::from_slice(answer).ok()?)?;
    let waiters = super::json::members(only(&members, "waiters")?)?;
    let counts: Option<Vec<_>> = waiters
        .iter()
        .map(|(name, raw)| Some((name, raw.get().parse::<u64>().ok()?)))
        .collect();
    // If a name is repeated, the last count holds, as in any program that reads JSON into a
    // map.
    let count = counts?.into_iter().rev().find(|(name, _)| *name == NAME);
    Some(count.map_or(0, |(_, count)| count))
}
