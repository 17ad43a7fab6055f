//! A test's own directory, for unix sockets and secret files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new empty directory in the system's temporary directory. When dropped, it is removed with
/// all its content.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new directory.
    #[expect(
        clippy::new_without_default,
        reason = "a default would make a directory"
    )]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "holdfast-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    /// Returns the path of `name` in it. The file need not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes the file `name`, and returns its path as a flag takes it.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a written file");
        path.display().to_string()
    }

    /// Returns a socket's address as `--public` and `--internal` take it: `unix:/...`.
    pub fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.path(name).display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(AsRef::<Path>::as_ref(&self.0));
    }
}
