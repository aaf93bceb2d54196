//! A map file over a store: names are rewritten, or refused, before the store is asked for them.

mod ere;
mod pattern;
mod rules;
mod template;

pub use rules::{MapOutcome, MapRequest, MapRules, MapStep, MapSyntaxError};

use super::{Request, Sink, Source, Store};
use crate::error::{Refusal, plain};
use crate::limits::MAP_FILE_BYTES;
use crate::text::Name;
use crate::wire::ErrorCode;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A map file: its path, and the rules that were last read from it. Clones share them.
#[derive(Clone, Debug)]
pub struct MapFile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Locked only to copy or replace the `Arc`.
    rules: RwLock<Arc<MapRules>>,
}

/// Why a map file is of no use.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapError {
    /// It cannot be read.
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Its text is wrong.
    Syntax {
        /// Its path.
        path: PathBuf,
        /// What is wrong, and where.
        error: MapSyntaxError,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, cause } => {
                write!(f, "cannot read {}: {}", path.display(), plain(cause))
            }
            Self::Syntax { path, error } => write!(f, "{}:{error}", path.display()),
        }
    }
}

impl std::error::Error for MapError {}

impl MapFile {
    /// Reads a map file.
    ///
    /// # Errors
    /// [`MapError`] names the file, and the line and column of what is wrong in it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MapError> {
        // A daemon may change its working directory before it reads the file again.
        let path = path.as_ref();
        let path = std::path::absolute(path).map_err(|cause| MapError::Read {
            path: path.to_owned(),
            cause,
        })?;
        let rules = RwLock::new(Arc::new(read(&path)?));
        Ok(Self(Arc::new(Shared { path, rules })))
    }

    /// Reads the file again; the new rules are for all clones.
    ///
    /// # Errors
    /// As for [`open`](Self::open); the old rules stay.
    pub fn reopen(&self) -> Result<(), MapError> {
        let rules = Arc::new(read(&self.0.path)?);
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    /// The rules as they are now.
    pub fn rules(&self) -> Arc<MapRules> {
        Arc::clone(&self.0.rules.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(path: &Path) -> Result<MapRules, MapError> {
    let failed = |cause| MapError::Read {
        path: path.to_owned(),
        cause,
    };
    // Opening a FIFO would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mut text = Vec::new();
    let most = MAP_FILE_BYTES as u64 + 1;
    let file = File::open(path).map_err(failed)?;
    file.take(most).read_to_end(&mut text).map_err(failed)?;
    MapRules::parse(&text).map_err(|error| MapError::Syntax {
        path: path.to_owned(),
        error,
    })
}

/// A layer that rewrites names by the rules of a [`MapFile`] before the store below is asked.
///
/// It is also how rules find out whether a file exists: by asking the store below for it.
#[derive(Clone, Debug)]
pub struct Mapped<S> {
    map: MapFile,
    below: S,
}

impl<S: Store> Mapped<S> {
    /// Puts the rules of a map file over a store.
    pub fn new(map: MapFile, below: S) -> Self {
        Self { map, below }
    }

    /// Asks the store below for what the name of a request means.
    fn ask<T>(
        &self,
        request: &Request<'_>,
        ask: impl Fn(&Request<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let rules = self.map.rules();
        let asked = MapRequest {
            name: request.name,
            client: request.peer.ip(),
            direction: request.direction,
        };
        // What a rule with `E` has found is what is transferred: it is not opened twice.
        let mut found = None;
        let exists = |name: &[u8]| {
            found = ask(&request.with_name(name)).ok();
            found.is_some()
        };
        let trace = |step: MapStep<'_>| {
            log::debug!(
                "map line={} name={} to={}",
                step.line,
                Name::new(step.before),
                Name::new(step.after)
            );
        };
        match rules.apply(&asked, exists, trace) {
            MapOutcome::Name(name) => match found {
                Some(found) => Ok(found),
                None => ask(&request.with_name(&name)),
            },
            MapOutcome::Refused { line, text } => Err(match text {
                Some(text) => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    Refusal::new(ErrorCode::ACCESS_VIOLATION, text)
                }
                None => Refusal::access_violation(),
            }
            .because(format!("map file, line {line}"))),
            MapOutcome::Failed { line, why } => {
                Err(Refusal::access_violation().because(format!("map file, line {line}: {why}")))
            }
        }
    }
}

impl<S: Store> Store for Mapped<S> {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        self.ask(request, |request| self.below.read(request))
    }

    fn takes_uploads(&self) -> bool {
        self.below.takes_uploads()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.ask(request, |request| self.below.write(request))
    }

    fn reload(&self) {
        match self.map.reopen() {
            Ok(()) => log::info!("map file read rules={}", self.map.rules().len()),
            Err(error) => log::warn!("{error}; the old rules stay in force"),
        }
        self.below.reload();
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::super::store_fn;
    use super::*;
    use crate::wire::Direction;
    use std::sync::Mutex;

    /// Serves `file` and `/a/file`, and notes what it was asked for.
    fn shelf(asked: &Mutex<Vec<String>>) -> impl Store + '_ {
        store_fn(move |request| {
            let name = String::from_utf8_lossy(request.name).into_owned();
            let is_there = ["file", "/a/file"].contains(&&*name);
            asked.lock().expect("no panic").push(name);
            match is_there {
                true => Ok(Source::bytes(*b"content")),
                false => Err(Refusal::not_found()),
            }
        })
    }

    #[test]
    fn the_store_below_is_asked_for_what_the_name_means_and_once() {
        let scratch = Scratch::new();
        let path = scratch.file(
            "map",
            "rE ^ /a/\nrE ^ /b/\na \\.pvt$ Not\\ for\\ you\na ^secret\nr ^x file\nrg z zz\n",
        );
        let map = MapFile::open(path).expect("rules");
        for (name, wanted, answer) in [
            // The first rule finds it, and it is not asked for again.
            ("file", "/a/file", Ok(())),
            ("x", "/a/x /b/x file", Ok(())),
            ("y", "/a/y /b/y y", Err((1, "file not found"))),
            ("a.pvt", "/a/a.pvt /b/a.pvt", Err((2, "Not for you"))),
            (
                "secret",
                "/a/secret /b/secret",
                Err((2, "access violation")),
            ),
            ("z", "/a/z /b/z", Err((2, "access violation"))),
        ] {
            let asked = Mutex::new(Vec::new());
            let store = Mapped::new(map.clone(), shelf(&asked));
            let got = store.read(&Request::new(Direction::Read, name));
            let got = got.map(drop);
            let told = got.as_ref().map_err(|it| (it.code().0, it.text())).copied();
            assert_eq!(told, answer, "{name}");
            drop(store);
            let asked = asked.into_inner().expect("no panic");
            assert_eq!(asked.join(" "), wanted, "{name}");
        }
    }

    #[test]
    fn a_broken_file_keeps_the_old_rules_and_is_an_error_at_the_start() {
        let scratch = Scratch::new();
        let path = scratch.file("map", "r ^x file\n");
        let asked = Mutex::new(Vec::new());
        let store = Mapped::new(MapFile::open(&path).expect("rules"), shelf(&asked));
        let serves = |name| store.read(&Request::new(Direction::Read, name)).is_ok();
        assert!(serves("x") && !serves("y"));
        scratch.file("map", "r ^y file\n\nr (x file\n");
        store.reload();
        assert!(serves("x") && !serves("y"), "the old rules");
        let error = MapFile::open(&path).expect_err("broken").to_string();
        let wanted = format!("{}:3:3: this group is not closed", path.display());
        assert_eq!(error, wanted);
        scratch.file("map", "r ^y file\n");
        store.reload();
        assert!(!serves("x") && serves("y"), "the new rules");
        for wrong in [scratch.at("none"), scratch.path().to_owned()] {
            let error = MapFile::open(&wrong).expect_err("no file").to_string();
            let start = format!("cannot read {}: ", wrong.display());
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
