//! Keys, as they come after percent-decoding and before it, and as they are where they have to be signed.

use std::sync::LazyLock;

use holdfast::key::Key;
use holdfast::query::{Plus, decode};
use holdfast::signing::{NotGood, Secrets, Signing};

use super::grammar::{is_signed, key_mistake};

/// A key is what the grammar says, is kept as it is, and does not show itself.
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
    assert_eq!(parsed.as_ref().map_err(ToString::to_string).err().as_deref(), key_mistake(text));
    let Ok(key) = parsed else { return };
    assert_eq!(key.as_str(), text);
    assert_eq!(Key::parse(text).as_ref(), Ok(&key));
    let shown = format!("{key:?}");
    assert_eq!(shown, format!("Key({})", key.hashed()));
    check_signed(&key);
    assert!(shown.len() == 17 && shown[4..16].bytes().all(|byte| byte.is_ascii_hexdigit()), "{shown}");
}

/// Nobody knows the secret: no key is good, and what has the form of one is forged. With it a key of any id is.
fn check_signed(key: &Key) {
    static SIGNING: LazyLock<Signing> =
        LazyLock::new(|| Signing::of_all(Secrets::parse("of-the-fuzzer-which-does-not-look").expect("long enough")));
    let why = SIGNING.admit(key.clone(), 0).expect_err("no secret");
    let expected = if is_signed(key.as_str()) { NotGood::Forged } else { NotGood::Unsigned };
    assert_eq!(why, expected);
    if let Ok(signed) = Key::parse(&SIGNING.sign(key, 7)) {
        let admitted = SIGNING.admit(signed.clone(), 6);
        assert_eq!(admitted.is_ok_and(|admitted| admitted.id == *key), is_signed(signed.as_str()));
    }
}
