//! One directory held open, and the files beneath it; and several of them, between which links may lead.
//!
//! Invariant: every descriptor handed out was reached from a tree's own descriptor, one component at a time, and never by
//! a host path. Host paths are only compared, as text, so that nothing outside is ever asked whether it exists.
//!
//! There are two ways to look up a name. `openat2` does it in one system call. The walk opens component by component and
//! reads the links itself; it serves kernels and sandboxes that lack the call, and it is what finds out where a link
//! leads that `openat2` will not follow. Both give the same answers.

use crate::limits::{MAX_LINKS, MAX_TREE_DEPTH, OPEN_ATTEMPTS};
use crate::sys::fs::{self, Trouble};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The root and the trees that links may lead to, as they were when they were opened.
pub(super) struct Trees(Vec<Tree>);

/// How opening a name ended, where it did not fail.
pub(super) enum Found {
    File(File),
    /// A link led to this host path, which lies in no tree.
    Outside(PathBuf),
}

impl Trees {
    /// Opens the root.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self(vec![Tree::open(root)?]))
    }

    /// Adds a tree that links may lead to.
    pub(super) fn allow(&mut self, path: &Path) -> io::Result<()> {
        self.0.push(Tree::open(path)?);
        Ok(())
    }

    /// The root itself.
    pub(super) fn root(&self) -> &File {
        &self.0[0].directory
    }

    /// Opens a file beneath the root. `by_hand` says that `openat2` is not to be tried, and is set once it proves to be
    /// missing.
    pub(super) fn find(&self, name: &OsStr, by_hand: &AtomicBool) -> io::Result<Found> {
        let mut links = 0;
        let (mut tree, mut name) = (&self.0[0], name.to_owned());
        for _ in 0..=MAX_LINKS {
            match tree.find(&name, by_hand, &mut links)? {
                Found::File(file) => return Ok(Found::File(file)),
                Found::Outside(host) => match self.locate(&host) {
                    Some((other, rest)) => (tree, name) = (other, rest),
                    None => return Ok(Found::Outside(host)),
                },
            }
        }
        Err(fs::too_many_links())
    }

    /// The tree that a host path lies in, and the name beneath it.
    fn locate(&self, host: &Path) -> Option<(&Tree, OsString)> {
        let mut reached = PathBuf::new();
        let mut rest = host.components();
        loop {
            match rest.next()? {
                Component::ParentDir => _ = reached.pop(),
                component => reached.push(component),
            }
            // The first hit wins: what follows, `..` included, is resolved by the walk and not by its spelling.
            if let Some(tree) = self.0.iter().find(|tree| tree.is_at(&reached)) {
                let name = rest.as_path().as_os_str();
                let name = if name.is_empty() {
                    OsStr::new(".")
                } else {
                    name
                };
                return Some((tree, name.to_owned()));
            }
        }
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
        // By the path just found, so that the two cannot disagree when a link is swapped in between.
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

    fn find(&self, name: &OsStr, by_hand: &AtomicBool, links: &mut usize) -> io::Result<Found> {
        if !by_hand.load(Ordering::Relaxed) {
            for _ in 0..OPEN_ATTEMPTS {
                let error = match fs::open_beneath(&self.directory, name) {
                    Ok(file) => return Ok(Found::File(file)),
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
        self.walk(name, links)
    }

    /// Whether it was the call that was refused, or one file.
    fn openat2_works(&self) -> bool {
        fs::open_beneath(&self.directory, OsStr::new("."))
            .map_or_else(|error| fs::trouble(&error) != Trouble::NotOffered, |_| true)
    }

    /// Looks a name up component by component. `..` goes back to the directory we came from, which stays right while
    /// others rename directories. It costs a descriptor for each directory on the way, and so there is a limit.
    fn walk(&self, name: &OsStr, links: &mut usize) -> io::Result<Found> {
        let mut steps: Vec<File> = Vec::new();
        let mut pending = Vec::new();
        push_components(&mut pending, name);
        while let Some(component) = pending.pop() {
            match component.as_bytes() {
                b"" | b"." => continue,
                b".." if steps.pop().is_some() => continue,
                b".." => {
                    let parent = self.path.parent().unwrap_or(&self.path);
                    return Ok(Found::Outside(rejoin(parent, &pending)));
                }
                _ => {}
            }
            let here = steps.last().unwrap_or(&self.directory);
            if let Some(target) = fs::read_link(here, &component)? {
                follow(links)?;
                if Path::new(&target).is_absolute() {
                    return Ok(Found::Outside(rejoin(Path::new(&target), &pending)));
                }
                push_components(&mut pending, &target);
            } else if !pending.is_empty() {
                if steps.len() == MAX_TREE_DEPTH {
                    return Err(fs::too_many_links());
                }
                let step = fs::open_step(here, &component)?;
                steps.push(step);
            } else {
                match fs::open_here(here, &component) {
                    // It became a link since we looked.
                    Err(error) if fs::trouble(&error) == Trouble::Link => {
                        follow(links)?;
                        pending.push(component);
                    }
                    result => return result.map(Found::File),
                }
            }
        }
        // Nothing is left of the name: it is this directory.
        let here = steps.last().unwrap_or(&self.directory);
        fs::open_here(here, OsStr::new(".")).map(Found::File)
    }
}

fn follow(links: &mut usize) -> io::Result<()> {
    *links += 1;
    if *links > MAX_LINKS {
        return Err(fs::too_many_links());
    }
    Ok(())
}

/// Puts the components of a path on top of those that wait, the first one uppermost. An empty one after a last slash
/// stays: it makes what stands before it a directory.
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

    /// Links can be longer than any name in a request, and each directory on the way holds a descriptor.
    #[test]
    fn a_walk_goes_down_so_far_and_no_further() {
        let scratch = Scratch::new();
        let deep = "d/".repeat(MAX_TREE_DEPTH);
        scratch.file(format!("{deep}file"), b"deep");
        scratch.file(format!("{deep}d/file"), b"too deep");
        scratch.link("link", format!("{deep}d/file"));
        let tree = Tree::open(scratch.path()).expect("a tree");
        let walk = |name: &str| tree.walk(OsStr::new(name), &mut 0);
        assert!(matches!(walk(&format!("{deep}file")), Ok(Found::File(_))));
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
