//! What the scripts answer, read: what others wrote into Redis is refused or passed over here, and harms nothing behind it.
//! Pure.

use std::time::Duration;

use redis::{Value as Reply, from_redis_value};
use serde_json::value::RawValue;

use crate::lease::Lease;
use crate::status::{Status, Update, Value, Version};
use crate::store::{Known, Looked, StoreError, Stored};

/// What a write came to: `now, 'stored', version, ttl, lease's name, its end, ...`, or a refusal. Of anything else nobody
/// knows what it did.
///
/// # Errors
/// That it was refused, or not understood.
pub fn parse_stored(reply: &[Reply], process: u64) -> Result<Stored, StoreError> {
    let kind = reply.get(1).and_then(bytes);
    match (kind, reply.get(2).and_then(version)) {
        (Some(b"stored"), Some(version)) if version > Version::NONE => {
            let ttl = reply.get(3).and_then(parse_number).map(Duration::from_millis).unwrap_or_default();
            Ok(Stored { version, ttl, leases: parse_leases(reply.get(4..).unwrap_or_default()), process })
        }
        (Some(b"conflict"), Some(version)) => Err(StoreError::Conflict(version)),
        (Some(b"full"), _) => Err(StoreError::Full),
        _ => Err(StoreError::Unknown),
    }
}

/// What is under a key: that of [`parse_known`], then leases.
#[must_use]
pub fn parse_looked(reply: &[Reply]) -> Option<Looked> {
    let known = parse_known(reply)?;
    Some(Looked { known, leases: parse_leases(reply.get(5..).unwrap_or_default()) })
}

/// What a script tells of a status: `now, version, left, value, final`; `None` if it is in no form of ours.
#[must_use]
pub fn parse_known(reply: &[Reply]) -> Option<Option<Known>> {
    let version = match reply.get(1) {
        Some(reply) => version(reply)?,
        None => Version::NONE,
    };
    if version == Version::NONE {
        return Some(None);
    }
    let expires_in = Duration::from_millis(parse_number(reply.get(2)?)?);
    let update = match reply.get(3).and_then(bytes) {
        Some(json) => {
            let raw: &RawValue = serde_json::from_slice(json).ok()?;
            let value = Value::new(raw, usize::MAX).ok()?;
            Update::Status(Status { version, value, is_final: reply.get(4).and_then(bytes) == Some(b"1") })
        }
        None => Update::Gone(version),
    };
    Some(Some(Known { update, expires_in }))
}

/// Which nodes are there: `now, name, its end, ...`.
#[must_use]
pub(super) fn parse_nodes(reply: &[Reply]) -> Vec<Lease> {
    parse_leases(reply.get(1..).unwrap_or_default())
}

/// Names and ends in turn.
fn parse_leases(replies: &[Reply]) -> Vec<Lease> {
    let lease = |pair: &[Reply]| Lease::parse(str::from_utf8(bytes(&pair[0])?).ok()?, parse_number(&pair[1])?);
    replies.chunks_exact(2).filter_map(lease).collect()
}

/// A number that is not negative, in any form that Redis has for it.
pub(super) fn parse_number(reply: &Reply) -> Option<u64> {
    from_redis_value(reply.clone()).ok()
}

fn version(reply: &Reply) -> Option<Version> {
    parse_number(reply).and_then(Version::new)
}

fn bytes(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_stored_without_a_version() {
        let stored =
            |version| parse_stored(&[Reply::Int(9), Reply::BulkString(b"stored".into()), Reply::Int(version)], 1);
        assert_eq!(stored(5).map(|stored| stored.version.get()), Ok(5));
        for none in [0, -1, 1 << 53] {
            assert_eq!(stored(none), Err(StoreError::Unknown), "{none}");
        }
    }
}
