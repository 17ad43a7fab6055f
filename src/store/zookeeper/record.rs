//! The data of a key's znode, and the znode's place. Refuses anything malformed that others wrote
//! there, so that it does no harm further on. Pure.
//!
//! A key is in one of 256 shards, which are znodes themselves. So no znode has too many children,
//! and each shard has a version of its own that counts its sweeps.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::model::key::Key;
use crate::model::status::{Status, Update, Value, Version};
use crate::model::write_number::{REMEMBERED_WRITES, WriteNumber};

/// The number of shards.
pub(super) const SHARDS: usize = 256;
/// The first word of the data. Data that begins with another one was written by another version of
/// this program, or by someone else.
const FORMAT: &str = "1";

/// The state of a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) update: Update,
    /// Its time to live, from the time at which its znode was set.
    pub(super) ttl: Duration,
    /// The numbers of the last writes and their versions, the oldest first.
    pub(super) writes: Vec<(u64, Version)>,
}

impl Record {
    /// Returns the version that the write with this number got, if the key remembers it.
    pub(super) fn version_of(&self, number: WriteNumber) -> Option<Version> {
        let mut writes = self.writes.iter();
        let found = writes.find(|(one, _)| *one == number.get());
        found.map(|(_, version)| *version)
    }

    /// Returns the writes that are remembered after one more.
    pub(super) fn writes_after(
        before: Option<&Self>,
        number: WriteNumber,
        version: Version,
    ) -> Vec<(u64, Version)> {
        let mut writes = before.map_or(Vec::new(), |record| record.writes.clone());
        if writes.len() >= REMEMBERED_WRITES {
            writes.remove(0);
        }
        writes.push((number.get(), version));
        writes
    }

    /// Returns the data of the znode: a line of words, and the value's JSON text.
    pub(super) fn to_bytes(&self) -> Bytes {
        let (kind, value) = match &self.update {
            Update::Gone(_) => ("gone", &b""[..]),
            Update::Status(Status {
                value, is_final, ..
            }) => (if *is_final { "final" } else { "status" }, value.as_bytes()),
        };
        let (version, ttl) = (self.update.version(), self.ttl.as_millis());
        let mut data = format!("{FORMAT} {version} {ttl} {kind}");
        for (number, version) in &self.writes {
            let _ = write!(data, " {number:016x}:{version}");
        }
        data.push('\n');
        let mut data = data.into_bytes();
        data.extend_from_slice(value);
        data.into()
    }

    /// Reads the data of a znode. Returns `None` if it is malformed.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let end = data.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&data[..end]).ok()?.split(' ');
        if words.next()? != FORMAT {
            return None;
        }
        let version = Version::parse(words.next()?).filter(|version| *version > Version::NONE)?;
        let ttl = Duration::from_millis(words.next()?.parse().ok()?);
        let update = match words.next()? {
            "gone" => Update::Gone(version),
            kind @ ("status" | "final") => {
                let raw: &RawValue = serde_json::from_slice(&data[end + 1..]).ok()?;
                Update::Status(Status {
                    version,
                    value: Value::new(raw, usize::MAX).ok()?,
                    is_final: kind == "final",
                })
            }
            _ => return None,
        };
        let writes = words.map(|word| {
            let (number, version) = word.split_once(':')?;
            Some((
                u64::from_str_radix(number, 16).ok()?,
                Version::parse(version)?,
            ))
        });
        Some(Self {
            update,
            ttl,
            writes: writes.collect::<Option<_>>()?,
        })
    }
}

/// The paths of all znodes.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    root: String,
}

impl Paths {
    pub(super) const fn new(root: String) -> Self {
        Self { root }
    }

    /// The znode that says what is below it, and which ensemble this is.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// Returns the znodes above the root, the outermost first.
    pub(super) fn above_root(&self) -> impl Iterator<Item = &str> {
        let ends = self.root.match_indices('/').skip(1);
        ends.map(|(end, _)| &self.root[..end])
    }

    /// The parent of the nodes' znodes.
    pub(super) fn nodes(&self) -> String {
        format!("{}/nodes", self.root)
    }

    /// The znode of a node.
    pub(super) fn node(&self, name: &str) -> String {
        format!("{}/nodes/{}", self.root, escape(name))
    }

    /// The parent of the shards.
    pub(super) fn keys(&self) -> String {
        format!("{}/keys", self.root)
    }

    pub(super) fn shard(&self, shard: u8) -> String {
        format!("{}/keys/{shard:02x}", self.root)
    }

    pub(super) fn shard_of(&self, key: &Key) -> String {
        self.shard(shard_of(key.as_str()))
    }

    pub(super) fn key(&self, key: &Key) -> String {
        format!("{}/{}", self.shard_of(key), escape(key.as_str()))
    }

    /// The znode of the node that looks for statuses that nobody deletes.
    pub(super) fn sweeper(&self) -> String {
        format!("{}/sweeper", self.root)
    }
}

/// Returns the shard of a key, by FNV-1a. All nodes must agree on it.
fn shard_of(key: &str) -> u8 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = key.bytes().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    // All bytes count, because the lowest bits depend on little.
    hash.to_le_bytes().iter().fold(0, |all, byte| all ^ byte)
}

/// Returns a text as the name of a znode, which must not have a `/`. No key is `.` or `..`, which
/// are no names either.
pub(super) fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

/// Returns the text that a znode is named after.
pub(super) fn unescape(name: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(name).decode_utf8();
    text.ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: u64, json: &str, is_final: bool) -> Update {
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        Update::Status(Status {
            version: Version::new(version).expect("good"),
            value: Value::new(raw, usize::MAX).expect("good"),
            is_final,
        })
    }

    #[test]
    fn each_record_is_read_as_it_was_written() {
        let version = |number| Version::new(number).expect("good");
        for (update, text) in [
            (
                status(7, r#"{"a": "\n"}"#, false),
                "1 7 2000 status\n{\"a\": \"\\n\"}",
            ),
            (status(7, "null", true), "1 7 2000 final\nnull"),
            (Update::Gone(version(7)), "1 7 2000 gone\n"),
        ] {
            let record = Record {
                update,
                ttl: Duration::from_secs(2),
                writes: Vec::new(),
            };
            assert_eq!(record.to_bytes(), text.as_bytes());
            assert_eq!(Record::parse(text.as_bytes()), Some(record));
        }
        let mut record = Record::parse(b"1 7 2000 gone\n").expect("good");
        for number in 0..10 {
            let number = WriteNumber::of_node(number);
            record.writes = Record::writes_after(Some(&record), number, version(7));
        }
        assert_eq!(record.writes.len(), REMEMBERED_WRITES);
        let again = Record::parse(&record.to_bytes()).expect("good");
        assert_eq!(again, record);
        assert_eq!(again.version_of(WriteNumber::of_node(1)), None);
        assert_eq!(again.version_of(WriteNumber::of_node(2)), Some(version(7)));
    }

    #[test]
    fn data_of_others_is_refused() {
        for data in [
            "",
            "\n",
            "1\n",
            "2 7 2000 gone\n",
            "1 0 2000 gone\n",
            "1 07 2000 gone\n",
            "1 7 -1 gone\n",
            "1 7 2000 other\n",
            "1 7 2000 status\n{",
            "1 7 2000 status\n",
            "1 7 2000 gone x\n",
            "1 7 2000 gone 1:x\n",
            "1 7 2000 gone",
        ] {
            assert_eq!(Record::parse(data.as_bytes()), None, "{data:?}");
        }
        assert_eq!(Record::parse(b"1 7 2000 \xff\n"), None);
    }

    #[test]
    fn the_shard_of_a_key_is_the_same_forever() {
        // The shards of a million keys would differ between nodes of different versions.
        assert_eq!(
            [shard_of("demo"), shard_of("a/b")].map(|shard| format!("{shard:02x}")),
            ["4c", "de"]
        );
        let mut counts = [0_u32; SHARDS];
        for number in 0..25_600 {
            counts[usize::from(shard_of(&format!("order-{number}")))] += 1;
        }
        assert!(
            counts.iter().all(|count| (50..200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn each_text_has_a_name_of_its_own() {
        for (text, name) in [
            ("a/b%c", "a%2Fb%25c"),
            ("%2E", "%252E"),
            ("n1@http://a:1", "n1@http:%2F%2Fa:1"),
        ] {
            assert_eq!(escape(text), name);
            assert_eq!(unescape(name).as_deref(), Some(text));
        }
    }

    #[test]
    fn the_paths_are_below_the_root() {
        let paths = Paths::new("/a/b/c".to_owned());
        assert_eq!(paths.above_root().collect::<Vec<_>>(), ["/a", "/a/b"]);
        assert_eq!(
            paths.node("n1@http://a:1"),
            "/a/b/c/nodes/n1@http:%2F%2Fa:1"
        );
    }
}
