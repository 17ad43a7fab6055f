//! What another node, or whatever listens at its address, answers.

use holdfast::channel::parse_delivered;
use holdfast::fuzzed::parse_count;
use serde_json::value::RawValue;

use super::grammar::whole_number;
use super::json::{elements, members, only};

/// The node that is asked, as its lease names it.
const NAME: &str = "n1@http://10.0.0.1:11001";

/// Counts are taken from an answer of ours and from no other, one for each update that was told.
pub fn check(input: &[u8]) {
    // What is ignored may be anything, even no UTF-8; the readers here are stricter.
    if str::from_utf8(input).is_err() {
        let _ = (parse_delivered(input, 1), parse_count(input, NAME));
        return;
    }
    let delivered = delivered(input);
    for count in 0..4 {
        let expected = delivered.as_ref().filter(|delivered| delivered.len() == count);
        assert_eq!(parse_delivered(input, count).as_ref(), expected);
    }
    assert_eq!(parse_count(input, NAME).ok(), held(input));
}

/// What an answer to a channel set says was delivered.
fn delivered(answer: &[u8]) -> Option<Vec<usize>> {
    let members = members(serde_json::from_slice(answer).ok()?)?;
    let counts = elements(only(&members, "delivered")?)?;
    let count = |raw: &RawValue| whole_number(raw.get(), u32::MAX.into())?.try_into().ok();
    let delivered = counts.into_iter().map(count).collect();
    only(&members, "code").filter(|code| code.get() == "0").and(delivered)
}

/// What an answer to a look at a key says that the node holds.
fn held(answer: &[u8]) -> Option<u64> {
    let members = members(serde_json::from_slice(answer).ok()?)?;
    let waiters = super::json::members(only(&members, "waiters")?)?;
    let counts: Option<Vec<_>> =
        waiters.iter().map(|(name, raw)| Some((name, raw.get().parse::<u64>().ok()?))).collect();
    // Of a doubled name the last counts, as with all who read JSON into a map.
    let count = counts?.into_iter().rev().find(|(name, _)| *name == NAME);
    Some(count.map_or(0, |(_, count)| count))
}
