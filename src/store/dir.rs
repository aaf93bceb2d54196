//! A rooted directory: which names it serves, and what it says of the others.
//!
//! Invariant: a file that is served lies beneath the root or an allowed tree, is regular, and may
//! be read by everybody (unless that was waived). A refusal names nothing of this machine, and is
//! the same whether or not there is something outside.

use super::landing::{self, WriteMode};
use super::names::{clean, leaves, refuse, with_slashes};
use super::tree::{Found, Trees};
use super::uploads;
use super::{Kind, Request, Sink, Source, Store};
use crate::error::{Error, Refusal, plain};
use crate::limits::{MAX_UPLOAD, UMASK};
use crate::sys::fs::{self, Want};
use crate::text::Name;
use crate::wire::ErrorCode;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Serves the files beneath one directory, for reading, and takes uploads where it is [told
/// to](DirBuilder::uploads).
///
/// The directory is held open: names are looked up beneath what it was when it was opened, wherever
/// its path leads later, until [`reopen`](Self::reopen). Clones share it.
///
/// - A leading `/` means the directory itself. `.` and doubled slashes are skipped; `..` may go up,
///   but not above it. A missing name with backslashes is tried once more with slashes. A name that
///   ends in a slash is a directory's and is refused.
/// - A missing name with a byte 0xFF is tried once more as the part before the first one, unless a
///   slash or backslash follows: boot ROMs read on past the end of a DHCP option, whose end is
///   marked by this byte.
/// - Symbolic links are followed while they stay inside. One that leaves is followed only into a
///   tree that was [allowed](DirBuilder::allow_symlink_target). An absolute link that leads into no
///   tree is looked up [beneath the directory](DirBuilder::absolute_links_from_root), as after a
///   `chroot`.
/// - Only regular files are served, and only those that everybody may read, unless
///   [told otherwise](DirBuilder::serve_unreadable).
///
/// ```no_run
/// let store = tftpool::Dir::builder("/srv/tftp")
///     .allow_symlink_target("/srv/images")
///     .open()?;
/// # Ok::<(), tftpool::Error>(())
/// ```
#[derive(Clone)]
pub struct Dir(Arc<Shared>);

struct Shared {
    settings: DirBuilder,
    /// Locked only to copy or replace the `Arc`; never while a file is looked up.
    roots: RwLock<Arc<Roots>>,
    /// Set when `openat2` proves to be missing.
    by_hand: AtomicBool,
    /// A name was cut at a byte 0xFF, and the log says so.
    has_cut: AtomicBool,
}

/// What is held open.
struct Roots {
    reading: Trees,
    uploads: Option<Trees>,
}

/// What a [`Dir`] serves; made by [`Dir::builder`].
#[derive(Clone, Debug)]
pub struct DirBuilder {
    root: PathBuf,
    allowed: Vec<PathBuf>,
    from_root: bool,
    serve_unreadable: bool,
    uploads: Option<WriteMode>,
    upload_dir: Option<PathBuf>,
    max_upload: u64,
    umask: u32,
    durable: bool,
}

impl DirBuilder {
    /// Follows symbolic links that leave the directory, if they lead into this tree. A link is
    /// compared by its text, whole components at a time, with the tree's path as it is written here
    /// and as it is without links.
    #[must_use]
    pub fn allow_symlink_target(mut self, tree: impl Into<PathBuf>) -> Self {
        self.allowed.push(tree.into());
        self
    }

    /// Whether an absolute link in the directory that leads into no tree is looked up beneath the
    /// directory, as if the server had done a `chroot`: `/images/kernel` means `images/kernel`
    /// there. The host's path comes first. On by default; without it such a link is refused.
    #[must_use]
    pub fn absolute_links_from_root(mut self, from_root: bool) -> Self {
        self.from_root = from_root;
        self
    }

    /// Serves files, too, that this process may read but not everybody (mode without `o+r`).
    #[must_use]
    pub fn serve_unreadable(mut self, serve: bool) -> Self {
        self.serve_unreadable = serve;
        self
    }

    /// Takes uploads too. A file appears under its name when it is whole; a directory that it is to
    /// lie in must exist; links are followed on the way there while they stay inside, and never
    /// where the file goes. [`WriteMode::Overwrite`] says when a file is replaced, and when it is
    /// written in place.
    #[must_use]
    pub fn uploads(mut self, mode: WriteMode) -> Self {
        self.uploads = Some(mode);
        self
    }

    /// Puts uploads beneath this directory, not beneath the one that is served.
    #[must_use]
    pub fn upload_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.upload_dir = Some(directory.into());
        self
    }

    /// Octets that one upload may have; 1 GiB where nothing is said.
    #[must_use]
    pub fn max_upload(mut self, octets: u64) -> Self {
        self.max_upload = octets;
        self
    }

    /// Permission bits that no upload gets, out of `rw-rw-rw-`; `0o022` where nothing is said.
    #[must_use]
    pub fn umask(mut self, bits: u32) -> Self {
        self.umask = bits;
        self
    }

    /// Acknowledges the last block of an upload when the disk has it, and not when the system has
    /// it.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Serves another directory with the same settings.
    #[must_use]
    pub(crate) fn at(mut self, root: &Path) -> Self {
        self.root = root.to_owned();
        self
    }

    /// Opens the directory and the allowed trees, and removes what a crash of this user's server
    /// has left of uploads.
    ///
    /// # Errors
    /// [`Error::Directory`] names the one that cannot be opened or searched.
    pub fn open(self) -> Result<Dir, Error> {
        let dir = self.open_only()?;
        dir.prepare_uploads();
        Ok(dir)
    }

    /// Opens them and leaves unfinished uploads of an earlier run where they are: for a process
    /// that has yet to become the user who writes.
    pub(crate) fn open_only(mut self) -> Result<Dir, Error> {
        // A daemon may change its working directory before it reopens.
        let paths = std::iter::once(&mut self.root).chain(&mut self.allowed);
        for path in paths.chain(&mut self.upload_dir) {
            match std::path::absolute(&*path) {
                Ok(absolute) => *path = absolute,
                Err(cause) => {
                    return Err(Error::Directory {
                        path: path.clone(),
                        cause,
                    });
                }
            }
        }
        let roots = self.open_roots()?;
        Ok(Dir(Arc::new(Shared {
            roots: RwLock::new(Arc::new(roots)),
            by_hand: AtomicBool::new(false),
            has_cut: AtomicBool::new(false),
            settings: self,
        })))
    }

    fn open_roots(&self) -> Result<Roots, Error> {
        let open = |path: &PathBuf, allowed: &[PathBuf]| {
            let blame = |path: &PathBuf| {
                let path = path.clone();
                |cause| Error::Directory { path, cause }
            };
            let mut trees = Trees::open(path, self.from_root).map_err(blame(path))?;
            for tree in allowed {
                trees.allow(tree).map_err(blame(tree))?;
            }
            Ok(trees)
        };
        let upload_root = self.upload_dir.as_ref().unwrap_or(&self.root);
        Ok(Roots {
            reading: open(&self.root, &self.allowed)?,
            // A link that may be read through is not one to write through.
            uploads: self.uploads.map(|_| open(upload_root, &[])).transpose()?,
        })
    }
}

impl Dir {
    /// Opens a directory with the defaults: no link leaves it, and only files that everybody may
    /// read are served.
    ///
    /// # Errors
    /// [`Error::Directory`] if it cannot be opened or searched.
    pub fn read_only(root: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::builder(root).open()
    }

    /// Starts with the defaults of [`read_only`](Self::read_only).
    pub fn builder(root: impl Into<PathBuf>) -> DirBuilder {
        DirBuilder {
            root: root.into(),
            allowed: Vec::new(),
            from_root: true,
            serve_unreadable: false,
            uploads: None,
            upload_dir: None,
            max_upload: MAX_UPLOAD,
            umask: UMASK,
            durable: false,
        }
    }

    /// The path of the directory, absolute, otherwise as it was given.
    pub fn path(&self) -> &Path {
        &self.0.settings.root
    }

    /// The path of the directory that uploads go to.
    pub(crate) fn upload_path(&self) -> &Path {
        let settings = &self.0.settings;
        settings.upload_dir.as_ref().unwrap_or(&settings.root)
    }

    /// Opens the directory and the allowed trees anew by their paths: what a link there leads to
    /// now is served from now on, by all clones. Files that are open stay open.
    ///
    /// # Errors
    /// [`Error::Directory`] names the one that cannot be opened; what was served before is served
    /// on.
    pub fn reopen(&self) -> Result<(), Error> {
        let roots = Arc::new(self.0.settings.open_roots()?);
        let current = self.0.roots.write();
        *current.unwrap_or_else(PoisonError::into_inner) = roots;
        Ok(())
    }

    /// Warns if this process cannot store uploads, and removes partial uploads that a crash has
    /// left, if this user owns them. A failure of either is logged, not fatal: subdirectories may
    /// take uploads all the same.
    pub(crate) fn prepare_uploads(&self) {
        let roots = self.roots();
        let Some(uploads) = &roots.uploads else {
            return;
        };
        if let Err(error) = fs::may_add_to(uploads.root()) {
            log::warn!(
                "cannot store uploads in {}: {} (let the server's user write there)",
                self.upload_path().display(),
                plain(&error)
            );
        }
        match landing::remove_leftovers(uploads.root()) {
            Ok(search) => {
                if search.removed > 0 {
                    let count = search.removed;
                    log::info!("removed unfinished uploads of an earlier run count={count}");
                }
                if let Some(reason) = search.cut {
                    log::warn!("unfinished uploads of an earlier run may be left: {reason}");
                }
            }
            Err(error) => log::warn!("cannot look for unfinished uploads: {}", plain(&error)),
        }
    }

    fn roots(&self) -> Arc<Roots> {
        let current = self.0.roots.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, name: &[u8]) -> Result<Source, Refusal> {
        let (file, status) = match self.look_up(&clean(name)?, Want::File).map_err(refuse)? {
            Found::File(file, status) => (file, status),
            Found::Seen(_) => {
                return Err(Refusal::access_violation().because("not a regular file"));
            }
            Found::Outside(host) => return Err(leaves(&host)),
        };
        if status.mode & 0o004 == 0 && !self.0.settings.serve_unreadable {
            let mode = status.mode;
            return Err(Refusal::access_violation()
                .because(format!("not readable by everybody (mode {mode:04o})")));
        }
        Ok(Source(Kind::File(file, Some(status))))
    }

    /// The file of a name as it is, or with slashes for its backslashes.
    fn find_either(&self, name: &[u8]) -> Result<Source, Refusal> {
        match self.find(name) {
            Err(refusal) if is_elsewhere(&refusal) && name.contains(&b'\\') => {
                self.find(&with_slashes(name))
            }
            answer => answer,
        }
    }

    /// Looks up a name that was cleaned.
    pub(super) fn look_up(&self, name: &OsStr, want: Want) -> io::Result<Found> {
        self.roots().reading.find(name, want, &self.0.by_hand)
    }
}

impl Store for Dir {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        let name = request.name;
        let refusal = match self.find_either(name) {
            Err(refusal) if is_elsewhere(&refusal) || clean(name).is_err() => refusal,
            answer => return answer,
        };
        match before_dhcp_end(name) {
            None => Err(refusal),
            Some(meant) => {
                let source = self.find_either(meant)?;
                let (name, meant) = (Name::new(name), Name::new(meant));
                // Forged requests must not fill the log.
                match self.0.has_cut.swap(true, Ordering::Relaxed) {
                    false => log::info!(
                        "name cut at its byte 0xff file={name} as={meant} (later ones: see -v)"
                    ),
                    true => log::debug!("name cut at its byte 0xff file={name} as={meant}"),
                }
                Ok(source)
            }
        }
    }

    fn takes_uploads(&self) -> bool {
        self.0.settings.uploads.is_some()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        let settings = &self.0.settings;
        let roots = self.roots();
        let (Some(mode), Some(trees)) = (settings.uploads, &roots.uploads) else {
            return Err(Refusal::read_only());
        };
        let terms = uploads::Terms {
            mode,
            most: settings.max_upload,
            umask: settings.umask,
            durable: settings.durable,
        };
        uploads::begin(request, trees, &self.0.by_hand, &terms)
    }

    fn reload(&self) {
        if let Err(error) = self.reopen() {
            log::warn!("{error}; what was served before is served on");
        }
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dir").field(&self.0.settings).finish()
    }
}

/// The end of the options in a DHCP packet (RFC 2132 §3.2).
const DHCP_END: u8 = 0xFF;

/// The part of a name before the first byte 0xFF: firmware that takes DHCP option 67 for a string
/// reads on to the end of the options, and beyond. `None` where a separator follows, since the name
/// is a path then, and its last components say which file it means.
fn before_dhcp_end(name: &[u8]) -> Option<&[u8]> {
    let end = name.iter().position(|&byte| byte == DHCP_END)?;
    let (meant, rest) = name.split_at(end);
    let is_path = rest.iter().any(|byte| matches!(byte, b'/' | b'\\'));
    (!meant.is_empty() && !is_path).then_some(meant)
}

/// Whether another spelling of the name may lead to a file.
fn is_elsewhere(refusal: &Refusal) -> bool {
    [ErrorCode::NOT_FOUND, ErrorCode::ILLEGAL_OPERATION].contains(&refusal.code())
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use crate::limits::MAX_NAME;
    use crate::sys::calls;
    use crate::wire::{Direction, Mode, Options};
    use std::ffi::OsString;
    use std::io::Read;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::os::unix::ffi::OsStringExt;

    /// The directory twice: looked up by `openat2`, and walked by hand.
    fn both_ways(builder: DirBuilder) -> [Dir; 2] {
        let kernel = builder.clone().open().expect("a directory");
        let walk = builder.open().expect("a directory");
        walk.0.by_hand.store(true, Ordering::Relaxed);
        [kernel, walk]
    }

    fn way(dir: &Dir) -> &'static str {
        match dir.0.by_hand.load(Ordering::Relaxed) {
            true => "walk",
            false => "openat2",
        }
    }

    fn ask(dir: &Dir, name: impl AsRef<[u8]>) -> Result<Source, Refusal> {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        dir.read(&Request {
            peer: nobody,
            local: nobody,
            direction: Direction::Read,
            name: name.as_ref(),
            mode: Mode::Octet,
            options: Options::default(),
        })
    }

    /// What was served, or the code and the text that the peer is told.
    fn answer(dir: &Dir, name: impl AsRef<[u8]>) -> Result<Vec<u8>, (u16, String)> {
        let Kind::File(mut file, status) = ask(dir, name)
            .map_err(|refusal| (refusal.code().0, refusal.text().to_owned()))?
            .0
        else {
            panic!("a directory serves files");
        };
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("a readable file");
        let size = status.map(|it| it.identity.size);
        assert_eq!(size, Some(content.len() as u64));
        Ok(content)
    }

    fn missing() -> Result<Vec<u8>, (u16, String)> {
        Err((1, "file not found".to_owned()))
    }

    fn too_long_name() -> Result<Vec<u8>, (u16, String)> {
        Err((4, "file name too long".to_owned()))
    }

    fn refused() -> Result<Vec<u8>, (u16, String)> {
        Err((2, "access violation".to_owned()))
    }

    fn served(content: impl AsRef<[u8]>) -> Result<Vec<u8>, (u16, String)> {
        Ok(content.as_ref().to_vec())
    }

    /// Octets from the notation of `traversal.txt`.
    fn unescape(text: &str) -> Vec<u8> {
        let mut octets = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            (rest, _) = match (first, tail) {
                (b'\\', [b'\\', tail @ ..]) => (tail, octets.push(b'\\')),
                (b'\\', [b'x', _, _, tail @ ..]) => {
                    let digits = std::str::from_utf8(&rest[2..4]).expect("two digits");
                    let octet = u8::from_str_radix(digits, 16).expect("two digits");
                    (tail, octets.push(octet))
                }
                _ => (tail, octets.push(*first)),
            };
        }
        octets
    }

    #[test]
    fn an_upload_is_synced_where_that_was_asked_for() {
        for durable in [false, true] {
            let scratch = Scratch::new();
            let dir = Dir::builder(scratch.path()).uploads(WriteMode::Create);
            let dir = dir.durable(durable).open().expect("a directory");
            let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let request = Request {
                peer: nobody,
                local: nobody,
                direction: Direction::Write,
                name: b"file",
                mode: Mode::Octet,
                options: Options::default(),
            };
            let mut sink = dir.write(&request).expect("a sink");
            sink.append(b"content").expect("room");
            let before = calls::so_far();
            sink.commit().expect("a name");
            let made = calls::so_far() - before;
            let wanted = (u64::from(durable), u64::from(durable));
            assert_eq!((made.file_syncs, made.directory_syncs), wanted);
        }
    }

    #[test]
    fn names_reach_what_they_should_and_nothing_else() {
        let scratch = Scratch::new();
        for name in [
            "top",
            "a..b",
            "..hidden",
            "...",
            "boot/x",
            "boot/dir x/second.ipxe",
            "pxem/loader",
            r"boot/\xe4\xf6",
            r"boot/\xc3\xa4",
            r"back\\slash",
            "back/slash",
        ] {
            // Each file holds its own name.
            let name = unescape(name);
            scratch.file(
                Path::new("root").join(OsString::from_vec(name.clone())),
                &name,
            );
        }
        scratch.file("secret", "secret");
        scratch.file("rootsecret/file", "secret");
        let mut checked = 0;
        for dir in both_ways(Dir::builder(scratch.at("root"))) {
            for line in include_str!("../../tests/data/traversal.txt").lines() {
                let Some((name, expected)) =
                    line.strip_prefix('"').and_then(|it| it.rsplit_once("\" "))
                else {
                    assert!(line.is_empty() || line.starts_with('#'), "{line}");
                    continue;
                };
                let expected = match expected {
                    "1" => missing(),
                    "2" => refused(),
                    file => served(unescape(file)),
                };
                assert_eq!(
                    answer(&dir, unescape(name)),
                    expected,
                    "{line} by {}",
                    way(&dir)
                );
                checked += 1;
            }
            for name in [
                &[b'a'; 300][..],
                &[b'a'; MAX_NAME + 1],
                &[b'/'; MAX_NAME + 1],
            ] {
                assert_eq!(answer(&dir, name), too_long_name(), "{}", way(&dir));
            }
            assert_eq!(answer(&dir, "a/".repeat(400) + "a"), missing());
        }
        assert!(checked > 100);
    }

    #[test]
    fn links_lead_to_trees_that_are_ours_and_nowhere_else() {
        let scratch = Scratch::new();
        let root = scratch.directory("root");
        let images = scratch.directory("images");
        scratch.file("root/boot/x", "x");
        scratch.file("root/top", "top");
        scratch.file("images/arm/kernel", "kernel");
        scratch.file("secret", "secret");
        scratch.file("images2/kernel", "secret");
        scratch.file("root2/x", "secret");
        let outside = scratch.path();

        for (name, target) in [
            ("boot/up", "../top".into()),
            ("same", "boot/./x".into()),
            ("round", "boot/../boot/../top".into()),
            ("dir", "boot".into()),
            ("slash", "boot/".into()),
            ("filedir", "top/".into()),
            ("absolute", root.join("boot/x")),
            ("absolutedir", root.join("boot")),
            ("self", root.clone()),
            ("out-and-in", "../root/top".into()),
            ("chain0", "top".into()),
            ("loop", "loop2".into()),
            ("loop2", "loop".into()),
            ("absoluteloop", root.join("absoluteloop")),
            ("dangling", "absent".into()),
            ("danglingabsolute", root.join("absent")),
            ("climb", "../secret".into()),
            ("climbdir", "boot/../..".into()),
            ("climbabsent", "../absent".into()),
            ("climbhigh", "../../../../../../../../../etc/passwd".into()),
            ("out", outside.join("secret")),
            ("outabsent", outside.join("absent")),
            ("outdir", outside.into()),
            ("likeroot", outside.join("root2/x")),
            ("likeimages", outside.join("images2/kernel")),
            (
                "throughimages",
                outside.join("images").join("../images2/kernel"),
            ),
            ("magic", "/proc/self/exe".into()),
            ("magicroot", "/proc/self/root".into()),
            ("slashes", "/".into()),
            ("image", images.join("arm/kernel")),
            ("imagedir", images.join("arm")),
            ("images", images.clone()),
            ("imageclimb", "../images/arm/kernel".into()),
            ("imageround", images.join("../root/top")),
            ("imageabsent", images.join("absent")),
        ] {
            scratch.link(Path::new("root").join(name), target);
        }
        scratch.link("images/back", root.join("top"));
        scratch.link("images/out", "../secret");
        scratch.link("images/arm/again", "../../images/arm/kernel");
        for n in 1..=45 {
            scratch.link(format!("root/chain{n}"), format!("chain{}", n - 1));
        }

        let inside = [
            ("boot/up", served("top")),
            ("same", served("x")),
            ("round", served("top")),
            ("dir/x", served("x")),
            ("dir/up", served("top")),
            ("slash/x", served("x")),
            ("slash", refused()),
            ("filedir", missing()),
            ("absolute", served("x")),
            ("absolutedir/x", served("x")),
            ("absolutedir/up", served("top")),
            ("self", refused()),
            ("self/self/self/top", served("top")),
            ("chain39", served("top")),
            ("chain45", refused()),
            ("loop", refused()),
            ("absoluteloop", refused()),
            ("dangling", missing()),
            ("dangling/x", missing()),
            ("danglingabsolute", missing()),
            ("top/../dir/x", served("x")),
            // `..` takes back the name before it, whether that is a link or not.
            ("dir/../top", served("top")),
            ("climbdir/root/top", served("top")),
            ("out-and-in", served("top")),
        ];
        let outside = [
            "climb",
            "climbdir",
            "climbdir/secret",
            "climbdir/absent",
            "climbabsent",
            "climbhigh",
            "out",
            "outabsent",
            "outdir",
            "outdir/secret",
            "outdir/absent",
            "likeroot",
            "likeimages",
            "throughimages",
            "magic",
            "magicroot",
            "magicroot/etc/passwd",
            "slashes",
            "slashes/etc/passwd",
            "slashes/absent",
        ];
        let allowed = [
            ("image", served("kernel")),
            ("imagedir/kernel", served("kernel")),
            ("imagedir/again", served("kernel")),
            ("images/arm/kernel", served("kernel")),
            ("images/back", served("top")),
            ("images", refused()),
            ("images/out", refused()),
            ("imageclimb", served("kernel")),
            ("imageround", served("top")),
            ("imageabsent", missing()),
            ("images/arm/absent", missing()),
        ];

        for dir in both_ways(Dir::builder(&root)) {
            for (name, expected) in &inside {
                assert_eq!(answer(&dir, name), *expected, "{name} by {}", way(&dir));
            }
            for (name, _) in &allowed {
                // The way to the root leads over a tree that is not ours, but only by its spelling.
                let expected = match *name {
                    "imageround" => served("top"),
                    _ => refused(),
                };
                assert_eq!(answer(&dir, name), expected, "{name} by {}", way(&dir));
            }
            for name in outside {
                assert_eq!(answer(&dir, name), refused(), "{name} by {}", way(&dir));
            }
        }
        for dir in both_ways(Dir::builder(&root).allow_symlink_target(&images)) {
            for (name, expected) in inside.iter().chain(&allowed) {
                assert_eq!(answer(&dir, name), *expected, "{name} by {}", way(&dir));
            }
            for name in outside {
                assert_eq!(answer(&dir, name), refused(), "{name} by {}", way(&dir));
            }
        }
    }

    #[test]
    fn an_absolute_link_means_the_root_where_it_leads_into_no_tree() {
        let scratch = Scratch::new();
        let root = scratch.directory("root");
        let allowed = scratch.directory("allowed");
        scratch.file("root/images/kernel", "kernel");
        scratch.file("allowed/file", "of the host");
        let beneath = |path: &Path| root.join(path.strip_prefix("/").expect("absolute"));
        scratch.file(beneath(&allowed).join("file"), "of the root");
        // Where a relative link, or one of another tree, would lead if it were taken for the
        // root's.
        scratch.file(beneath(&scratch.at("images/kernel")), "wrong");
        scratch.file("allowed/images/kernel", "wrong");
        scratch.file("root/secret", "x");
        super::super::scratch::mode(&root.join("secret"), 0o600);
        scratch.directory("root/deep/down");
        for (name, target) in [
            ("root/link", "/images/kernel"),
            ("root/dir", "/images"),
            ("root/deep/down/link", "//./images/kernel"),
            ("root/chain", "/link"),
            ("root/above", "/../../images/kernel"),
            ("root/absent", "/images/absent"),
            ("root/loop", "/loop"),
            ("root/relative", "../images/kernel"),
            ("root/hidden", "/secret"),
            ("allowed/back", "/images/kernel"),
        ] {
            scratch.link(name, target);
        }
        scratch.link("root/both", allowed.join("file"));
        scratch.link("root/through", allowed.join("back"));
        let builder = Dir::builder(&root).allow_symlink_target(&allowed);
        for from_root in [true, false] {
            for dir in both_ways(builder.clone().absolute_links_from_root(from_root)) {
                let ask = |name: &str| (answer(&dir, name), format!("{name} by {}", way(&dir)));
                for name in ["link", "dir/kernel", "deep/down/link", "chain", "above"] {
                    let (answer, at) = ask(name);
                    let wanted = if from_root {
                        served("kernel")
                    } else {
                        refused()
                    };
                    assert_eq!(answer, wanted, "{at}");
                }
                for name in ["absent", "loop", "relative", "hidden", "through", "dir"] {
                    let (answer, at) = ask(name);
                    assert_eq!(answer, refused(), "{at}");
                }
                let (answer, at) = ask("both");
                assert_eq!(answer, served("of the host"), "{at}");
            }
        }
    }

    #[test]
    fn the_log_learns_where_a_link_leads_and_the_peer_does_not() {
        let scratch = Scratch::new();
        scratch.directory("root");
        scratch.link("root/out", "/etc/a\nb");
        for dir in both_ways(Dir::builder(scratch.at("root"))) {
            let refusal = ask(&dir, "out").expect_err("a refusal");
            assert_eq!(refusal.text(), "access violation");
            assert_eq!(
                refusal.detail(),
                Some(r"a link leaves towards /etc/a\nb"),
                "{}",
                way(&dir)
            );
        }
    }

    #[test]
    fn absolute_links_may_spell_a_tree_as_the_operator_did() {
        let scratch = Scratch::new();
        scratch.file("releases/42/x", "x");
        scratch.file("disk/kernel", "kernel");
        scratch.link("current", "releases/42");
        scratch.link("images", "disk");
        let builder =
            Dir::builder(scratch.at("current")).allow_symlink_target(scratch.at("images"));
        scratch.link("releases/42/spelled", scratch.at("current/x"));
        scratch.link("releases/42/real", scratch.at("releases/42/x"));
        scratch.link("releases/42/image", scratch.at("images/kernel"));
        scratch.link("releases/42/disk", scratch.at("disk/kernel"));
        scratch.link("releases/42/climb", "../../disk/kernel");
        for dir in both_ways(builder) {
            for name in ["spelled", "real"] {
                assert_eq!(answer(&dir, name), served("x"), "{name} by {}", way(&dir));
            }
            for name in ["image", "disk", "climb"] {
                assert_eq!(
                    answer(&dir, name),
                    served("kernel"),
                    "{name} by {}",
                    way(&dir)
                );
            }
        }
    }

    #[test]
    fn only_regular_files_are_served_and_no_open_blocks() {
        let scratch = Scratch::new();
        scratch.directory("root/directory");
        fs::make_fifo(&scratch.at("root/fifo")).expect("a FIFO");
        let socket = std::os::unix::net::UnixListener::bind(scratch.at("root/socket"));
        scratch.link("root/null", "/dev/null");
        scratch.link("root/exe", "/proc/self/exe");
        let builder = Dir::builder(scratch.at("root"))
            .allow_symlink_target("/dev")
            .allow_symlink_target("/proc");
        for dir in both_ways(builder) {
            for name in ["directory", "fifo", "socket", "null", "exe"] {
                assert_eq!(answer(&dir, name), refused(), "{name} by {}", way(&dir));
            }
        }
        drop(socket);
    }

    #[test]
    fn only_what_everybody_may_read_is_served_unless_told_otherwise() {
        let scratch = Scratch::new();
        for mode in [0o600, 0o640, 0o604, 0o444] {
            scratch.file(format!("root/{mode:o}"), "content");
            super::super::scratch::mode(&scratch.at(format!("root/{mode:o}")), mode);
        }
        let builder = Dir::builder(scratch.at("root"));
        for dir in both_ways(builder.clone()) {
            for (name, expected) in [
                ("600", refused()),
                ("640", refused()),
                ("604", served("content")),
                ("444", served("content")),
            ] {
                assert_eq!(answer(&dir, name), expected, "{name} by {}", way(&dir));
            }
        }
        for dir in both_ways(builder.serve_unreadable(true)) {
            for name in ["600", "640", "604", "444"] {
                assert_eq!(
                    answer(&dir, name),
                    served("content"),
                    "{name} by {}",
                    way(&dir)
                );
            }
        }
    }

    #[test]
    fn a_release_that_is_swapped_in_is_served_after_reopen() {
        let scratch = Scratch::new();
        scratch.file("1/version", "1");
        scratch.file("2/version", "2");
        scratch.link("current", "1");
        scratch.link("next", "2");
        let dirs = both_ways(Dir::builder(scratch.at("current")));
        std::fs::rename(scratch.at("next"), scratch.at("current")).expect("a swap");
        for dir in dirs {
            let clone = dir.clone();
            assert_eq!(answer(&dir, "version"), served("1"));
            dir.reopen().expect("the new release");
            assert_eq!(answer(&clone, "version"), served("2"));
            assert_eq!(clone.path(), scratch.at("current"));
        }
    }

    #[test]
    fn a_root_that_is_gone_is_served_on() {
        let scratch = Scratch::new();
        scratch.file("root/x", "x");
        let dirs = both_ways(Dir::builder(scratch.at("root")));
        std::fs::rename(scratch.at("root"), scratch.at("moved")).expect("a rename");
        for dir in dirs {
            let error = dir.reopen().expect_err("nothing there").to_string();
            let path = scratch.at("root");
            assert_eq!(
                error,
                format!("cannot open {}: no such file or directory", path.display())
            );
            dir.reload();
            assert_eq!(answer(&dir, "x"), served("x"));
        }
    }

    #[test]
    fn what_is_no_directory_cannot_be_the_root_nor_an_allowed_tree() {
        let scratch = Scratch::new();
        let root = scratch.directory("root");
        let file = scratch.file("file", "");
        let path = |result: Result<Dir, Error>| match result {
            Err(Error::Directory { path, .. }) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path(Dir::read_only(&file)), file);
        assert_eq!(path(Dir::read_only("")), Path::new(""));
        let builder = Dir::builder(root).allow_symlink_target(scratch.at("absent"));
        assert_eq!(path(builder.open()), scratch.at("absent"));
    }

    /// Somebody who may write in the tree moves things about while they are looked up.
    #[test]
    fn races_never_reach_outside() {
        const REQUESTS: usize = 3000;
        let scratch = Scratch::new();
        scratch.file("outside/file", "secret");
        scratch.file("outside/leak/file", "secret");
        scratch.directory("outside/a");
        scratch.file("root/plain", "fine");
        scratch.file("root/directory/file", "fine");
        scratch.link("root/link", "../outside");
        scratch.link("escape", "../outside/file");
        scratch.file("harmless", "fine");
        scratch.link("inside", "a/fine");
        scratch.file("root/a/fine", "fine");
        scratch.file("root/steady", "fine");
        scratch.directory("root/a/b");
        // Harmless here; it leads to `outside/leak` whenever `b` is moved to `outside/a`.
        scratch.link("root/a/b/up", "../../leak/file");
        let rename = |from: &str, to: &str| {
            std::fs::rename(scratch.at(from), scratch.at(to)).expect("a rename");
        };
        let replace = |name: &str, by: &str| {
            std::fs::hard_link(scratch.at(by), scratch.at("spare")).expect("a hard link");
            rename("spare", name);
        };
        for dir in both_ways(Dir::builder(scratch.at("root"))) {
            let done = AtomicBool::new(false);
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        replace("root/plain", "escape");
                        replace("root/plain", "harmless");
                        replace("root/steady", "inside");
                        replace("root/steady", "harmless");
                        for _ in 0..2 {
                            rename("root/directory", "spare");
                            rename("root/link", "root/directory");
                            rename("spare", "root/link");
                        }
                        rename("root/a/b", "outside/a/b");
                        rename("outside/a/b", "root/a/b");
                    }
                });
                let wrong = (0..REQUESTS)
                    .flat_map(|_| {
                        ["plain", "directory/file", "link/file", "a/b/up", "steady"]
                            .map(|name| (name, answer(&dir, name)))
                    })
                    .find(|(name, answer)| match answer {
                        Ok(content) => content != b"fine",
                        // Sometimes a file and sometimes a link, but always there.
                        Err(_) => *name == "steady",
                    });
                done.store(true, Ordering::Relaxed);
                assert_eq!(wrong, None, "by {}", way(&dir));
            });
        }
    }
}
