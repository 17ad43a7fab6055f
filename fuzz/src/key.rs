//! Checks keys: after percent-decoding, before it, and in nodes that require signed keys.

use std::sync::LazyLock;

use holdfast::http::query::{Plus, decode};
use holdfast::model::key::Key;
use holdfast::model::signing::{KeyRejection, Secrets, Signing};

use super::grammar::{is_signed, key_mistake};

/// Checks that a key follows the grammar, is kept unchanged, and is not shown by `Debug`.
pub fn check(input: &[u8]) {
    if let Ok(text) = str::from_utf8(input) {
        check_text(text);
    }
    if let Some(text) = decode(input, Plus::Literal) {
        check_text(&text);
    }
}

fn check_text(text: &str) {
    let parsed = Key::parse(text);
    assert_eq!(
        parsed
            .as_ref()
            .map_err(ToString::to_string)
            .err()
            .as_deref(),
        key_mistake(text)
    );
    let Ok(key) = parsed else { return };
    assert_eq!(key.as_str(), text);
    assert_eq!(Key::parse(text).as_ref(), Ok(&key));
    let shown = format!("{key:?}");
    assert_eq!(shown, format!("Key({})", key.hashed()));
    check_signed(&key);
    assert!(
        shown.len() == 17 && shown[4..16].bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{shown}"
    );
}

/// Checks that nobody can sign without the secret: no key is accepted, and a key in the form of
/// a signed one counts as forged. With the secret, a key of any id is accepted.
fn check_signed(key: &Key) {
    static SIGNING: LazyLock<Signing> = LazyLock::new(|| {
        Signing::of_all(Secrets::parse("of-the-fuzzer-which-does-not-look").expect("long enough"))
    });
    let why = SIGNING.admit(key.clone(), 0).expect_err("no secret");
    let expected = if is_signed(key.as_str()) {
        KeyRejection::Forged
    } else {
        KeyRejection::Unsigned
    };
    assert_eq!(why, expected);
    if let Ok(signed) = Key::parse(&SIGNING.sign(key, 7)) {
        let admitted = SIGNING.admit(signed.clone(), 6);
        assert_eq!(
            admitted.is_ok_and(|admitted| admitted.id == *key),
            is_signed(signed.as_str())
        );
    }
}
