//! Becoming an ordinary user for good. After [`drop_to`] has returned `Ok`, no thread of this process can become root
//! again, or the target is root itself.

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, setgid, setgroups, setuid};
use std::io;

/// Whether there are privileges to drop.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Becomes `user`, a name or a numeric `uid` or `uid:gid`. Call it when the sockets are bound and before the first
/// packet is read.
///
/// The change holds for all threads; setuid from root also clears every capability. A process that already is that
/// user changes nothing.
///
/// # Errors
///
/// The text says which step failed; "cannot run as USER: " is the caller's to put before it. The process is then in an
/// undefined state between two users and must end.
pub(crate) fn drop_to(user: &str) -> io::Result<()> {
    let (uid, gid) = look_up(user)?;
    if uid.is_root() && is_root() {
        return Ok(());
    }
    if (geteuid(), getegid()) != (uid, gid) {
        // The order matters: once the user is changed, the groups can't be.
        step("clear the supplementary groups", setgroups(&[]))?;
        step("change the group", setgid(gid))?;
        step("change the user", setuid(uid))?;
    }
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("root's privileges would come back"));
    }
    Ok(())
}

fn look_up(user: &str) -> io::Result<(Uid, Gid)> {
    if let Some(entry) = step("read the user database", User::from_name(user))? {
        return Ok((entry.uid, entry.gid));
    }
    let (uid, gid) = match user.split_once(':') {
        Some((uid, gid)) => (uid.parse().ok(), gid.parse().ok()),
        None => (user.parse().ok(), None),
    };
    let unknown = |text| io::Error::new(io::ErrorKind::NotFound, text);
    let uid = Uid::from_raw(uid.ok_or_else(|| unknown("no such user"))?);
    if let Some(gid) = gid {
        return Ok((uid, Gid::from_raw(gid)));
    }
    match step("read the user database", User::from_uid(uid))? {
        Some(entry) if !user.contains(':') => Ok((uid, entry.gid)),
        _ => Err(unknown(
            "this user has no known group; give uid:gid in numbers",
        )),
    }
}

fn step<T>(doing: &str, result: Result<T, Errno>) -> io::Result<T> {
    result.map_err(|errno| {
        let cause = io::Error::from(errno);
        io::Error::new(cause.kind(), format!("cannot {doing}: {}", errno.desc()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_an_error_before_anything_changes() {
        for user in ["no-such-user-here", "", "0x0", "4294967295x", "nobody:1"] {
            let error = drop_to(user).expect_err("nobody has this name");
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{user}");
            assert_eq!(error.to_string(), "no such user");
        }
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
        assert_eq!(look_up("root").expect("root"), (root, wheel));
        assert_eq!(look_up("0").expect("root by number"), (root, wheel));
        let (uid, gid) = look_up("4242:4343").expect("numbers need no entry");
        assert_eq!((uid.as_raw(), gid.as_raw()), (4242, 4343));
        let error = look_up("4242:x").expect_err("no such group");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
