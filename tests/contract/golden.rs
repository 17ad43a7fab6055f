//! Whole answers compared with `fixtures/answers/*.http`, byte for byte.
//!
//! `HOLDFAST_BLESS=1` rewrites the files with the answers that came. Review the diff against
//! the contract before you keep it.

use std::path::PathBuf;

use holdfast_testkit::{Response, ahead, speaks_http2};

/// Compares `response` with `fixtures/answers/NAME.http`.
///
/// # Panics
/// If they differ, or if there is no such file.
pub(crate) fn assert_golden(name: &str, response: &Response) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/answers");
    let path = directory.join(format!("{name}.http"));
    let came = masked(response);
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(&path, &came).expect("a written file");
        return;
    }
    let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (came, kept) = if speaks_http2() {
        (without_connection(&came), without_connection(&kept))
    } else {
        (came, kept)
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        text(&came),
        text(&kept),
        "{name}: what came, and what is kept"
    );
    assert_eq!(came, kept, "{name}");
}

/// Returns the bytes of `response` with constants in place of all that cannot be predicted: the
/// value of `date`, versions made of [`ahead`], and the digits of a `retry_after_ms`. With a
/// `retry_after_ms`, the values of `retry-after` and `content-length` are replaced too: one is the
/// same time, and the other depends on the number of digits.
fn masked(response: &Response) -> Vec<u8> {
    let head = std::str::from_utf8(&response.head).expect("a head in UTF-8");
    let (body, random) = without_retry_after_ms(&response.body);
    let body = with_constant_versions(body);
    let mut out = String::new();
    for line in head.split_inclusive("\r\n") {
        match line.trim_end().split_once(": ") {
            Some(("date", value)) => {
                assert_eq!((value.len(), &value[26..]), (29, "GMT"), "an IMF-fixdate");
                out += "date: DATE\r\n";
            }
            Some(("retry-after", _)) if random => out += "retry-after: SECONDS\r\n",
            Some(("content-length", _)) if random => out += "content-length: LENGTH\r\n",
            _ => out += line,
        }
    }
    [out.as_bytes(), b"\r\n", &body].concat()
}

/// Returns an answer without `connection`, whose place among the fields HTTP/2 does not know: there
/// the end of a connection is no field.
fn without_connection(answer: &[u8]) -> Vec<u8> {
    let lines = answer.split_inclusive(|&byte| byte == b'\n');
    let others = lines.filter(|line| *line != b"connection: close\r\n");
    others.collect::<Vec<_>>().concat()
}

/// Replaces [`ahead`] and the version after it by constants of as many digits.
fn with_constant_versions(body: Vec<u8>) -> Vec<u8> {
    let Ok(text) = String::from_utf8(body.clone()) else {
        return body;
    };
    let text = text.replace(&ahead().to_string(), "1763812345678");
    text.replace(&(ahead() + 1).to_string(), "1763812345679")
        .into_bytes()
}

fn without_retry_after_ms(body: &[u8]) -> (Vec<u8>, bool) {
    const NAME: &[u8] = br#""retry_after_ms":"#;
    let Some(at) = body.windows(NAME.len()).position(|window| window == NAME) else {
        return (body.to_vec(), false);
    };
    let start = at + NAME.len();
    let digits = body[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let milliseconds: u32 = std::str::from_utf8(&body[start..start + digits])
        .unwrap()
        .parse()
        .expect("a number");
    assert!(
        (100..=10_000).contains(&milliseconds),
        "retry_after_ms {milliseconds}"
    );
    (
        [&body[..start], b"MS", &body[start + digits..]].concat(),
        true,
    )
}
