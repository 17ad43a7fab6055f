//! The rendering of JSON as safe JavaScript.
//!
//! It walks over the JSON text instead of parsing and writing it again, because a value is
//! carried to the byte, and because most values need no change at all.

use crate::model::status::code_unit;

/// Writes well-formed JSON as a JavaScript expression with the same value.
///
/// Two things differ. Before ES2019, U+2028 and U+2029 end a line inside a string. And in an
/// object literal a member named `__proto__` sets the prototype, and two of them are a syntax
/// error. The computed name `["__proto__"]` makes it a plain member.
pub(in crate::page) fn push_as_script(json: &[u8], out: &mut Vec<u8>) {
    // Without these bytes nothing differs: U+2028 and U+2029 begin with E2, and `__proto__` is
    // written with `_` or an escape. Most values have none. `fold` never stops early, so many
    // bytes are looked at at once.
    if !json.iter().fold(false, |may_differ, &byte| {
        may_differ | matches!(byte, 0xE2 | b'_' | b'\\')
    }) {
        return out.extend_from_slice(json);
    }
    let (mut copied, mut at) = (0, 0);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                let end = string_end(json, at);
                if is_proto(&json[at + 1..end - 1]) && is_member_name(json, end) {
                    out.extend_from_slice(&json[copied..at]);
                    out.extend_from_slice(b"[\"__proto__\"]");
                    copied = end;
                } else {
                    copied = push_line_ends_escaped(json, copied, at, end, out);
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&json[copied..]);
}

/// Returns the position after the closing quote of the string that opens at `at`.
fn string_end(json: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(&byte) = json.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    json.len()
}

/// Returns whether the string that ends at `end` is a member's name: only then a colon follows.
fn is_member_name(json: &[u8], end: usize) -> bool {
    json[end..]
        .iter()
        .find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        == Some(&b':')
}

/// Returns whether the text between two quotes decodes to `__proto__`.
fn is_proto(text: &[u8]) -> bool {
    let mut at = 0;
    for &expected in b"__proto__" {
        if text.get(at) == Some(&expected) {
            at += 1;
        } else if code_unit(text, at) == Some(u16::from(expected)) {
            at += 6;
        } else {
            return false;
        }
    }
    at == text.len()
}

/// Replaces each U+2028 or U+2029 (E2 80 A8, E2 80 A9) in the string from `at` to `end` by its
/// escape, and copies the JSON before it. Returns the position up to which it has copied.
fn push_line_ends_escaped(
    json: &[u8],
    mut copied: usize,
    at: usize,
    end: usize,
    out: &mut Vec<u8>,
) -> usize {
    for (offset, window) in json[at..end].windows(3).enumerate() {
        let escape: &[u8] = match window {
            [0xE2, 0x80, 0xA8] => b"\\u2028",
            [0xE2, 0x80, 0xA9] => b"\\u2029",
            _ => continue,
        };
        out.extend_from_slice(&json[copied..at + offset]);
        out.extend_from_slice(escape);
        copied = at + offset + 3;
    }
    copied
}
