//! The reader of the files that settings name. Knows no setting.

use std::fs::File;
use std::io::Read;

/// The longest file that a setting may name. Without a limit, a path like `/dev/zero` would be
/// read for ever.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The range of a setting that names a file, in Markdown.
pub(super) const RANGE: &str = "a readable file of up to 64 KiB";

/// Reads a whole file as UTF-8 text. A pipe is read to its end.
///
/// # Errors
/// Returns the mistake, as a text for people. It does not repeat the path.
pub(super) fn read(path: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("longer than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}
