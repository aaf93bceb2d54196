//! A directory for one test, gone when the test is over. Tests of the library and of the binary use
//! the same one.

use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use std::{env, fs, process};

/// Any user may read it, and what is made through it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // Free of links, so that tests may compare paths.
        let base = env::temp_dir().canonicalize();
        let base = base.expect("a temporary directory");
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("tftpool-test-{}-{number}", process::id()));
            match fs::create_dir(&path) {
                // A test that was killed may have left it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.expect("a fresh directory");
                    mode(&path, 0o755);
                    return Self(path);
                }
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of what has this name in it.
    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a directory and those above it.
    pub(crate) fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).expect("a directory");
        for directory in path.ancestors().take_while(|above| *above != self.0) {
            mode(directory, 0o755);
        }
        path
    }

    /// Writes a file, with the directories above it, as if long ago: every later change shows in
    /// its time stamp.
    pub(crate) fn file(
        &self,
        name: impl AsRef<Path>,
        content: &(impl AsRef<[u8]> + ?Sized),
    ) -> PathBuf {
        let path = self.at(name);
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        fs::write(&path, content).expect("a file");
        mode(&path, 0o644);
        let file = fs::File::options().write(true).open(&path);
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        file.and_then(|file| file.set_modified(long_ago))
            .expect("a time stamp");
        path
    }

    /// Makes a link with this very text.
    pub(crate) fn link(&self, name: impl AsRef<Path>, target: impl AsRef<Path>) {
        symlink(target, self.at(name)).expect("a link");
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.path())
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
}
