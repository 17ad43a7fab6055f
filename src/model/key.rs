//! Keys. A key is checked once, when it comes in. All later code trusts it.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock, OnceLock};

use ring::hmac;

use crate::model::mistake::Fault;

/// The length of the longest key.
pub const MAX_KEY_BYTES: usize = 128;

/// The key of a status that gets wait for: 1 to 128 bytes of printable ASCII without the space.
/// It is cheap to clone. The order of keys means nothing.
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

/// The hasher of maps by [`Key`]. It only passes on the hash that a key already has.
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
    /// Checks a key as it is after percent-decoding. `.` and `..` are refused, because a client
    /// library or a proxy would turn `/keys/..` into another path before sending it.
    ///
    /// # Errors
    /// A [`Fault`] if the text is no key.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "" => Err(Fault::Empty),
            _ if text.len() > MAX_KEY_BYTES => Err(Fault::LongerThan(MAX_KEY_BYTES)),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err(Fault::NotPrintable),
            "." | ".." => Err(Fault::DotSegment),
            _ => {
                // The hash is computed once and used by every map that the key gets to. Each
                // process has a new seed, because pages choose keys.
                static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
                Ok(Self {
                    hash: SEED.hash_one(text),
                    text: text.into(),
                })
            }
        }
    }

    /// Returns the key's hash, which is valid in this process only.
    pub(crate) fn own_hash(&self) -> u64 {
        self.hash
    }

    /// Returns the key's text. It is a secret between the page and the backend, so it must
    /// never be logged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the hash that stands for the key in logs: see [`log_keys_by`]. The hash is
    /// computed only if it is written.
    #[must_use]
    pub const fn hashed(&self) -> HashedKey<'_> {
        HashedKey(self)
    }
}

/// The secret with which keys in logs are hashed.
static LOG_SECRET: OnceLock<hmac::Key> = OnceLock::new();

/// Sets the secret with which keys in logs are hashed. Nodes share it, so that the lines of one
/// key can be found on all of them, and nobody without the secret can try out keys. Without a
/// secret each process uses a random one. It is called at the start, before any key is logged.
pub(crate) fn log_keys_by(secret: Option<&str>) {
    if let Some(secret) = secret {
        let secret = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            b"holdfast: keys in logs",
        );
        // A second call changes nothing, because a process has one log.
        let _ = LOG_SECRET.set(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()));
    }
}

fn log_secret() -> &'static hmac::Key {
    LOG_SECRET.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()))
}

/// Shows the hash, so that a key cannot get into a log by `{:?}`.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.hashed())
    }
}

/// The hash of a key for logs, see [`Key::hashed`]: 12 hex digits, too few to recover a random
/// key from them.
#[derive(Clone, Copy)]
pub struct HashedKey<'a>(&'a Key);

impl fmt::Display for HashedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = hmac::sign(log_secret(), self.0.text.as_bytes());
        tag.as_ref()
            .iter()
            .take(6)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HashedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
            ("", Fault::Empty),
            (&*"k".repeat(129), Fault::LongerThan(128)),
            ("a b", Fault::NotPrintable),
            ("a\0", Fault::NotPrintable),
            ("a\u{7f}", Fault::NotPrintable),
            ("é", Fault::NotPrintable),
            (".", Fault::DotSegment),
            ("..", Fault::DotSegment),
        ] {
            assert_eq!(Key::parse(bad), Err(what));
        }
    }

    #[test]
    fn a_key_does_not_show_itself_in_a_log() {
        let key = Key::parse("secret").expect("good");
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(key.hashed().to_string().len(), 12);
        assert_eq!(
            key.hashed().to_string(),
            Key::parse("secret").expect("good").hashed().to_string()
        );
    }
}
