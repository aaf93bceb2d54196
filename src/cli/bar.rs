//! One line for one file on a terminal: size, rate, time, round trip and retransmits.
//!
//! The width of the terminal is read each time, the line never fills it, and the cursor returns to
//! the start of the line. A terminal that gets narrower wraps the line behind the cursor, so
//! erasing from the cursor on removes all of it.

use super::format::{self, binary, millis, shown};
use crate::client::{Client, Progress};
use std::collections::VecDeque;
use std::io::{IsTerminal, Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Erases from the cursor to the end of the screen (ECMA-48 ED).
const ERASE: &str = "\r\x1b[J";
/// Columns where the terminal does not tell.
const COLUMNS: usize = 80;
/// The rate is that of this time.
const RATE_TIME: Duration = Duration::from_secs(5);
/// Columns that are kept for the name, if it has as many.
const LEAST_NAME: usize = 12;
/// Columns of a name that is cut, at least.
const LEGIBLE_NAME: usize = 6;
/// Columns of the bar itself, with its brackets.
const BAR: std::ops::RangeInclusive<usize> = 12..=42;

/// A line, or none. Gone from the screen when dropped.
pub(super) struct Bar(Option<Arc<Mutex<Screen>>>);

impl Bar {
    /// Shown if it is wanted and stderr is a terminal that can erase.
    pub(super) fn new(label: &str, is_wanted: bool) -> Self {
        let can_erase = || std::env::var_os("TERM").is_some_and(|name| name != "dumb");
        let is_shown = is_wanted && stderr().is_terminal() && can_erase();
        Self(is_shown.then(|| {
            let mut screen = Screen {
                label: shown(label),
                line: String::new(),
                samples: VecDeque::new(),
            };
            screen.draw(&Seen::default());
            Arc::new(Mutex::new(screen))
        }))
    }

    /// The client, whose progress is shown from now on.
    pub(super) fn follow(&self, client: Client) -> Client {
        let Some(screen) = self.0.clone() else {
            return client;
        };
        client.progress(move |progress| {
            let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
            let rate = screen.rate(progress.elapsed, progress.bytes);
            screen.draw(&Seen::new(progress, rate));
        })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.0.is_some() {
            let _ = stderr().write_all(ERASE.as_bytes());
        }
    }
}

/// What is on the screen.
struct Screen {
    label: String,
    line: String,
    /// When how many bytes had arrived, the oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Screen {
    fn draw(&mut self, seen: &Seen) {
        let size = terminal_size::terminal_size_of(stderr());
        let columns = size.map_or(COLUMNS, |(width, _)| width.0.into());
        let line = line(&self.label, seen, columns);
        if line != self.line {
            let _ = stderr().write_all(format!("{ERASE}{line}\r").as_bytes());
            self.line = line;
        }
    }

    /// Bytes a second, over the last few.
    fn rate(&mut self, elapsed: Duration, bytes: u64) -> Option<u64> {
        // The time before the first bytes says nothing about the rate; a further attempt starts
        // over.
        if bytes == 0 || self.samples.back().is_some_and(|(_, last)| *last > bytes) {
            self.samples.clear();
        }
        self.samples.push_back((elapsed, bytes));
        while self.samples.len() > 2 && self.samples[1].0 + RATE_TIME < elapsed {
            self.samples.pop_front();
        }
        let (since, before) = *self.samples.front()?;
        let time = elapsed.saturating_sub(since);
        let rate = format::rate(bytes.saturating_sub(before), time);
        rate.filter(|_| !time.is_zero())
    }
}

/// What the line tells.
#[derive(Default)]
struct Seen {
    bytes: u64,
    size: Option<u64>,
    rate: Option<u64>,
    elapsed: Duration,
    rtt: Option<Duration>,
    retransmits: u64,
}

impl Seen {
    fn new(progress: &Progress, rate: Option<u64>) -> Self {
        Self {
            bytes: progress.bytes,
            size: progress.size,
            rate,
            elapsed: progress.elapsed,
            rtt: progress.rtt,
            retransmits: progress.retransmits,
        }
    }

    fn is_waiting(&self) -> bool {
        self.bytes == 0 && self.rtt.is_none()
    }

    /// What is always told.
    fn amount(&self) -> String {
        match self.size {
            _ if self.is_waiting() => "waiting for an answer".into(),
            Some(size) => format!("{}/{}", binary(self.bytes), binary(size)),
            None => binary(self.bytes),
        }
    }

    fn time(&self) -> String {
        let left = self.size.zip(self.rate).filter(|_| !self.is_waiting());
        match left {
            Some((size, rate)) => format!(
                "ETA {}",
                clock(size.saturating_sub(self.bytes) / rate.max(1))
            ),
            None => clock(self.elapsed.as_secs()),
        }
    }

    /// The size of the file where a bar can show how much of it has come.
    fn whole(&self) -> Option<u64> {
        self.size.filter(|size| *size > 0 && !self.is_waiting())
    }
}

/// Composes the line for a terminal of this width, at least one column shorter. Parts that do not
/// fit are left out, the least important first; a long name loses its start.
fn line(label: &str, seen: &Seen, columns: usize) -> String {
    let most = columns.saturating_sub(1);
    let amount = seen.amount();
    let for_name = most.saturating_sub(width(&amount) + 1);
    let mut least_name = LEAST_NAME.min(width(label)).min(for_name);
    if least_name < width(label).min(LEGIBLE_NAME) {
        least_name = 0;
    }
    let mut room = for_name - least_name;
    let mut take = |part: Option<String>| {
        let part = part.filter(|part| width(part) < room)?;
        room -= width(&part) + 1;
        Some(part)
    };
    let rate = take(seen.rate.map(|rate| format!("{}/s", binary(rate))));
    let time = take(Some(seen.time()));
    let bar = take(seen.whole().map(|_| " ".repeat(*BAR.start())));
    let rtt = take(seen.rtt.map(|rtt| format!("rtt {}", millis(rtt))));
    let resent = take((seen.retransmits > 0).then(|| format!("{} resent", seen.retransmits)));
    let name = match least_name {
        0 => String::new(),
        _ => cut(label, least_name + room),
    };
    room = (room + least_name).saturating_sub(width(&name));
    let bar = bar.zip(seen.whole()).map(|(bar, size)| {
        let columns = BAR.end().min(&(width(&bar) + room)) - 2;
        let full = u128::from(seen.bytes.min(size)) * columns as u128 / u128::from(size);
        let full = "=".repeat(full as usize);
        let head = if full.len() < columns { ">" } else { "" };
        format!("[{:columns$}]", full + head)
    });
    let parts = [Some(name), bar, Some(amount), rate, time, rtt, resent];
    let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
    cut_end(&parts.collect::<Vec<_>>().join(" "), most)
}

/// Columns that a text takes at most: letters outside ASCII may be wide.
fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn columns(letter: char) -> usize {
    if letter.is_ascii() { 1 } else { 2 }
}

/// The end of a text that is too long, behind dots.
fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.into();
    }
    let dots = "...";
    let mut left = most.saturating_sub(dots.len());
    let end: Vec<char> = text
        .chars()
        .rev()
        .take_while(|letter| {
            let fits = columns(*letter) <= left;
            left = left.saturating_sub(columns(*letter));
            fits
        })
        .collect();
    dots.chars()
        .chain(end.into_iter().rev())
        .take(most)
        .collect()
}

/// The start of a text that is too long.
fn cut_end(text: &str, most: usize) -> String {
    let mut left = most;
    text.chars()
        .take_while(|letter| {
            let fits = columns(*letter) <= left;
            left = left.saturating_sub(columns(*letter));
            fits
        })
        .collect()
}

/// `7s`, `3:07`, `2:03:07`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            bytes: 26 << 20,
            size: Some(40 << 20),
            rate: Some(6 << 20),
            elapsed: Duration::from_secs(4),
            rtt: Some(Duration::from_micros(4550)),
            retransmits: 6,
        }
    }

    #[test]
    fn the_line_suits_the_terminal() {
        let name = "bzImage-6.12.41-arm64-lts";
        assert_eq!(
            line(name, &seen(), 200),
            "bzImage-6.12.41-arm64-lts [==========================>             ] 26.0 MiB/40.0 MiB 6.0 MiB/s ETA 2s rtt 4.55 ms 6 resent"
        );
        assert_eq!(
            line(name, &seen(), 80),
            "....12.41-arm64-lts [======>   ] 26.0 MiB/40.0 MiB 6.0 MiB/s ETA 2s rtt 4.55 ms"
        );
        assert_eq!(
            line(name, &seen(), 40),
            "...1-arm64-lts 26.0 MiB/40.0 MiB ETA 2s"
        );
        assert_eq!(line("a", &seen(), 30), "a 26.0 MiB/40.0 MiB 6.0 MiB/s");
        assert_eq!(line(name, &seen(), 26), "...-lts 26.0 MiB/40.0 MiB");
        assert_eq!(line(name, &seen(), 24), "26.0 MiB/40.0 MiB");
        assert_eq!(line(name, &seen(), 10), "26.0 MiB/");
        assert_eq!(line(name, &seen(), 0), "");
    }

    #[test]
    fn no_line_is_as_wide_as_the_terminal() {
        let many = Seen {
            bytes: u64::MAX / 2,
            size: Some(u64::MAX),
            rate: Some(1),
            elapsed: Duration::MAX,
            rtt: Some(Duration::from_secs(100)),
            retransmits: u64::MAX,
        };
        let empty = Seen {
            size: Some(0),
            ..Seen::default()
        };
        for seen in [&seen(), &many, &empty, &Seen::default()] {
            for label in ["", "a", "x/日本語のファイル名.bin", &"long".repeat(40)] {
                for columns in 0..300 {
                    let line = line(label, seen, columns);
                    let most = columns.saturating_sub(1);
                    assert!(width(&line) <= most, "{columns}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_line_says_that_there_is_no_answer_yet() {
        let mut waiting = Seen {
            size: Some(1000),
            elapsed: Duration::from_secs(67),
            ..Seen::default()
        };
        assert_eq!(
            line("file", &waiting, 80),
            "file waiting for an answer 1:07"
        );
        waiting.retransmits = 3;
        assert_eq!(
            line("file", &waiting, 80),
            "file waiting for an answer 1:07 3 resent"
        );
        waiting.rtt = Some(Duration::from_millis(1));
        assert!(line("file", &waiting, 80).contains("0 B/1000 B"));
    }

    #[test]
    fn a_bar_is_full_at_the_end_only() {
        let at = |bytes| {
            let seen = Seen {
                bytes,
                size: Some(1000),
                ..Seen::default()
            };
            line("f", &seen, 40)
        };
        assert_eq!(at(999), "f [==================>] 999 B/1000 B 0s");
        assert_eq!(at(1000), "f [==================] 1000 B/1000 B 0s");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut screen = Screen {
            label: String::new(),
            line: String::new(),
            samples: VecDeque::new(),
        };
        let second = Duration::from_secs;
        assert_eq!(screen.rate(second(1), 0), None);
        assert_eq!(screen.rate(second(10), 0), None);
        assert_eq!(screen.rate(second(11), 1000), Some(1000));
        for n in 12..=30 {
            screen.rate(second(n), 1000 + (n - 11) * 50);
        }
        assert_eq!(screen.rate(second(31), 2000), Some(50));
        assert_eq!(screen.rate(second(32), 10), None, "a further attempt");
    }

    #[test]
    fn times_are_short() {
        let clocks = [0, 59, 60, 3599, 3600, 90_061].map(clock);
        assert_eq!(
            clocks,
            ["0s", "59s", "1:00", "59:59", "1:00:00", "25:01:01"]
        );
    }
}
