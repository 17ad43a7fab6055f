//! What a key is: checked once, then trusted by everything behind the edge.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::error::What;

/// The longest key.
pub const MAX_KEY_BYTES: usize = 128;

/// What is waited for: 1 to 128 bytes of printable ASCII without the space. Cheap to clone. Its order means nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// See [`Key::own_hash`].
    hash: u64,
    text: Arc<str>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

/// What maps by key hash with: a key brings its hash.
pub type KeyHasher = BuildHasherDefault<OwnHash>;

/// See [`KeyHasher`].
#[derive(Debug, Default)]
pub struct OwnHash(u64);

impl Hasher for OwnHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key writes its hash, and nothing else is a key");
    }
}

impl Key {
    /// Takes a key as it is after percent-decoding. `.` and `..` are no keys: a client library or a proxy would fold
    /// `/keys/..` into another path before it is sent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, What> {
        match text {
            "" => Err(What::Empty),
            _ if text.len() > MAX_KEY_BYTES => Err(What::LongerThan(MAX_KEY_BYTES)),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err(What::NotPrintable),
            "." | ".." => Err(What::DotSegment),
            _ => {
                // Made once, and used in each map on the way. Seeded anew by each process: pages choose keys.
                static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
                Ok(Self { hash: SEED.hash_one(text), text: text.into() })
            }
        }
    }

    /// Its hash in this process.
    pub(crate) fn own_hash(&self) -> u64 {
        self.hash
    }

    /// The key itself: a secret between the page and the backend, so never for a log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands for the key in logs: the same on every node, so that one key's lines can be found on all of them,
    /// and too short to tell a random key from it.
    #[must_use]
    pub fn hashed(&self) -> HashedKey {
        // Unlike a RandomState's, this hasher's seed is the same in each process.
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        HashedKey(hasher.finish() >> 16)
    }
}

/// Hashed, so that a key cannot get into a log by `{:?}`.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.hashed())
    }
}

/// See [`Key::hashed`]: 12 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashedKey(u64);

impl fmt::Display for HashedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_128_printable_bytes() {
        for good in ["a", "!", "~", "...", "a/b?c=d&e", &"k".repeat(128)] {
            assert_eq!(Key::parse(good).expect(good).as_str(), good);
        }
        for (bad, what) in [
            ("", What::Empty),
            (&*"k".repeat(129), What::LongerThan(128)),
            ("a b", What::NotPrintable),
            ("a\0", What::NotPrintable),
            ("a\u{7f}", What::NotPrintable),
            ("é", What::NotPrintable),
            (".", What::DotSegment),
            ("..", What::DotSegment),
        ] {
            assert_eq!(Key::parse(bad), Err(what));
        }
    }

    #[test]
    fn a_key_does_not_show_itself_in_a_log() {
        let key = Key::parse("secret").expect("good");
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(key.hashed(), Key::parse("secret").expect("good").hashed());
    }
}
