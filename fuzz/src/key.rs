//! Keys, as they come after percent-decoding and before it.

use holdfast::key::Key;
use holdfast::query::{Plus, decode};

use super::grammar::key_mistake;

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
    assert!(shown.len() == 17 && shown[4..16].bytes().all(|byte| byte.is_ascii_hexdigit()), "{shown}");
}
