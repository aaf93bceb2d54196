//! What the name of a request means beneath a root, and how a name that leads to no file is
//! refused.

use crate::error::Refusal;
use crate::limits::MAX_NAME;
use crate::sys::fs::{self, Trouble};
use crate::wire::{ErrorCode, Malformed};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The name beneath the root that a peer's name means: not empty, no leading slash, no `.`, no
/// `..`.
pub(super) fn clean(name: &[u8]) -> Result<OsString, Refusal> {
    if name.len() > MAX_NAME {
        return Err(too_long());
    }
    let kept = components(name).map_err(|rule| Refusal::access_violation().because(rule))?;
    if kept.is_empty() {
        return Err(Refusal::access_violation().because("the name is the root itself"));
    }
    if names_directory(name) {
        return Err(Refusal::access_violation().because("the name is a directory's"));
    }
    Ok(OsString::from_vec(kept.join(&b'/')))
}

/// Whether the last component of a name can only be a directory's, whatever it leads to.
pub(super) fn names_directory(name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b'/').next();
    matches!(last, Some(b"" | b"." | b".."))
}

/// The components beneath the root that a name means; none for the root itself. An error is the
/// rule that it breaks.
pub(super) fn components(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.iter().any(u8::is_ascii_control) {
        return Err("control octet in the name");
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in name.split(|&octet| octet == b'/') {
        match component {
            b"" | b"." => {}
            b".." if kept.pop().is_some() => {}
            b".." => return Err("the name climbs above the root"),
            _ => kept.push(component),
        }
    }
    Ok(kept)
}

/// The name with slashes for backslashes.
pub(super) fn with_slashes(name: &[u8]) -> Vec<u8> {
    let slash = |&octet| if octet == b'\\' { b'/' } else { octet };
    name.iter().map(slash).collect()
}

pub(super) fn refuse(error: io::Error) -> Refusal {
    let refusal = match fs::trouble(&error) {
        // Nothing to explain, and boot loaders ask for ten names before one that exists.
        Trouble::Missing => return Refusal::not_found(),
        Trouble::TooLong => return too_long(),
        Trouble::Busy => Refusal::new(ErrorCode::NOT_DEFINED, "server out of resources"),
        Trouble::Exhausted => {
            Refusal::new(ErrorCode::NOT_DEFINED, "server out of resources").for_want()
        }
        Trouble::Broken => Refusal::new(ErrorCode::NOT_DEFINED, "read error"),
        Trouble::Leaves | Trouble::Link | Trouble::NotOffered | Trouble::Denied => {
            Refusal::access_violation()
        }
    };
    refusal.caused_by(error)
}

/// The same answer as to a name that no request may have.
fn too_long() -> Refusal {
    Refusal::new(
        ErrorCode::ILLEGAL_OPERATION,
        Malformed::LongName.to_string(),
    )
}

/// The refusal of a link that leads to this path of the host.
pub(super) fn leaves(host: &Path) -> Refusal {
    let host = host.as_os_str().as_bytes().escape_ascii();
    Refusal::access_violation().because(format!("a link leaves towards {host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_clean_name_stays_below(name in "[a./\\\\]{0,12}|\\PC*") {
            if let Ok(name) = clean(name.as_bytes()) {
                prop_assert!(!name.is_empty());
                for component in name.as_bytes().split(|&octet| octet == b'/') {
                    prop_assert!(!matches!(component, b"" | b"." | b".."));
                }
            }
        }
    }
}
