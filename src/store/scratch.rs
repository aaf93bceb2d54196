//! A directory for one test, gone when the test is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tftpool-{}-{number}", std::process::id());
        // Free of links, so that tests may compare paths.
        let base = std::env::temp_dir().canonicalize();
        let path = base.expect("a temporary directory").join(name);
        fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a directory and those above it.
    pub(super) fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// Writes a file that everybody may read.
    pub(super) fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        fs::write(&path, content).expect("a file");
        self.mode(&path, 0o644);
        path
    }

    pub(super) fn mode(&self, name: impl AsRef<Path>, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path(name), permissions).expect("permissions");
    }

    /// Makes a link with this very text.
    pub(super) fn link(&self, name: impl AsRef<Path>, target: impl AsRef<Path>) {
        std::os::unix::fs::symlink(target, self.path(name)).expect("a link");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}
