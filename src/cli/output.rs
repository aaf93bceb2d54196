//! What a download is written to: a new file, stdout, a device or FIFO, or an existing file in
//! place.
//!
//! All of it is found out and opened before the transfer. A new file is written without a name, or
//! under a hidden one, beside its target and takes the name when it is whole. Where no other file
//! can take the name, the existing file is opened and written in place; it is truncated when the
//! first bytes arrive. The kernel alone follows links.

use crate::client::{Writer, unwritten};
use crate::error::{Refusal, plain};
use crate::store::landing::{Landing, Rules};
use crate::store::{Sink, WriteMode};
use crate::sys::{by_path, fs};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// An open output.
pub(super) enum Output {
    Stdout,
    /// A file that takes its name when it is whole, in the place of this path.
    Fresh(Landing, PathBuf),
    /// An existing file, a device or a FIFO.
    InPlace(InPlace),
}

/// How the writing went, for the report.
#[derive(Default)]
pub(super) struct Written {
    /// The first failed write on this machine.
    pub(super) error: OnceLock<io::Error>,
    /// The name that a new file got.
    name: OnceLock<PathBuf>,
    /// Set when an existing regular file has lost its content.
    pub(super) truncated: OnceLock<()>,
}

impl Output {
    /// Opens what `path` leads to. With `keeps`, an existing file stays, and the new one gets a
    /// number behind its name.
    ///
    /// # Errors
    /// What the system says. Nothing has been written and nothing is left behind then.
    pub(super) fn open(path: &Path, keeps: bool) -> io::Result<Self> {
        let status = match std::fs::metadata(path) {
            Ok(status) => status,
            Err(cause) => {
                let is_link = std::fs::symlink_metadata(path).is_ok();
                return match is_link && !keeps {
                    true => Err(cause),
                    false => Self::beside(path, keeps, None),
                };
            }
        };
        if status.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if is_stdout(&status) {
            return Ok(Self::Stdout);
        }
        match status.is_file() {
            false => in_place(path, "it is not a regular file"),
            true if keeps => Self::beside(path, keeps, None),
            true => Self::replacing(path, &status),
        }
    }

    /// A new file in the directory of `path`.
    fn beside(path: &Path, keeps: bool, permissions: Option<u32>) -> io::Result<Self> {
        let rules = Rules {
            mode: match keeps {
                true => WriteMode::Unique,
                false => WriteMode::Overwrite,
            },
            permissions,
            durable: false,
        };
        let name = path.file_name().unwrap_or(path.as_os_str());
        let landing = Landing::begin(directory(path)?, name.into(), rules)?;
        Ok(Self::Fresh(landing, path.into()))
    }

    /// A new file in the place of an existing one, or that one in place.
    fn replacing(path: &Path, status: &Metadata) -> io::Result<Self> {
        // Permissions that protect a file protect the next one too.
        let permissions = Some(status.mode() & 0o777);
        let real = match std::fs::symlink_metadata(path)?.is_symlink() {
            true => std::fs::canonicalize(path)?,
            false => path.into(),
        };
        match obstacle(path, &real, status) {
            Some(reason) => in_place(path, reason),
            None => Self::beside(&real, false, permissions),
        }
    }

    /// The sink for the bytes of the file, which reports to `written`.
    pub(super) fn sink<'a>(self, written: &'a Written) -> Box<dyn Sink + 'a> {
        match self {
            Self::Stdout => Box::new(Writer::new(Reporting {
                writer: io::stdout(),
                written,
            })),
            Self::InPlace(file) => {
                let file = Truncating { file, written };
                Box::new(Writer::new(Reporting {
                    writer: file,
                    written,
                }))
            }
            Self::Fresh(landing, path) => Box::new(Fresh {
                file: Writer::new(Reporting {
                    writer: Tracked { landing, written },
                    written,
                }),
                path,
                written,
            }),
        }
    }
}

impl Written {
    /// The name of the file here, where it has another one than was asked for.
    pub(super) fn name(&self) -> Option<&Path> {
        self.name.get().map(PathBuf::as_path)
    }
}

/// The directory of a path, held open.
fn directory(path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    fs::open_root(parent.unwrap_or(Path::new(".")))
}

/// Why the regular file that the kernel found at `path` cannot be written by its name in a
/// directory.
fn obstacle(path: &Path, real: &Path, found: &Metadata) -> Option<&'static str> {
    if real != path && by_path::leads_through_descriptor(path) {
        return Some("the path names an open file");
    }
    let name = real.file_name().unwrap_or(OsStr::new(""));
    let named = directory(real).and_then(|directory| fs::look(&directory, name));
    match named.map(|named| (named.identity.device, named.identity.inode)) {
        Err(_) => Some("its directory cannot be searched"),
        Ok(named) if named == (found.dev(), found.ino()) => None,
        // A link that was read by hand must lead where the kernel went.
        Ok(_) => Some("its path leads to more than one file"),
    }
}

/// An existing file that is open for writing.
pub(super) struct InPlace {
    file: File,
    /// A regular file, which has not been truncated yet.
    is_full: bool,
}

fn in_place(path: &Path, reason: &str) -> io::Result<Output> {
    // Said first: a FIFO without a reader is waited for.
    log::debug!("writing {} in place: {reason}", path.display());
    let file = by_path::open_existing(path)?;
    let is_full = file.metadata()?.is_file();
    Ok(Output::InPlace(InPlace { file, is_full }))
}

/// Whether this is the file, pipe or terminal that stdout is.
fn is_stdout(status: &Metadata) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let stdout = stdout.and_then(|file| file.metadata());
    stdout.is_ok_and(|stdout| (stdout.dev(), stdout.ino()) == (status.dev(), status.ino()))
}

/// A writer whose first failure is kept.
struct Reporting<'a, W> {
    writer: W,
    written: &'a Written,
}

impl<W> Reporting<'_, W> {
    fn report<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|cause| {
            let copy = copy_of(&cause);
            let _ = self.written.error.set(cause);
            copy
        })
    }
}

/// An error that says the same.
fn copy_of(cause: &io::Error) -> io::Error {
    let number = cause.raw_os_error().map(io::Error::from_raw_os_error);
    number.unwrap_or_else(|| cause.kind().into())
}

impl<W: Write> Write for Reporting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.writer.write(bytes) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => Err(cause),
            result => self.report(result),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.writer.flush();
        self.report(result)
    }
}

/// A file in place, which loses its old content when the first bytes or the end of the new one
/// arrive.
struct Truncating<'a> {
    file: InPlace,
    written: &'a Written,
}

impl Truncating<'_> {
    fn truncate(&mut self) -> io::Result<()> {
        if self.file.is_full {
            self.file.file.set_len(0)?;
            self.file.is_full = false;
            let _ = self.written.truncated.set(());
        }
        Ok(())
    }
}

impl Write for Truncating<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.truncate()?;
        self.file.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.truncate()
    }
}

/// A file in a directory, which may have to be written in place.
struct Tracked<'a> {
    landing: Landing,
    written: &'a Written,
}

impl Write for Tracked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.landing.write(bytes);
        if self.landing.has_truncated() {
            let _ = self.written.truncated.set(());
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.landing.flush()
    }
}

/// A file that is not whole yet.
struct Fresh<'a> {
    file: Writer<Reporting<'a, Tracked<'a>>>,
    path: PathBuf,
    written: &'a Written,
}

impl Sink for Fresh<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.file.append(bytes)
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        let landing = self.file.finish()?.writer.landing;
        match landing.commit() {
            Ok(name) => {
                if self.path.file_name() != Some(&name) {
                    let _ = self.written.name.set(self.path.with_file_name(name));
                }
                Ok(())
            }
            Err(cause) => {
                let refusal = unwritten(io::Error::new(cause.kind(), plain(&cause)));
                let _ = self.written.error.set(cause);
                Err(refusal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::Scratch;

    /// Between the two looks another user may have changed the link.
    #[test]
    fn a_link_that_led_elsewhere_for_the_kernel_is_not_replaced_by_its_text() {
        let scratch = Scratch::new();
        let (file, other) = (scratch.file("file", "a"), scratch.file("other", "b"));
        scratch.link("link", "file");
        let link = scratch.at("link");
        let found = std::fs::metadata(&link).expect("a file");
        assert_eq!(obstacle(&link, &file, &found), None);
        let reason = "its path leads to more than one file";
        assert_eq!(obstacle(&link, &other, &found), Some(reason));
    }
}
