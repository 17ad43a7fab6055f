//! Files that can be read again while the node runs.

use std::path::Path;

/// The mistake of a file that is not read again.
pub(crate) const NOT_REGULAR: &str = "no regular file, so it is not read again";

/// Returns whether reading the file again might never end, as with a pipe. A missing file is none:
/// reading it fails.
pub(crate) fn may_wait(path: &Path) -> bool {
    path.exists() && !path.is_file()
}
