//! The matrix: what is fetched in each row, by whom, and on which CPUs.

use crate::client::Fetch;
use crate::load::Crowd;
use std::time::Duration;

/// One row of the comparison.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) fetch: Fetch,
    pub(crate) work: Work,
    /// Server and client share one CPU. Otherwise the scheduler decides, and on virtual machines a wake-up on the other
    /// CPU costs more than all the rest: one and the same server is four times faster or slower.
    pub(crate) pinned: bool,
    pub(crate) limit: Duration,
}

/// What the load does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Single,
    Crowd(Crowd),
    /// Nothing: what does a server cost that nobody asks?
    Idle,
}

impl Row {
    pub(crate) fn needs_windows(&self) -> bool {
        self.fetch.windowsize > 1 && matches!(self.work, Work::Single)
    }
}

const MIB: u64 = 1 << 20;

/// All rows. `quick` takes an eighth of the work: for a look, not for a figure.
/// `spread` pins nothing.
pub(crate) fn all(quick: bool, spread: bool) -> Vec<Row> {
    // MiB for runs of 0.3 s and more. In lock step the files stay below one turn of the block numbers.
    const SINGLE: [(u16, u16, u64); 14] = [
        (512, 1, 30),
        (1428, 1, 80),
        (8192, 1, 384),
        (65464, 1, 1536),
        (512, 16, 192),
        (1428, 16, 512),
        (8192, 16, 768),
        (65464, 16, 1536),
        (512, 64, 256),
        (1428, 64, 768),
        (8192, 64, 768),
        (65464, 64, 1536),
        (1428, 512, 768),
        (1428, 65535, 768),
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
    rows.push(Row {
        work: Work::Idle,
        ..crowd("idle", 1024, 1, Crowd::Storm(1))
    });
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
        fetch: Fetch {
            name: format!("f-{size}"),
            size,
            blksize,
            windowsize,
            coalesce,
        },
        work: Work::Single,
        pinned: true,
        limit: Duration::from_secs(30),
    }
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
