//! Signed keys: they decide who may wait for a status. With secrets, a backend sets a status
//! under an *id*, which anybody may see. A page waits for it with a *key*,
//! `<id>.<expires>.<signature>`, which only the page it was made for has. A key is checked by
//! itself, so a key that is refused costs no look into the store and no waiter.
//!
//! The signature is HMAC-SHA-256 (RFC 2104) over `<id>.<expires>`, in base64url without padding
//! (RFC 4648, 5). So a backend in any language can sign keys by itself. docs/signed-keys.md has the test
//! vectors.

use std::fmt;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use thiserror::Error;

use crate::model::key::Key;

/// The length of the shortest secret. It is as long as the output of the hash (RFC 2104, 3).
const MIN_SECRET_BYTES: usize = 32;

/// The secrets that keys are signed with. The first one signs and all of them verify, so that a
/// secret can be replaced without a page noticing.
#[derive(Clone)]
pub struct Secrets(Vec<hmac::Key>);

/// The mistake in a file of secrets. Its text contains no secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its text says")]
pub enum SecretsError {
    #[error("there is no secret in it")]
    Empty,
    #[error("secret {0} must be printable ASCII")]
    NotPrintable(usize),
    #[error("secret {number} has {bytes} bytes: it needs {MIN_SECRET_BYTES} or more")]
    TooShort { number: usize, bytes: usize },
}

impl Secrets {
    /// Parses a file with one secret a line, each taken as the bytes of its line without white
    /// space at both ends. Empty lines are skipped.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secret = |(index, line): (usize, &str)| match line.len() {
            _ if !line.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(SecretsError::NotPrintable(index + 1))
            }
            bytes if bytes < MIN_SECRET_BYTES => Err(SecretsError::TooShort {
                number: index + 1,
                bytes,
            }),
            _ => Ok(hmac::Key::new(hmac::HMAC_SHA256, line.as_bytes())),
        };
        let secrets: Vec<_> = lines.enumerate().map(secret).collect::<Result<_, _>>()?;
        if secrets.is_empty() {
            Err(SecretsError::Empty)
        } else {
            Ok(Self(secrets))
        }
    }

    /// Returns a random secret that nobody knows.
    fn fresh() -> Self {
        Self(vec![hmac::Key::new(
            hmac::HMAC_SHA256,
            &rand::random::<[u8; MIN_SECRET_BYTES]>(),
        )])
    }
}

/// Shows only the number of secrets, so that none of them gets into a log.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// The signer and checker of keys.
#[derive(Debug)]
pub struct Signing {
    secrets: Secrets,
    /// The test whether an id needs a signature. `None` if all ids do.
    only: Option<fn(&str) -> bool>,
}

/// A key that is good, or needs no signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The id, under which the status is set and waited for.
    pub id: Key,
    /// How much longer the key is good. `None` if it needs no signature.
    pub left: Option<Duration>,
}

/// The reason why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is called what the documents call it")]
pub enum KeyRejection {
    Unsigned,
    Forged,
    Expired,
}

impl KeyRejection {
    pub(crate) const ALL: [Self; 3] = [Self::Unsigned, Self::Forged, Self::Expired];

    /// Returns the name that labels and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
            Self::Expired => "expired",
        }
    }
}

impl Signing {
    /// Requires every key to be signed.
    #[must_use]
    pub const fn of_all(secrets: Secrets) -> Self {
        Self {
            secrets,
            only: None,
        }
    }

    /// Requires keys of these ids, and no others, to be signed by this process.
    #[must_use]
    pub fn only_of(ids: fn(&str) -> bool) -> Self {
        Self {
            secrets: Secrets::fresh(),
            only: Some(ids),
        }
    }

    /// Returns whether all keys have to be signed.
    #[must_use]
    pub const fn is_of_all(&self) -> bool {
        self.only.is_none()
    }

    /// Returns the key for an id that is good until `expires`, in milliseconds since 1970.
    #[must_use]
    pub fn sign(&self, id: &Key, expires: u64) -> String {
        let signed = format!("{}.{expires}", id.as_str());
        let secret = self
            .secrets
            .0
            .first()
            .expect("there is at least one secret");
        let signature = BASE64URL_NOPAD.encode(hmac::sign(secret, signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    /// Checks a key at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// A [`KeyRejection`] if the key is not good.
    pub fn admit(&self, key: Key, now: u64) -> Result<Admitted, KeyRejection> {
        let id = key.as_str().split('.').next().unwrap_or_default();
        if self.only.is_some_and(|needs| !needs(id)) {
            return Ok(Admitted {
                id: key,
                left: None,
            });
        }
        let Signed {
            id,
            expires,
            text,
            signature,
        } = Signed::parse(key.as_str()).ok_or(KeyRejection::Unsigned)?;
        // `verify` takes a time that does not reveal how much of the signature is right.
        if !self
            .secrets
            .0
            .iter()
            .any(|secret| hmac::verify(secret, text.as_bytes(), &signature).is_ok())
        {
            return Err(KeyRejection::Forged);
        }
        let left = expires
            .checked_sub(now)
            .filter(|left| *left > 0)
            .ok_or(KeyRejection::Expired)?;
        let id = Key::parse(id).expect("an id is a key");
        Ok(Admitted {
            id,
            left: Some(Duration::from_millis(left)),
        })
    }
}

/// Returns whether a text may be the id of a signed key.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// A key that has the form of a signed one.
struct Signed<'a> {
    id: &'a str,
    expires: u64,
    /// The text that is signed: `<id>.<expires>`.
    text: &'a str,
    signature: Vec<u8>,
}

impl<'a> Signed<'a> {
    fn parse(key: &'a str) -> Option<Self> {
        let (text, signature) = key.rsplit_once('.')?;
        let (id, expires) = text.split_once('.')?;
        let digits = expires.bytes().all(|byte| byte.is_ascii_digit());
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        let has_form = is_id(id)
            && digits
            && signature.len() == hmac::HMAC_SHA256.digest_algorithm().output_len();
        if has_form {
            Some(Self {
                id,
                expires: expires.parse().ok()?,
                text,
                signature,
            })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of holdfast's tests, 32"; // refused in a file: it has spaces

    fn signing(secrets: &[&str]) -> Signing {
        let key = |secret: &&str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Signing::of_all(Secrets(secrets.iter().map(key).collect()))
    }

    fn key(text: &str) -> Key {
        Key::parse(text).expect("a key")
    }

    #[test]
    fn a_key_is_good_until_it_expires() {
        let signing = signing(&[SECRET]);
        let signed = key(&signing.sign(&key("login-1"), 1_000_000));
        let left = |now| {
            signing
                .admit(signed.clone(), now)
                .map(|admitted| (admitted.id, admitted.left))
        };
        assert_eq!(
            left(0),
            Ok((key("login-1"), Some(Duration::from_secs(1000))))
        );
        assert_eq!(
            left(999_999),
            Ok((key("login-1"), Some(Duration::from_millis(1))))
        );
        assert_eq!(
            (left(1_000_000), left(u64::MAX)),
            (Err(KeyRejection::Expired), Err(KeyRejection::Expired))
        );
    }

    #[test]
    fn of_several_secrets_the_first_signs_and_each_verifies() {
        let (old, new) = (signing(&[SECRET]), signing(&["another", SECRET]));
        let admits = |by: &Signing, of: &Signing| by.admit(key(&of.sign(&key("a"), 5)), 0).is_ok();
        assert!(admits(&new, &old) && admits(&new, &new) && !admits(&old, &new));
    }

    #[test]
    fn what_was_changed_is_forged_and_what_has_another_form_is_unsigned() {
        let signing = signing(&[SECRET]);
        let good = signing.sign(&key("a"), 1_000_000);
        let (_, signature) = good.rsplit_once('.').expect("three parts");
        let admit = |text: &str| signing.admit(key(text), 0).map(|admitted| admitted.id);
        assert_eq!(admit(&good), Ok(key("a")));
        for forged in [
            format!("b.1000000.{signature}"),
            format!("a.1000001.{signature}"),
            format!("a.01000000.{signature}"),
        ] {
            assert_eq!(admit(&forged), Err(KeyRejection::Forged), "{forged}");
        }
        // Each bit counts. The last two bits of the text's last character are not part of the
        // signature.
        for at in 0..signature.len() {
            let mut changed = signature.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'E' } else { b'A' };
            let forged = format!("a.1000000.{}", String::from_utf8(changed).expect("ASCII"));
            assert_eq!(admit(&forged), Err(KeyRejection::Forged), "{forged}");
        }
        for unsigned in [
            "a",
            "a.1000000",
            &format!(".1000000.{signature}"),
            &format!("a..{signature}"),
            &format!("a.-1.{signature}"),
            &format!("a.99999999999999999999.{signature}"),
            &format!("a b.1000000.{signature}").replace(' ', "!"),
            &format!("{}.1000000.{signature}", "a".repeat(65)),
            &format!("a.b.1000000.{signature}"),
            &good[..good.len() - 1],
            &format!("{good}="),
            &format!("{good}A"),
            &good.replace(signature, &signature.replace(|_| true, "*")),
        ] {
            assert_eq!(
                signing.admit(Key::parse(unsigned).expect("a key"), 0).err(),
                Some(KeyRejection::Unsigned),
                "{unsigned}"
            );
        }
    }

    #[test]
    fn only_keys_of_some_ids_are_signed_where_only_they_need_it() {
        let of_some = || Signing::only_of(|id| id == "demo-1");
        let signing = of_some();
        for other in ["demo", "demo-12", "demo-2.5.x"] {
            assert_eq!(
                signing.admit(key(other), 0),
                Ok(Admitted {
                    id: key(other),
                    left: None
                })
            );
        }
        assert_eq!(signing.admit(key("demo-1"), 0), Err(KeyRejection::Unsigned));
        assert!(
            signing
                .admit(key(&signing.sign(&key("demo-1"), 5)), 0)
                .is_ok()
        );
        let other = of_some();
        assert_eq!(
            signing.admit(key(&other.sign(&key("demo-1"), 5)), 0),
            Err(KeyRejection::Forged)
        );
    }

    #[test]
    fn a_file_has_a_long_secret_on_each_line() {
        let long = "x".repeat(32);
        assert_eq!(
            Secrets::parse(&format!("\n {long}\r\n\n{long}y\n"))
                .expect("good")
                .0
                .len(),
            2
        );
        for (text, mistake) in [
            ("", "there is no secret in it"),
            (" \n\n", "there is no secret in it"),
            (
                &*"x".repeat(31),
                "secret 1 has 31 bytes: it needs 32 or more",
            ),
            (
                &*format!("{long}\n{long} {long}"),
                "secret 2 must be printable ASCII",
            ),
        ] {
            let parsed = Secrets::parse(text).map(|_| ());
            assert_eq!(
                parsed.map_err(|error| error.to_string()),
                Err(mistake.into())
            );
        }
        assert_eq!(
            format!("{:?}", Secrets::parse(&long).expect("good")),
            "Secrets(1)"
        );
    }
}
