//! One directory held open, and the files beneath it; and several of them, between which links may
//! lead.
//!
//! Invariant: every descriptor handed out was reached from a tree's own descriptor, one component
//! at a time, and never by a host path. Host paths are only compared, as text, so that nothing
//! outside is ever asked whether it exists.
//!
//! There are two ways to look up a name. `openat2` does it in one system call. The walk opens
//! component by component and reads the links itself; it serves kernels and sandboxes that lack the
//! call, and it is what finds out where a link leads that `openat2` will not follow. Both give the
//! same answers.

use crate::limits::{MAX_LINKS, MAX_TREE_DEPTH, OPEN_ATTEMPTS};
use crate::sys::fs::{self, Opened, Status, Trouble, Want};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The root and the trees that links may lead to, as they were when they were opened.
pub(super) struct Trees {
    /// The root comes first.
    trees: Vec<Tree>,
    /// An absolute link of the root that leads into no tree is looked up beneath the root.
    from_root: bool,
}

/// How opening a name ended, where it did not fail.
pub(super) enum Found {
    /// The regular file or the directory that was wanted.
    File(File, Status),
    /// Only the status was wanted, or the file is not what was wanted.
    Seen(Status),
    /// A link led to this host path, which lies in no tree.
    Outside(PathBuf),
}

/// How a name ended in one tree.
enum Step {
    Found(Found),
    /// A link with this absolute path.
    Absolute(PathBuf),
}

impl Trees {
    /// Opens the root. With `from_root`, its absolute links mean the root where they lead into no
    /// tree.
    pub(super) fn open(root: &Path, from_root: bool) -> io::Result<Self> {
        let trees = vec![Tree::open(root)?];
        Ok(Self { trees, from_root })
    }

    /// Adds a tree that links may lead to.
    pub(super) fn allow(&mut self, path: &Path) -> io::Result<()> {
        self.trees.push(Tree::open(path)?);
        Ok(())
    }

    /// The root itself.
    pub(super) fn root(&self) -> &File {
        &self.trees[0].directory
    }

    /// Opens a file beneath the root. `by_hand` says that `openat2` is not to be tried, and is set
    /// once it proves to be missing.
    pub(super) fn find(&self, name: &OsStr, want: Want, by_hand: &AtomicBool) -> io::Result<Found> {
        let mut links = 0;
        let (mut at, mut name) = (0, name.to_owned());
        // The absolute link that was last taken to mean the root.
        let mut reread = None;
        for _ in 0..=MAX_LINKS {
            let (host, is_absolute) = match self.trees[at].find(&name, want, by_hand, &mut links) {
                Ok(Step::Absolute(host)) => (host, true),
                Ok(Step::Found(Found::Outside(host))) => (host, false),
                Ok(Step::Found(found)) => return Ok(found),
                Err(error) => match reread {
                    // It is missing there, and so the link leads out.
                    Some(host) if fs::trouble(&error) == Trouble::Missing => {
                        return Ok(Found::Outside(host));
                    }
                    _ => return Err(error),
                },
            };
            if let Some(place) = self.locate(&host) {
                (at, name) = place;
            } else if is_absolute && at == 0 && self.from_root {
                name = beneath(&host);
                reread = Some(host);
            } else {
                return Ok(Found::Outside(host));
            }
        }
        Err(fs::too_many_links())
    }

    /// The number of the tree that a host path lies in, and the name beneath it.
    fn locate(&self, host: &Path) -> Option<(usize, OsString)> {
        let mut reached = PathBuf::new();
        let mut rest = host.components();
        loop {
            match rest.next()? {
                Component::ParentDir => _ = reached.pop(),
                component => reached.push(component),
            }
            // The first hit wins: what follows, `..` included, is resolved by the walk and not by
            // its spelling.
            if let Some(at) = self.trees.iter().position(|tree| tree.is_at(&reached)) {
                return Some((at, name_of(rest.as_path())));
            }
        }
    }
}

/// The name beneath the root that an absolute path means after a `chroot` to it.
fn beneath(host: &Path) -> OsString {
    let mut rest = host.components();
    let above = |part: &Component<'_>| matches!(part, Component::RootDir | Component::ParentDir);
    // `..` of the root is the root.
    while rest.clone().next().is_some_and(|part| above(&part)) {
        rest.next();
    }
    name_of(rest.as_path())
}

fn name_of(path: &Path) -> OsString {
    match path.as_os_str() {
        name if name.is_empty() => OsString::from("."),
        name => name.to_owned(),
    }
}

struct Tree {
    directory: File,
    /// Where it is, free of links.
    path: PathBuf,
    /// The same as the operator wrote it: that is how absolute links inside are likely to spell it.
    spelled: PathBuf,
}

impl Tree {
    fn open(path: &Path) -> io::Result<Self> {
        let spelled = std::path::absolute(path)?;
        let path = spelled.canonicalize()?;
        // By the path just found, so that the two cannot disagree when a link is swapped in
        // between.
        let directory = fs::open_root(&path)?;
        Ok(Self {
            directory,
            path,
            spelled,
        })
    }

    fn is_at(&self, host: &Path) -> bool {
        host == self.path || host == self.spelled
    }

    fn find(
        &self,
        name: &OsStr,
        want: Want,
        by_hand: &AtomicBool,
        links: &mut usize,
    ) -> io::Result<Step> {
        if !by_hand.load(Ordering::Relaxed) {
            for _ in 0..OPEN_ATTEMPTS {
                let error = match fs::open_beneath(&self.directory, name, want) {
                    Ok(Opened::Unreachable) => break,
                    Ok(opened) => return found(opened),
                    Err(error) => error,
                };
                match fs::trouble(&error) {
                    Trouble::Busy => {}
                    Trouble::Leaves => break,
                    Trouble::NotOffered => {
                        by_hand.store(!self.openat2_works(), Ordering::Relaxed);
                        break;
                    }
                    _ => return Err(error),
                }
            }
        }
        self.walk(name, want, links)
    }

    /// Whether it was the call that was refused, or one file.
    fn openat2_works(&self) -> bool {
        fs::open_beneath(&self.directory, OsStr::new("."), Want::Status)
            .map_or_else(|error| fs::trouble(&error) != Trouble::NotOffered, |_| true)
    }

    /// Looks a name up component by component. `..` goes back to the directory we came from, which
    /// stays right while others rename directories. It costs a descriptor for each directory on the
    /// way, and so there is a limit.
    fn walk(&self, name: &OsStr, want: Want, links: &mut usize) -> io::Result<Step> {
        let mut steps: Vec<File> = Vec::new();
        let mut pending = Vec::new();
        push_components(&mut pending, name);
        while let Some(component) = pending.pop() {
            match component.as_bytes() {
                b"" | b"." => continue,
                b".." if steps.pop().is_some() => continue,
                b".." => {
                    let parent = self.path.parent().unwrap_or(&self.path);
                    return Ok(Step::Found(Found::Outside(rejoin(parent, &pending))));
                }
                _ => {}
            }
            let here = steps.last().unwrap_or(&self.directory);
            if let Some(target) = fs::read_link(here, &component)? {
                follow(links)?;
                if Path::new(&target).is_absolute() {
                    return Ok(Step::Absolute(rejoin(Path::new(&target), &pending)));
                }
                push_components(&mut pending, &target);
            } else if !pending.is_empty() {
                if steps.len() == MAX_TREE_DEPTH {
                    return Err(fs::too_many_links());
                }
                let step = fs::open_step(here, &component)?;
                steps.push(step);
            } else {
                match fs::open_here(here, &component, want) {
                    // It became a link since we looked.
                    Err(error) if fs::trouble(&error) == Trouble::Link => {
                        follow(links)?;
                        pending.push(component);
                    }
                    result => return result.and_then(found),
                }
            }
        }
        // Nothing is left of the name: it is this directory.
        let here = steps.last().unwrap_or(&self.directory);
        fs::open_here(here, OsStr::new("."), want).and_then(found)
    }
}

fn found(opened: Opened) -> io::Result<Step> {
    Ok(Step::Found(match opened {
        Opened::File(file, status) => Found::File(file, status),
        Opened::Seen(status) => Found::Seen(status),
        Opened::Unreachable => return Err(io::ErrorKind::PermissionDenied.into()),
    }))
}

fn follow(links: &mut usize) -> io::Result<()> {
    *links += 1;
    if *links > MAX_LINKS {
        return Err(fs::too_many_links());
    }
    Ok(())
}

/// Puts the components of a path on top of those that wait, the first one uppermost. An empty one
/// after a last slash stays: it makes what stands before it a directory.
fn push_components(pending: &mut Vec<OsString>, path: &OsStr) {
    let components = path.as_bytes().split(|&octet| octet == b'/').rev();
    pending.extend(components.map(|component| OsString::from_vec(component.to_vec())));
}

fn rejoin(start: &Path, pending: &[OsString]) -> PathBuf {
    let mut path = start.to_owned();
    path.extend(pending.iter().rev());
    path
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    /// Links can be longer than any name in a request, and each directory on the way holds a
    /// descriptor.
    #[test]
    fn a_walk_goes_down_so_far_and_no_further() {
        let scratch = Scratch::new();
        let deep = "d/".repeat(MAX_TREE_DEPTH);
        scratch.file(format!("{deep}file"), b"deep");
        scratch.file(format!("{deep}d/file"), b"too deep");
        scratch.link("link", format!("{deep}d/file"));
        let tree = Tree::open(scratch.path()).expect("a tree");
        let walk = |name: &str| tree.walk(OsStr::new(name), Want::File, &mut 0);
        let is_file = |step| matches!(step, Ok(Step::Found(Found::File(..))));
        assert!(is_file(walk(&format!("{deep}file"))));
        assert!(
            walk(&format!("{deep}../d/file")).is_ok(),
            "what was left is let go"
        );
        for name in [format!("{deep}d/file"), "link".into()] {
            let error = walk(&name).err().map(|error| error.raw_os_error());
            assert_eq!(error, Some(fs::too_many_links().raw_os_error()));
        }
    }
}
