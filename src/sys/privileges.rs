//! Changing to an ordinary user for good. After [`drop_to`] has returned `Ok`, no thread of this
//! process can become root again, unless the target user is root.

use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups, setgid, setgroups, setuid,
};
use std::ffi::CString;
use std::{fmt, io};

/// The ids of `nobody` where the user database has no such user, as in a container made from
/// scratch: the kernel's overflow ids.
const NOBODY: u32 = 65534;

/// Whether there are privileges to drop.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A user to become: its ids, and the supplementary groups that the group database gives it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: Uid,
    gid: Gid,
    /// Sorted, without `gid`. Empty where the ids were given as numbers `UID:GID`.
    groups: Vec<Gid>,
}

impl Account {
    /// Looks up a user by name, by `UID`, or by `UID:GID`. `UID:GID`, `0` and `root` need no user
    /// database.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such user. The text does not name the user.
    pub(crate) fn find(user: &str) -> io::Result<Account> {
        let ids = match user.split_once(':') {
            Some((uid, gid)) => (number(uid), Some(gid)),
            None => (number(user), None),
        };
        let entry = match ids {
            (Some(uid), Some(gid)) => return Account::with_group(uid, gid),
            (Some(uid), None) => entry(User::from_uid(uid.into()))?,
            (None, _) => entry(User::from_name(user))?,
        };
        match (entry, ids.0) {
            (Some(entry), _) => Ok(Account::of(&entry)),
            (None, Some(0)) => Ok(Account::numeric(0, 0)),
            (None, None) if user == "root" => Ok(Account::numeric(0, 0)),
            (None, Some(_)) => Err(not_found(
                "the user database has no group for this id; give UID:GID",
            )),
            (None, None) => Err(not_found("no such user")),
        }
    }

    /// The user that serves when root has named none: `nobody`, or its usual ids where no database
    /// names it.
    pub(crate) fn nobody() -> io::Result<Account> {
        match Account::find("nobody") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Account::numeric(NOBODY, NOBODY))
            }
            found => found,
        }
    }

    fn with_group(uid: u32, gid: &str) -> io::Result<Account> {
        let gid = number(gid).ok_or_else(|| not_found("no such group; give UID:GID in numbers"))?;
        Ok(Account::numeric(uid, gid))
    }

    fn numeric(uid: u32, gid: u32) -> Account {
        Account {
            uid: uid.into(),
            gid: gid.into(),
            groups: Vec::new(),
        }
    }

    fn of(entry: &User) -> Account {
        // The lookup itself cannot fail. A name with a NUL came from no database.
        let name = CString::new(entry.name.as_str()).unwrap_or_default();
        let mut groups = getgrouplist(&name, entry.gid).unwrap_or_default();
        groups.retain(|group| *group != entry.gid);
        groups.sort_unstable_by_key(|group| group.as_raw());
        groups.dedup();
        Account {
            uid: entry.uid,
            gid: entry.gid,
            groups,
        }
    }

    /// Whether the process has this user and group now.
    pub(crate) fn is_current(&self) -> bool {
        (geteuid(), getegid()) == (self.uid, self.gid)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, gid, groups } = self;
        write!(f, "uid={uid} gid={gid} groups=")?;
        for (index, group) in groups.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{group}")?;
        }
        Ok(())
    }
}

/// Becomes this user. Call it when the sockets are bound and before the first packet is read.
///
/// The change holds for all threads. `setuid` from root to another user also clears every
/// capability. A process that has this user and group already changes nothing, not even its
/// supplementary groups: that needs no right at all.
///
/// # Errors
///
/// The text says which step failed; "cannot run as USER: " is the caller's to put before it. The
/// process is then in an undefined state between two users and must end.
pub(crate) fn drop_to(account: &Account) -> io::Result<()> {
    if !account.is_current() {
        // The order matters: once the user is changed, the groups can't be.
        set_groups(&account.groups)?;
        if account.gid != getegid() {
            step("change the group", "CAP_SETGID", setgid(account.gid))?;
        }
        if account.uid != geteuid() {
            step("change the user", "CAP_SETUID", setuid(account.uid))?;
        }
    }
    if !account.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("root's privileges would come back"));
    }
    Ok(())
}

/// Sets the supplementary groups, except where the process has exactly these: a user namespace may
/// forbid the call.
fn set_groups(wanted: &[Gid]) -> io::Result<()> {
    let mut current = getgroups().unwrap_or_default();
    current.sort_unstable_by_key(|group| group.as_raw());
    if current == wanted {
        return Ok(());
    }
    step(
        "set the supplementary groups",
        "CAP_SETGID",
        setgroups(wanted),
    )
}

fn number(text: &str) -> Option<u32> {
    // The largest number means "no change" to the system calls; `parse` takes a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| digits)?;
    (id != u32::MAX).then_some(id)
}

/// An entry of a database; a database that is missing has none.
fn entry<T>(found: Result<Option<T>, Errno>) -> io::Result<Option<T>> {
    match found {
        // getpwnam(3) names these for "not found".
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(errno) => Err(failed("read the user database", errno, "")),
        Ok(found) => Ok(found),
    }
}

fn not_found(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, text)
}

fn step(doing: &str, capability: &str, result: Result<(), Errno>) -> io::Result<()> {
    let hint = |errno| match errno {
        Errno::EPERM => format!(" (this needs {capability})"),
        Errno::EINVAL => " (this user namespace has no such id)".to_owned(),
        _ => String::new(),
    };
    result.map_err(|errno| failed(doing, errno, &hint(errno)))
}

fn failed(doing: &str, errno: Errno, hint: &str) -> io::Error {
    let kind = io::Error::from(errno).kind();
    let cause = errno.desc().to_lowercase();
    io::Error::new(kind, format!("cannot {doing}: {cause}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_an_error() {
        for (user, text) in [
            ("no-such-user-here", "no such user"),
            ("", "no such user"),
            ("0x0", "no such user"),
            ("+0", "no such user"),
            ("4294967295", "no such user"),
            ("4294967296", "no such user"),
            ("nobody:1", "no such user"),
            ("4242:x", "no such group; give UID:GID in numbers"),
            ("4242:", "no such group; give UID:GID in numbers"),
            ("4242:4294967295", "no such group; give UID:GID in numbers"),
            (
                "4242424",
                "the user database has no group for this id; give UID:GID",
            ),
        ] {
            let error = Account::find(user).expect_err(user);
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{user}");
            assert_eq!(error.to_string(), text, "{user}");
        }
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        let find = |user| Account::find(user).expect(user);
        let ids = |account: Account| (account.uid.as_raw(), account.gid.as_raw());
        assert_eq!(ids(find("root")), (0, 0));
        assert_eq!(ids(find("0")), (0, 0));
        assert_eq!(find("0:100"), Account::numeric(0, 100));
        assert_eq!(find("4242:4343"), Account::numeric(4242, 4343));
    }

    #[test]
    fn a_missing_database_has_no_entry_and_a_broken_one_is_an_error() {
        assert_eq!(entry::<()>(Err(Errno::ENOENT)).expect("no entry"), None);
        let error = entry::<()>(Err(Errno::EIO)).expect_err("a broken database");
        assert!(
            error
                .to_string()
                .starts_with("cannot read the user database: ")
        );
    }

    #[test]
    fn a_step_that_is_denied_names_the_capability() {
        let denied = step("change the group", "CAP_SETGID", Err(Errno::EPERM));
        assert_eq!(
            denied.expect_err("denied").to_string(),
            "cannot change the group: operation not permitted (this needs CAP_SETGID)"
        );
        let unmapped = step("change the user", "CAP_SETUID", Err(Errno::EINVAL));
        assert_eq!(
            unmapped.expect_err("no such id").to_string(),
            "cannot change the user: invalid argument (this user namespace has no such id)"
        );
    }
}
