//! Reads the answers of the scripts. Refuses or passes over anything malformed that others wrote
//! into Redis, so that it does no harm further on. Pure.

use std::time::Duration;

use redis::{Value as Reply, from_redis_value};
use serde_json::value::RawValue;

use crate::model::lease::{Lease, NodeList};
use crate::model::status::{Status, Update, Value, Version};
use crate::store::{Known, Snapshot, Stored, StoredBy};

/// The result of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It was carried out, now or by an earlier command with its number.
    Stored(Stored),
    /// The key's version is this one, and not the one that it had to be.
    Conflict(Version),
    /// There is no greater version.
    Full,
    /// It came after the latest time at which it may be carried out.
    Late(Late),
}

/// The answer to a write that came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// The server's time, in ms since 1970.
    pub now: u64,
    /// The number of writes that the key remembers.
    pub remembered: u64,
    /// The version of the oldest of them.
    pub oldest: Version,
}

/// Reads the result of a write. Returns `None` if the reply has no known form. It is then not
/// known what the write did.
#[must_use]
pub fn parse_written(reply: &[Reply], generation: u64) -> Option<Written> {
    let given = |at| reply.get(at).and_then(version);
    match bytes(reply.get(1)?)? {
        b"stored" => {
            let version = given(2).filter(|version| *version > Version::NONE)?;
            let ttl = reply
                .get(3)
                .and_then(parse_number)
                .map(Duration::from_millis)
                .unwrap_or_default();
            let leases = parse_leases(reply.get(4..).unwrap_or_default());
            Some(Written::Stored(Stored {
                version,
                ttl,
                leases,
                generation,
                by: StoredBy::This,
            }))
        }
        b"earlier" => {
            let version = given(2).filter(|version| *version > Version::NONE)?;
            // From here on the reply has the form of a read's, with the version in the place of the
            // time.
            let Snapshot { known, leases } = parse_snapshot(&reply[2..])?;
            let ttl = known
                .as_ref()
                .map(|known| known.expires_in)
                .unwrap_or_default();
            Some(Written::Stored(Stored {
                version,
                ttl,
                leases,
                generation,
                by: StoredBy::Earlier(known),
            }))
        }
        b"conflict" => Some(Written::Conflict(given(2)?)),
        b"full" => Some(Written::Full),
        b"late" => {
            let (now, remembered) = (parse_number(&reply[0])?, parse_number(reply.get(2)?)?);
            Some(Written::Late(Late {
                now,
                remembered,
                oldest: given(3)?,
            }))
        }
        _ => None,
    }
}

/// Reads what is under a key: what [`parse_known`] reads, then leases.
#[must_use]
pub fn parse_snapshot(reply: &[Reply]) -> Option<Snapshot> {
    let known = parse_known(reply)?;
    Some(Snapshot {
        known,
        leases: parse_leases(reply.get(5..).unwrap_or_default()),
    })
}

/// Reads what a script answers of a status: `now, version, left, value, final`. Returns
/// `Some(None)` if there is none, and `None` if the reply has no known form.
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
            Update::Status(Status {
                version,
                value,
                is_final: reply.get(4).and_then(bytes) == Some(b"1"),
            })
        }
        None => Update::Gone(version),
    };
    Some(Some(Known { update, expires_in }))
}

/// Reads the reply to an open: `now, the lease's end`, then the status as [`parse_known`] reads
/// it. The end is 0 if no lease was written.
#[must_use]
pub(super) fn parse_opened(reply: &[Reply]) -> Option<(u64, Option<Known>)> {
    Some((parse_number(reply.get(1)?)?, parse_known(&reply[1..])?))
}

/// Reads which nodes are there: `now, name, its end, ...`.
#[must_use]
pub(super) fn parse_nodes(reply: &[Reply]) -> NodeList {
    NodeList {
        now: reply.first().and_then(parse_number).unwrap_or_default(),
        others: parse_leases(reply.get(1..).unwrap_or_default()),
    }
}

/// Reads leases: names and ends in turn. Passes over those that are malformed.
fn parse_leases(replies: &[Reply]) -> Vec<Lease> {
    let lease = |pair: &[Reply]| {
        Lease::parse(
            str::from_utf8(bytes(&pair[0])?).ok()?,
            parse_number(&pair[1])?,
        )
    };
    replies.chunks_exact(2).filter_map(lease).collect()
}

/// Reads a number that is not negative, in any form that Redis has for it.
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
        let written = |version| {
            parse_written(
                &[
                    Reply::Int(9),
                    Reply::BulkString(b"stored".into()),
                    Reply::Int(version),
                ],
                1,
            )
        };
        assert!(
            matches!(written(5), Some(Written::Stored(Stored { version, .. })) if version.get() == 5)
        );
        for none in [0, -1, 1 << 53] {
            assert_eq!(written(none), None, "{none}");
        }
    }

    #[test]
    fn a_repeat_has_its_own_version_and_what_is_there_today() {
        let text = |text: &str| Reply::BulkString(text.into());
        let reply = [
            Reply::Int(9),
            text("earlier"),
            Reply::Int(5),
            Reply::Int(6),
            Reply::Int(700),
            text("true"),
            text("0"),
        ];
        let Some(Written::Stored(stored)) = parse_written(&reply, 1) else {
            panic!("stored")
        };
        let StoredBy::Earlier(Some(known)) = stored.by else {
            panic!("something is there")
        };
        assert_eq!((stored.version.get(), known.update.version().get()), (5, 6));
        assert_eq!(known.expires_in, Duration::from_millis(700));
        let nothing = [
            Reply::Int(9),
            text("earlier"),
            Reply::Int(5),
            Reply::Int(0),
            Reply::Int(0),
            Reply::Nil,
            Reply::Nil,
        ];
        let by = parse_written(&nothing, 1).map(|written| {
            matches!(
                written,
                Written::Stored(Stored {
                    by: StoredBy::Earlier(None),
                    ..
                })
            )
        });
        assert_eq!(by, Some(true));
    }
}
