//! Names in another case than they have on disk.
//!
//! Each component of a name is the one with exactly this spelling, if there is one. Otherwise it is
//! the only one that differs in the case of its ASCII letters. Two of them are an error: which one
//! was meant is not for the server to guess. Directories are read anew for each name that is
//! missing in its own spelling, so nothing here can be out of date.

use super::names::refuse;
use super::tree::{Found, Trees};
use crate::error::Refusal;
use crate::limits::MAX_LISTED;
use crate::sys::edit;
use crate::sys::fs::{self, Trouble, Want};
use crate::text::Name;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::AtomicBool;

/// How a name that was cleaned is spelled on disk; `None` where a component of it is missing in
/// every case.
pub(super) fn spelled(
    name: &OsStr,
    trees: &Trees,
    by_hand: &AtomicBool,
) -> Result<Option<OsString>, Refusal> {
    let mut reached: Vec<u8> = Vec::new();
    for component in name.as_bytes().split(|byte| *byte == b'/') {
        let above = match reached.is_empty() {
            true => OsStr::new("."),
            false => OsStr::from_bytes(&reached),
        };
        let directory = match trees.find(above, Want::Directory, by_hand) {
            Ok(Found::File(directory, _)) => directory,
            Ok(Found::Seen(_) | Found::Outside(_)) => return Ok(None),
            Err(error) => return unlisted(error),
        };
        let Some(component) = in_directory(&directory, OsStr::from_bytes(component))? else {
            return Ok(None);
        };
        if !reached.is_empty() {
            reached.push(b'/');
        }
        reached.extend_from_slice(component.as_bytes());
    }
    Ok(Some(OsString::from_vec(reached)))
}

/// How a component is spelled in this directory.
pub(super) fn in_directory(
    directory: &File,
    component: &OsStr,
) -> Result<Option<OsString>, Refusal> {
    if fs::look(directory, component).is_ok() {
        return Ok(Some(component.to_owned()));
    }
    let fits = |name: &[u8]| name.eq_ignore_ascii_case(component.as_bytes());
    let mut others = match edit::names_that(directory, fits, 2, MAX_LISTED) {
        Ok(Some(names)) => names.into_iter(),
        Ok(None) => {
            let why = format!("more than {MAX_LISTED} names in a directory, so their case counts");
            return Err(Refusal::not_found().because(why));
        }
        Err(error) => return unlisted(error),
    };
    match (others.next(), others.next()) {
        (Some(first), Some(second)) => {
            let (first, second) = (Name::new(first.as_bytes()), Name::new(second.as_bytes()));
            let why = format!("{first} and {second} differ in case only");
            Err(Refusal::access_violation().because(why))
        }
        (first, _) => Ok(first),
    }
}

/// A directory that this process may search but not read has no other spellings.
fn unlisted<T>(error: std::io::Error) -> Result<Option<T>, Refusal> {
    match fs::trouble(&error) {
        Trouble::Missing | Trouble::Denied | Trouble::Leaves | Trouble::Link => Ok(None),
        _ => Err(refuse(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::super::{Dir, Kind, Request, Store, WriteMode};
    use crate::wire::Direction;
    use std::io::Read;

    /// The content, or the code and reason of the refusal.
    fn got(dir: &Dir, name: &str) -> String {
        match dir.read(&Request::new(Direction::Read, name)) {
            Ok(source) => {
                let Kind::File(mut file, _) = source.0 else {
                    panic!("a directory serves files");
                };
                let mut content = String::new();
                file.read_to_string(&mut content).expect("text");
                content
            }
            Err(refusal) => {
                let detail = refusal.detail().unwrap_or_default().to_owned();
                format!("{} {detail}", refusal.code().0)
                    .trim_end()
                    .to_owned()
            }
        }
    }

    fn tree() -> Scratch {
        let scratch = Scratch::new();
        for name in [
            "Boot/BCD",
            "Boot/x64/Loader.EFI",
            "both/file",
            "BOTH/File",
            "one/Twice",
            "one/tWice",
            "one/tw\u{c4}",
            "plain",
            r"odd\Name",
        ] {
            scratch.file(name, name);
        }
        scratch.link("Link", "Boot");
        scratch.link("Out", "/usr");
        scratch
    }

    #[test]
    fn the_exact_name_comes_first_and_two_others_are_refused() {
        let scratch = tree();
        let dir = Dir::builder(scratch.path()).ignore_case(true);
        let dir = dir.open().expect("a directory");
        let ambiguous = "differ in case only";
        for (name, wanted) in [
            ("plain", "plain"),
            ("PLAIN", "plain"),
            ("boot/bcd", "Boot/BCD"),
            ("Boot/bcd", "Boot/BCD"),
            ("/BOOT/X64/LOADER.efi", "Boot/x64/Loader.EFI"),
            (r"\boot\bcd", "Boot/BCD"),
            (r"ODD\name", r"odd\Name"),
            ("plain\u{ff}", "1"),
            ("boot/missing", "1"),
            ("missing/bcd", "1"),
            ("plain/x", "1"),
            // Each spelling that is there is served, and no other one.
            ("both/file", "both/file"),
            ("BOTH/File", "BOTH/File"),
            ("both/FILE", "both/file"),
            ("BOTH/file", "BOTH/File"),
            ("Both/file", ambiguous),
            ("one/Twice", "one/Twice"),
            ("one/tWice", "one/tWice"),
            ("one/twice", ambiguous),
            ("ONE/TWICE", ambiguous),
            // The letters of ASCII only.
            ("one/TW\u{c4}", "one/tw\u{c4}"),
            ("one/tw\u{e4}", "1"),
            // Links lead where they lead in their own spelling.
            ("link/bcd", "Boot/BCD"),
            ("out/bin/env", "1"),
            ("../PLAIN", "2 the name climbs above the root"),
        ] {
            let got = got(&dir, name);
            match wanted {
                wanted if wanted == ambiguous => {
                    assert!(
                        got.starts_with("2 ") && got.ends_with(wanted),
                        "{name}: {got}"
                    );
                }
                wanted => assert_eq!(got, wanted, "{name}"),
            }
        }
        let dir = Dir::read_only(scratch.path()).expect("a directory");
        assert_eq!(got(&dir, "PLAIN"), "1", "only where it was asked for");
    }

    /// Nothing is remembered: the next request sees what is there.
    #[test]
    fn a_change_on_disk_is_seen_by_the_next_request() {
        let scratch = tree();
        let dir = Dir::builder(scratch.path()).ignore_case(true);
        let dir = dir.open().expect("a directory");
        for _ in 0..100 {
            assert_eq!(got(&dir, "NEW"), "1");
            let path = scratch.file("new", "new");
            assert_eq!(got(&dir, "NEW"), "new");
            std::fs::rename(path, scratch.at("nEw")).expect("renamed");
            assert_eq!(got(&dir, "NEW"), "new");
            scratch.file("neW", "other");
            assert!(got(&dir, "NEW").ends_with("differ in case only"));
            for name in ["nEw", "neW"] {
                std::fs::remove_file(scratch.at(name)).expect("removed");
            }
        }
    }

    #[test]
    fn an_upload_goes_to_the_file_that_has_its_name_in_another_case() {
        for (mode, name, wanted) in [
            (WriteMode::Overwrite, "PLAIN", Ok("plain")),
            (WriteMode::Overwrite, "BOOT/bcd", Ok("Boot/BCD")),
            (WriteMode::Overwrite, "BOOT/new", Ok("Boot/new")),
            (WriteMode::Create, "boot/NEW", Ok("Boot/NEW")),
            (WriteMode::Create, r"BOOT\new", Ok("Boot/new")),
            (WriteMode::Create, "PLAIN", Err(6)),
            (WriteMode::Overwrite, "ONE/twice", Err(2)),
            (WriteMode::Overwrite, "Both/new", Err(2)),
            (WriteMode::Overwrite, "one/Twice", Ok("one/Twice")),
            (WriteMode::Create, "missing/new", Err(1)),
        ] {
            let scratch = tree();
            let dir = Dir::builder(scratch.path()).ignore_case(true).uploads(mode);
            let dir = dir.open().expect("a directory");
            let sink = dir.write(&Request::new(Direction::Write, name));
            let stored = sink.and_then(|mut sink| {
                sink.append(b"sent")?;
                sink.commit()
            });
            let stored = stored.map_err(|refusal| refusal.code().0);
            assert_eq!(stored, wanted.map(drop), "{name}");
            if let Ok(wanted) = wanted {
                let content = std::fs::read(scratch.at(wanted)).expect("the file");
                assert_eq!(content, b"sent", "{name}");
            }
        }
    }
}
