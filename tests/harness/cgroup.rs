//! A group of processes that may have so much memory and no more.

use std::fs;
use std::path::{Path, PathBuf};

/// A memory cgroup of its own, with a limit. Removed when dropped: after the processes in it.
pub(crate) struct MemoryGroup {
    path: PathBuf,
    version: CgroupVersion,
}

enum CgroupVersion {
    One,
    Two,
}

impl MemoryGroup {
    /// A group beneath our own, or as near to it as it can be made.
    ///
    /// # Errors
    /// Why there can be none.
    pub(crate) fn new(octets: u64) -> Result<Self, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let mut why = "no memory controller".into();
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, own) = (fields.next(), fields.next().unwrap_or_default());
            let (root, version) = match controllers {
                Some("memory") => ("/sys/fs/cgroup/memory", CgroupVersion::One),
                Some("") => ("/sys/fs/cgroup", CgroupVersion::Two),
                _ => continue,
            };
            let own = Path::new(root).join(own.trim_start_matches('/'));
            let limit = match version {
                CgroupVersion::One => "memory.limit_in_bytes",
                CgroupVersion::Two => "memory.max",
            };
            // A group with processes in it gives a controller to none beneath it: one further up
            // does.
            for above in own.ancestors().take_while(|path| path.starts_with(root)) {
                let path = above.join(format!("tftpool-test-{}", std::process::id()));
                let limited = fs::create_dir(&path)
                    .and_then(|()| fs::write(path.join(limit), octets.to_string()));
                match limited {
                    Ok(()) => return Ok(Self { path, version }),
                    Err(error) => why = format!("{}: {error}", path.display()),
                }
                let _ = fs::remove_dir(&path);
            }
        }
        Err(why)
    }

    /// A word for the shell that makes it a member.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ > '{}'", self.path.join("cgroup.procs").display())
    }

    /// The most that it has held, in octets, where the kernel says so.
    pub(crate) fn peak(&self) -> Option<u64> {
        let file = match self.version {
            CgroupVersion::One => "memory.max_usage_in_bytes",
            CgroupVersion::Two => "memory.peak",
        };
        let peak = fs::read_to_string(self.path.join(file)).ok()?;
        peak.trim().parse().ok()
    }

    /// How often it met its limit.
    pub(crate) fn hits(&self) -> u64 {
        match self.version {
            CgroupVersion::One => {
                let hits = fs::read_to_string(self.path.join("memory.failcnt"));
                let hits = hits.expect("a file of the group");
                hits.trim().parse().expect("a number")
            }
            CgroupVersion::Two => {
                let events = fs::read_to_string(self.path.join("memory.events"));
                let events = events.expect("a file of the group");
                let hits = events.lines().find_map(|line| line.strip_prefix("max "));
                hits.and_then(|hits| hits.parse().ok()).expect("a number")
            }
        }
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
