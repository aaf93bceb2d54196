//! What clients may put into a [`Dir`](super::Dir): where it lands, under which name, and how much
//! of it.
//!
//! Invariant: a file lands in a directory beneath the upload root, found by the rules for reading,
//! and appears there when it is whole. Nothing is set aside on a client's word, and a refusal names
//! nothing of this machine.

use super::landing::{Landing, Rules, WriteMode, is_hidden};
use super::names::{clean, leaves, refuse, with_slashes};
use super::tree::{Found, Trees};
use super::{Request, Sink};
use crate::error::{Refusal, plain};
use crate::sys::fs::{self, Want};
use crate::text::Name;
use crate::wire::{ErrorCode, OptionName};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;

/// How a directory takes files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) mode: WriteMode,
    /// Octets of one file.
    pub(super) most: u64,
    /// Permission bits that no file gets.
    pub(super) umask: u32,
    pub(super) durable: bool,
}

/// Begins the upload that a request asks for.
pub(super) fn begin(
    request: &Request<'_>,
    trees: &Trees,
    by_hand: &AtomicBool,
    terms: &Terms,
) -> Result<Box<dyn Sink>, Refusal> {
    let announced = request.options.get(OptionName::Tsize);
    if announced.is_some_and(|size| size > terms.most) {
        return Err(too_large(terms.most));
    }
    let (directory, component) = place(request.name, trees, by_hand)?;
    // A file that is replaced keeps its permissions, as it would if it were written to.
    let old = match terms.mode {
        WriteMode::Overwrite => fs::look(&directory, &component).ok(),
        WriteMode::Create | WriteMode::Unique => None,
    };
    let rules = Rules {
        mode: terms.mode,
        permissions: Some(old.map_or(0o666 & !terms.umask, |found| found.mode & 0o777)),
        durable: terms.durable,
    };
    let landing = Landing::begin(directory, component.clone(), rules).map_err(in_the_way)?;
    Ok(Box::new(Upload {
        landing,
        asked: Name::new(request.name),
        component,
        left: terms.most,
        most: terms.most,
    }))
}

/// Where a file lands, and under which name there. As for reading, backslashes are slashes where
/// the name is missing otherwise; unless the directory that they lead to is missing too.
fn place(name: &[u8], trees: &Trees, by_hand: &AtomicBool) -> Result<(File, OsString), Refusal> {
    let literal = place_at(name, trees, by_hand);
    let is_there = match &literal {
        Ok((directory, component)) => fs::look(directory, component).is_ok(),
        Err(refusal) => refusal.code() != ErrorCode::NOT_FOUND,
    };
    if is_there || !name.contains(&b'\\') {
        return literal;
    }
    match place_at(&with_slashes(name), trees, by_hand) {
        Err(refusal) if refusal.code() == ErrorCode::NOT_FOUND => literal,
        found => found,
    }
}

fn place_at(name: &[u8], trees: &Trees, by_hand: &AtomicBool) -> Result<(File, OsString), Refusal> {
    let name = clean(name)?;
    let (above, component) = split(&name);
    if is_hidden(component) {
        return Err(Refusal::access_violation().because("the name is kept for files on their way"));
    }
    Ok((find(trees, above, by_hand)?, component.to_owned()))
}

/// The directory part of a cleaned name, and the rest.
fn split(name: &OsStr) -> (&OsStr, &OsStr) {
    let octets = name.as_bytes();
    match octets.iter().rposition(|&octet| octet == b'/') {
        Some(at) => (
            OsStr::from_bytes(&octets[..at]),
            OsStr::from_bytes(&octets[at + 1..]),
        ),
        None => (OsStr::new("."), name),
    }
}

fn find(trees: &Trees, name: &OsStr, by_hand: &AtomicBool) -> Result<File, Refusal> {
    match trees.find(name, Want::Directory, by_hand).map_err(refuse)? {
        Found::File(directory, _) => Ok(directory),
        Found::Seen(_) => Err(Refusal::not_found()),
        Found::Outside(host) => Err(leaves(&host)),
    }
}

/// One file on its way.
struct Upload {
    landing: Landing,
    asked: Name,
    component: OsString,
    left: u64,
    most: u64,
}

impl Sink for Upload {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        let Some(left) = self.left.checked_sub(octets.len() as u64) else {
            return Err(too_large(self.most));
        };
        self.left = left;
        self.landing.write_all(octets).map_err(in_the_way)
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        let name = self.landing.commit().map_err(in_the_way)?;
        if name != self.component {
            let stored = Name::new(name.as_bytes());
            log::info!("stored file={} as={stored}", self.asked);
        }
        Ok(())
    }
}

fn too_large(most: u64) -> Refusal {
    Refusal::new(ErrorCode::DISK_FULL, "file is too large")
        .because(format!("more than {most} octets"))
}

/// What the peer is told of a file that cannot be made, written or named.
fn in_the_way(error: io::Error) -> Refusal {
    use io::ErrorKind::{
        AlreadyExists, FileTooLarge, IsADirectory, QuotaExceeded, ReadOnlyFilesystem, ResourceBusy,
        StorageFull,
    };
    match error.kind() {
        AlreadyExists => Refusal::new(ErrorCode::FILE_EXISTS, "file exists"),
        IsADirectory => Refusal::access_violation().because("the name is no regular file's"),
        StorageFull | QuotaExceeded | FileTooLarge => {
            Refusal::new(ErrorCode::DISK_FULL, "disk full").because(plain(&error))
        }
        ResourceBusy => Refusal::new(ErrorCode::NOT_DEFINED, "file is busy").because(plain(&error)),
        ReadOnlyFilesystem => Refusal::access_violation().because(plain(&error)),
        _ => refuse(error),
    }
}
