//! The matrix: what is fetched in each row, by whom, and on which CPUs.

use crate::client::Fetch;
use crate::load::Crowd;
use std::time::Duration;

/// One row of the comparison.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Only run where `ROWS` names it.
    pub(crate) on_request: bool,
    pub(crate) fetch: Fetch,
    pub(crate) work: Work,
    /// This many other clients have acknowledged one block before the measurement, and are silent.
    pub(crate) silent: usize,
    /// Server and client share one CPU. Otherwise the scheduler decides, and on virtual machines a
    /// wake-up on the other CPU costs more than all the rest: one and the same server is four times
    /// faster or slower.
    pub(crate) pinned: bool,
    pub(crate) limit: Duration,
}

/// What the load does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Single,
    Crowd(Crowd),
    /// Transfers whose clients fall silent: what does a waiting transfer cost?
    Parked(usize),
    /// Clients as processes, fetching from the server of this name.
    Tools(&'static str),
    /// Nothing: what does a server cost that nobody asks?
    Idle,
}

impl Row {
    /// The row as others have to do it: where they are many times slower, they get less to do,
    /// because CPU time and throughput are the same for a shorter file; and they are not waited for
    /// as long.
    pub(crate) fn for_rival(&self) -> Row {
        let mut row = self.clone();
        match &mut row.work {
            Work::Single if row.fetch.windowsize > 1 && row.fetch.blksize < 8192 => {
                row.fetch.size /= 8;
                row.fetch.name = format!("f-{}", row.fetch.size);
            }
            Work::Crowd(_) => row.limit = row.limit.min(RIVALS_LIMIT),
            Work::Parked(count) => *count = (*count).min(RIVALS_PARKED),
            _ => {}
        }
        row
    }

    /// Whether the rate is counted in transfers: the files are so small that blocks hardly matter.
    pub(crate) fn counts_transfers(&self) -> bool {
        self.fetch.blocks() <= 8
    }

    pub(crate) fn needs_windows(&self) -> bool {
        self.fetch.windowsize > 1 && matches!(self.work, Work::Single)
    }
}

const MIB: u64 = 1 << 20;
/// How long a rival's crowd is waited for. What it has not served by then counts as not served.
const RIVALS_LIMIT: Duration = Duration::from_secs(15);
/// As many waiting transfers as those survive that spend a process or a thread on each.
const RIVALS_PARKED: usize = 200;

/// All rows. `quick` takes an eighth of the work: for a look, not for a figure.
/// `spread` pins nothing.
pub(crate) fn all(quick: bool, spread: bool) -> Vec<Row> {
    // MiB for runs of 0.3 s and more. In lock step the files stay below one turn of the block
    // numbers.
    const SINGLE: [(u16, u16, u64); 14] = [
        (512, 1, 30),
        (1428, 1, 80),
        (8192, 1, 384),
        (65464, 1, 1536),
        (512, 16, 192),
        (1428, 16, 512),
        (512, 64, 192),
        (1428, 64, 768),
        (1428, 512, 768),
        (1428, 65535, 768),
        (8192, 16, 768),
        (8192, 64, 768),
        (65464, 16, 1536),
        (65464, 64, 1536),
    ];
    let part = if quick { 8 } else { 1 };
    let mut rows: Vec<Row> = SINGLE
        .into_iter()
        .map(|(blksize, window, mib)| single(blksize, window, mib * MIB / part, window > 1))
        .collect();
    for window in [16, 64] {
        rows.push(single(1428, window, 256 * MIB / part, false));
    }
    for clients in [100, 1000, 5000] {
        rows.push(crowd(
            &format!("storm {clients} x 1 MiB"),
            MIB,
            16,
            Crowd::Storm(clients),
        ));
    }
    let time = Duration::from_millis(2000 / part);
    rows.push(crowd(
        "64 x 1 KiB endless",
        1024,
        1,
        Crowd::Endless(64, time),
    ));
    for (clients, size) in [(2, MIB), (20, MIB), (200, MIB), (2000, MIB / 16)] {
        for blksize in [512, 1428] {
            let name = format!("{CROWD}{clients} blksize {blksize}");
            rows.push(lock_step(&name, blksize, size, clients, time));
        }
    }
    rows.push(Row {
        silent: 2000,
        ..lock_step(SILENT, 1428, MIB, 20, time)
    });
    let parked = 5000 / part as usize;
    rows.push(Row {
        work: Work::Parked(parked),
        ..crowd(&format!("parked {parked}"), 64 * MIB, 16, Crowd::Storm(1))
    });
    rows.push(Row {
        work: Work::Idle,
        ..crowd("idle", 1024, 1, Crowd::Storm(1))
    });
    let defaults = 16 * MIB / part; // below one turn of the block numbers at 512 octets
    for server in ["tftpd-hpa", "tftpool"] {
        rows.push(Row {
            name: format!("clients at their defaults, from {server}"),
            work: Work::Tools(server),
            ..single(512, 1, defaults, false)
        });
    }
    rows.push(Row {
        name: "clients with 1428 x 64, from the bare sender".to_owned(),
        work: Work::Tools("bare sender"),
        ..single(1428, 64, 256 * MIB / part, true)
    });
    for clients in [1, 10, 100, 1000, 2000, 5000, 10_000] {
        let row = crowd(&format!("curve {clients}"), MIB, 16, Crowd::Storm(clients));
        rows.push(Row {
            on_request: true,
            limit: Duration::from_secs(60),
            ..row
        });
    }
    if spread {
        rows.iter_mut().for_each(|row| row.pinned = false);
    }
    rows
}

fn single(blksize: u16, windowsize: u16, size: u64, coalesce: bool) -> Row {
    let plain = windowsize > 1 && !coalesce;
    Row {
        name: format!(
            "{blksize} x {windowsize}{}",
            if plain { " no GRO" } else { "" }
        ),
        on_request: false,
        fetch: Fetch {
            name: format!("f-{size}"),
            size,
            blksize,
            windowsize,
            coalesce,
        },
        work: Work::Single,
        silent: 0,
        pinned: true,
        limit: Duration::from_secs(30),
    }
}

/// How the names of the rows of lock-step crowds begin.
pub(crate) const CROWD: &str = "crowd ";

/// The row of a lock-step crowd beside silent clients.
pub(crate) const SILENT: &str = "20 + 2000 silent";

/// Clients without windows. Each fetches one file after the other until the time is over.
fn lock_step(name: &str, blksize: u16, size: u64, clients: usize, time: Duration) -> Row {
    let mut row = crowd(name, size, 1, Crowd::Endless(clients, time));
    row.fetch.blksize = blksize;
    row
}

fn crowd(name: &str, size: u64, windowsize: u16, crowd: Crowd) -> Row {
    let row = single(1428, windowsize, size, windowsize > 1);
    Row {
        name: name.to_owned(),
        work: Work::Crowd(crowd),
        pinned: false,
        ..row
    }
}
