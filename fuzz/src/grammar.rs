//! The grammars of README.md as regular expressions.

use std::sync::LazyLock;

use regex_lite::Regex;

/// The words that no callback begins with and that are not variables.
pub const RESERVED: &str = "break case catch class const continue debugger default delete do else enum export extends false \
     finally for function if import in instanceof new null return super switch this throw true try typeof var void while \
     with await let static yield implements interface package private protected public";

/// The greatest version, and below it the greatest `last` of a page.
pub(crate) const MAX_VERSION: u64 = (1 << 53) - 1;
pub(crate) const MAX_LAST: u64 = MAX_VERSION - (1 << 20);

/// Returns the mistake in a key, or `None` if it is a key.
pub(crate) fn key_mistake(text: &str) -> Option<&'static str> {
    static PRINTABLE: LazyLock<Regex> = LazyLock::new(|| regex("^[!-~]*$"));
    match text.len() {
        0 => Some("empty"),
        129.. => Some("longer than 128 bytes"),
        _ if !PRINTABLE.is_match(text) => Some("must be printable ASCII without spaces (! to ~)"),
        _ if ["", "."].contains(&&text[1..]) && text.starts_with('.') => {
            Some("must not be . or ..")
        }
        _ => None,
    }
}

/// Returns whether a page may have `name` called.
pub(crate) fn is_callback(name: &str) -> bool {
    static SEGMENTS: LazyLock<Regex> = LazyLock::new(|| {
        let segment = r"[A-Za-z_$][A-Za-z0-9_$]*(\[[0-9]{1,5}\]){0,4}";
        regex(&format!(r"^{segment}(\.{segment})*$"))
    });
    let first = name.split(['.', '[']).next().unwrap_or_default();
    name.len() <= 128 && SEGMENTS.is_match(name) && !is_reserved(first)
}

/// Returns whether a page may have `name` assigned.
pub(crate) fn is_variable(name: &str) -> bool {
    static IDENTIFIER: LazyLock<Regex> = LazyLock::new(|| regex("^[A-Za-z_$][A-Za-z0-9_$]*$"));
    name.len() <= 64 && IDENTIFIER.is_match(name) && !is_reserved(name) && name != "location"
}

fn is_reserved(word: &str) -> bool {
    RESERVED
        .split_ascii_whitespace()
        .any(|reserved| reserved == word)
}

/// Parses a whole number from 0 to `most` without leading zeros.
pub(crate) fn whole_number(text: &str, most: u64) -> Option<u64> {
    static DIGITS: LazyLock<Regex> = LazyLock::new(|| regex("^(0|[1-9][0-9]{0,19})$"));
    DIGITS
        .is_match(text)
        .then(|| text.parse().ok())
        .flatten()
        .filter(|number| *number <= most)
}

/// Parses a time to live in seconds.
pub(crate) fn ttl(text: &str) -> Option<u64> {
    static DIGITS: LazyLock<Regex> = LazyLock::new(|| regex("^0*([1-9][0-9]{0,5})$"));
    let digits = DIGITS.captures(text)?.get(1)?.as_str();
    digits.parse().ok().filter(|seconds| *seconds <= 604_800)
}

/// Parses a number of seconds, and returns milliseconds.
pub(crate) fn wait_ms(text: &str) -> Option<u64> {
    static DIGITS: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9]{1,6}(\.[0-9]{1,3})?$"));
    // The result is exact, because these are far fewer digits than a double has.
    DIGITS
        .is_match(text)
        .then(|| (text.parse::<f64>().expect("digits") * 1000.0).round() as u64)
}

/// Returns whether the text of a mistake is short, repeats nothing of its input but a name, and
/// has nothing that could be markup.
pub(crate) fn is_dull(message: &str) -> bool {
    static DULL: LazyLock<Regex> = LazyLock::new(|| {
        regex(r"^([a-z_.]{0,16}\[[0-9]+\] )?[A-Za-z0-9_]{1,32}: [A-Za-z0-9 ,()_.!~=-]{1,80}$")
    });
    DULL.is_match(message)
}

/// Returns whether a text is the name of a node.
pub(crate) fn is_node(text: &str) -> bool {
    static NODE: LazyLock<Regex> =
        LazyLock::new(|| regex(r#"^[A-Za-z0-9]+@http://[!"$-.0->A-\[\]-~]+$"#));
    text.len() <= 512 && NODE.is_match(text)
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a good pattern")
}

/// Returns whether a key has the form of a signed one. The last character of a signature has
/// two bits that are always 0.
pub(crate) fn is_signed(text: &str) -> bool {
    static SIGNED: LazyLock<Regex> = LazyLock::new(|| {
        regex("^[A-Za-z0-9_-]{1,64}[.]([0-9]+)[.][A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")
    });
    SIGNED
        .captures(text)
        .is_some_and(|parts| parts[1].parse::<u64>().is_ok())
}
