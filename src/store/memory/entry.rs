//! The entry under one key: a status or a deletion, its version, and the last writes of the key.

use crate::model::key::Key;
use crate::model::status::{Update, Version};
use crate::model::write_number::{REMEMBERED_WRITES, WriteNumber};

/// The bytes that an entry counts besides its key, its value and its remembered writes: the map's
/// and the index's share, rounded up.
pub const ENTRY_BYTES: usize = 256;

/// The entry that the store keeps under one key.
#[derive(Debug)]
pub(super) struct Entry {
    /// The status or the deletion, until the entry expires. `None` if it has expired and only
    /// its version is remembered.
    pub(super) update: Option<Update>,
    /// The version of the last write.
    pub(super) version: Version,
    /// The last writes, from the first one that had an `id`. Most keys have none.
    pub(super) writes: Option<Box<Writes>>,
}

/// The last writes of a key, the oldest first, each with the number of its `id` if it had one.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Vec<(Option<WriteNumber>, Version)>);

impl Writes {
    /// Returns the version of the write with this number.
    pub(super) fn version_of(&self, number: WriteNumber) -> Option<Version> {
        self.0
            .iter()
            .find(|(known, _)| *known == Some(number))
            .map(|(_, version)| *version)
    }

    /// Returns the last writes including one more; `None` if none of them has an `id`.
    pub(super) fn with(
        old: Option<&Self>,
        number: Option<WriteNumber>,
        version: Version,
    ) -> Option<Box<Self>> {
        if old.is_none() && number.is_none() {
            return None;
        }
        let old = old.map_or(&[][..], |old| &old.0);
        let dropped = (old.len() + 1).saturating_sub(REMEMBERED_WRITES);
        let writes: Vec<_> = old[dropped..]
            .iter()
            .copied()
            .chain([(number, version)])
            .collect();
        writes
            .iter()
            .any(|(number, _)| number.is_some())
            .then(|| Box::new(Self(writes)))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.0)
    }
}

/// Returns the bytes that an entry counts towards the bound of the store.
pub(super) fn cost(key: &Key, entry: &Entry) -> usize {
    let value = entry.update.as_ref().map_or(0, Update::value_bytes);
    let writes = entry.writes.as_ref().map_or(0, |writes| writes.bytes());
    ENTRY_BYTES + key.as_str().len() + value + writes
}
