//! All answers: what they recommend, as a table for people and as JSON.

use super::LEAST_SAMPLE;
use super::ask::{Answer, Row};
use crate::cli::place::Place;
use crate::cli::{Exit, format, json};
use crate::limits;
use crate::wire::OptionName;
use std::fmt::Write as _;
use std::net::SocketAddr;

pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    /// The largest block that the route to the server carries in one piece, as far as this machine
    /// knows.
    pub(super) room: Option<usize>,
}

impl Report {
    fn knows_options(&self) -> bool {
        self.rows.iter().any(|row| row.agreed().is_some())
    }

    /// Block sizes to time: the client's own, and the two largest that come through and stay within
    /// the route's MTU.
    pub(super) fn sizes(&self) -> Vec<u16> {
        let room = self.room.unwrap_or(usize::MAX);
        let works = |row: &&Row| row.block_works() && row.octets <= room;
        let all = self.rows.iter().filter(works);
        let sizes = chosen(all.map(|row| row.octets as u16), limits::CLIENT_BLKSIZE);
        or_plain(sizes, limits::DEFAULT_BLKSIZE)
    }

    /// Windows to time: the client's own, and the two largest that come through.
    pub(super) fn windows(&self) -> Vec<u16> {
        let granted = |row: &Row| u16::try_from(row.granted(OptionName::Windowsize)?).ok();
        let all = self.rows.iter().filter(|row| row.window_works());
        or_plain(
            chosen(all.filter_map(granted), limits::CLIENT_WINDOWSIZE),
            1,
        )
    }

    /// The fastest block size and window. Larger ones must be a tenth faster than smaller ones:
    /// less is noise.
    fn best(&self) -> (u16, u16) {
        let timings = self.rows.iter().filter_map(Row::timing);
        let timed = timings.filter(|timing| timing.octets >= LEAST_SAMPLE);
        let best = timed.reduce(|best, next| {
            let is_faster = 10 * next.octets_per_second() > 11 * best.octets_per_second();
            if is_faster { next } else { best }
        });
        match best {
            Some(timing) => (timing.blksize, timing.windowsize),
            // Nothing was timed: what works, up to what a client asks for on its own.
            None => (self.sizes()[0], self.windows()[0]),
        }
    }

    /// The best settings as options of `tftpool get`; `None` where nothing works.
    fn advice(&self) -> Option<String> {
        self.rows
            .iter()
            .find(|row| matches!(row.answer, Answer::Data(_)) && row.options.is_empty())?;
        Some(match self.best() {
            (limits::DEFAULT_BLKSIZE, 1) => "--no-options".into(),
            (size, window) => format!("--blksize {size} --windowsize {window}"),
        })
    }

    pub(super) fn exit(&self) -> Exit {
        let mut exits = self.rows.iter().map(|row| match &row.answer {
            Answer::Error(code, _) => Exit::of(*code),
            Answer::Trouble(_) => Exit::FAILURE,
            Answer::Closed => Exit::PORT_CLOSED,
            _ if row.is_heard() => Exit::SUCCESS,
            _ => Exit::TIMED_OUT,
        });
        match self.advice() {
            Some(_) => Exit::SUCCESS,
            None => exits.next().unwrap_or(Exit::FAILURE),
        }
    }

    pub(super) fn table(&self, place: &Place) -> String {
        let mut cells = vec![["asked for", "got", "from", "time", "verdict"].map(str::to_owned)];
        for row in &self.rows {
            let heard = |text: &dyn Fn(SocketAddr) -> String| row.from.map_or("-".into(), text);
            cells.push([
                row.asked.clone(),
                row.got(),
                heard(&|from| from.to_string()),
                heard(&|_| format::millis(row.time)),
                row.verdict(self.knows_options()),
            ]);
        }
        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
        let mut table = format!("{place}\n\n");
        for [asked, got, from, time, verdict] in &cells {
            let _ = writeln!(
                table,
                "{asked:first$}  {got:second$}  {from:third$}  {time:>fourth$}  {verdict}"
            );
        }
        table.push('\n');
        if let Some(room) = self.room {
            let _ = writeln!(
                table,
                "the route carries blocks of {room} octets in one piece"
            );
        }
        match self.advice() {
            Some(best) => {
                let _ = writeln!(table, "best settings: {best}");
            }
            None => table.push_str("nothing works here\n"),
        }
        table
    }

    pub(super) fn json(&self) -> String {
        let mut lines = String::new();
        for row in &self.rows {
            let mut line = json::Object::new();
            line.text("asked", &row.options.to_string())
                .text("server", &row.server.to_string())
                .text("got", &row.got())
                .text("verdict", &row.verdict(self.knows_options()));
            if let Some(from) = row.from {
                line.text("from", &from.to_string())
                    .number("us", row.time.as_micros());
                match row.timing() {
                    Some(timing) => line
                        .number("octets", timing.octets)
                        .number("blksize", timing.blksize)
                        .number("windowsize", timing.windowsize),
                    None => line
                        .number("blocks", row.blocks)
                        .number("octets", row.octets),
                };
            }
            lines.push_str(&line.line());
        }
        let mut line = json::Object::new();
        let (size, window) = self.best();
        line.boolean("works", self.advice().is_some())
            .number("blksize", size)
            .number("windowsize", window);
        if let Some(room) = self.room {
            line.number("room", room);
        }
        lines.push_str(&line.line());
        lines
    }
}

/// Of these numbers the `usual` one, or the largest below it, and the two largest, in order.
fn chosen(numbers: impl Iterator<Item = u16>, usual: u16) -> Vec<u16> {
    let mut all: Vec<u16> = numbers.collect();
    all.sort_unstable();
    all.dedup();
    let below = all.iter().filter(|number| **number <= usual).count();
    all.drain(..below.saturating_sub(1));
    if all.len() > 3 {
        all.drain(1..all.len() - 2);
    }
    all
}

/// These, or what holds without options where there are none.
fn or_plain(numbers: Vec<u16>, plain: u16) -> Vec<u16> {
    match numbers.is_empty() {
        true => vec![plain],
        false => numbers,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::Timing;
    use super::*;
    use crate::text::Name;
    use crate::wire::{ErrorCode, Options};
    use std::time::Duration;

    fn row(options: Options, answer: Answer) -> Row {
        Row::answered(options, answer)
    }

    fn asked(name: OptionName, value: u64) -> Options {
        Options::default().with(name, value)
    }

    fn report(sizes: &[u16], windows: &[u16]) -> Report {
        let agreed = |name, number: u16, blocks, octets: u16| Row {
            blocks,
            octets: octets.into(),
            ..row(
                asked(name, number.into()),
                Answer::Agreed(asked(name, number.into())),
            )
        };
        let size = |size: &u16| agreed(OptionName::Blksize, *size, 1, *size);
        let window = |window: &u16| agreed(OptionName::Windowsize, *window, (*window).min(64), 512);
        let plain = row(Options::default(), Answer::Data(512));
        let rows = [plain].into_iter();
        let rows = rows.chain(sizes.iter().map(size));
        Report {
            rows: rows.chain(windows.iter().map(window)).collect(),
            room: Some(8192),
        }
    }

    #[test]
    fn the_usual_pair_and_the_largest_within_the_mtu_are_timed() {
        let all = report(&[1024, 1428, 1468, 8192, 32768], &[4, 16, 64, 256]);
        assert_eq!(all.sizes(), [1428, 1468, 8192]);
        assert_eq!(all.windows(), [16, 64], "256 lost blocks");
        let few = report(&[1024], &[4]);
        assert_eq!((few.sizes(), few.windows()), (vec![1024], vec![4]));
        let large = report(&[8192], &[]);
        assert_eq!((large.sizes(), large.windows()), (vec![8192], vec![1]));
        assert_eq!(chosen([9, 1, 2, 3, 4, 5, 3].into_iter(), 3), [3, 5, 9]);
    }

    /// Each pair with its rate in MiB/s, and the bytes that came.
    fn timed(report: &mut Report, timings: &[(u16, u16, u64)], octets: u64) {
        report
            .rows
            .extend(timings.iter().map(|&(blksize, windowsize, rate)| {
                let timing = Timing {
                    blksize,
                    windowsize,
                    octets,
                    time: Duration::from_micros(octets * 1_000_000 / (rate << 20)),
                    lossy_windows: 0,
                };
                row(Options::default(), Answer::Timed(Ok(timing)))
            }));
    }

    #[test]
    fn the_fastest_pair_is_recommended_and_not_the_largest() {
        let mut report = report(&[1024, 1428, 8192], &[16, 64]);
        assert_eq!(
            report.advice().as_deref(),
            Some("--blksize 1428 --windowsize 16"),
            "nothing was timed"
        );
        let timings = [
            (1428, 16, 400),
            (1428, 64, 430),
            (8192, 16, 900),
            (8192, 64, 70),
        ];
        timed(&mut report, &timings, LEAST_SAMPLE - 1);
        assert_eq!(report.best(), (1428, 16), "the file is too small");
        let verdict = report.rows.last().map(|row| row.verdict(true));
        assert_eq!(
            verdict.as_deref(),
            Some("70.0 MiB/s with blksize 8192, window 64; the file is too small to show it")
        );
        timed(&mut report, &timings, 16 << 20);
        assert_eq!(
            report.advice().as_deref(),
            Some("--blksize 8192 --windowsize 16")
        );
        let mut noise = self::report(&[1428], &[16, 64]);
        timed(&mut noise, &timings[..2], 16 << 20);
        assert_eq!(noise.best(), (1428, 16), "not a tenth faster");
        let old = self::report(&[], &[]);
        assert_eq!(old.advice().as_deref(), Some("--no-options"));
    }

    #[test]
    fn what_a_server_says_cannot_move_the_cursor() {
        let text = Name::new(b"\x1b[2Jgone\r\n");
        let report = Report {
            rows: vec![row(Options::default(), Answer::Error(ErrorCode(1), text))],
            room: None,
        };
        let place = "h:f".parse().expect("a place");
        let shown = report.table(&place) + &report.json();
        assert!(!shown.contains(['\x1b', '\r']), "{shown:?}");
        assert_eq!(report.exit(), Exit::of(ErrorCode(1)));
    }
}
