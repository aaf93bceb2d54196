//! What an answer says about the server, in words.

use super::LEAST_SAMPLE;
use super::ask::{Answer, Row, Timing};
use crate::limits;
use crate::wire::{ErrorCode, OptionName};
use std::fmt::Write as _;

impl Row {
    /// What came, in the words of the protocol.
    pub(super) fn got(&self) -> String {
        match &self.answer {
            Answer::NotAsked => "-".into(),
            Answer::Silence => "nothing".into(),
            Answer::Closed => "port is closed".into(),
            Answer::Trouble(_) => "no way there".into(),
            Answer::Error(code, text) => format!("ERROR {} {text}", code.0),
            Answer::Data(octets) => format!("DATA, {octets} octets"),
            Answer::Agreed(options) => format!("OACK {options}"),
            Answer::Timed(Ok(timing)) => format!("{} octets", timing.octets),
            Answer::Timed(Err(_)) => "no file".into(),
            Answer::Strange => "no TFTP".into(),
        }
    }

    /// What it means, at a server that knows some options or none.
    pub(super) fn verdict(&self, knows_options: bool) -> String {
        let asked: Vec<_> = self.options.iter().collect();
        match &self.answer {
            Answer::NotAsked => return "not tried: the time was over".into(),
            Answer::Silence if asked.is_empty() => {
                return "no answer: wrong address, a firewall, or no server".into();
            }
            Answer::Silence => return "no answer to a request with this option".into(),
            Answer::Closed => return "no server at this port".into(),
            Answer::Trouble(cause) => return format!("cannot be asked: {cause}"),
            Answer::Strange => return "something else than TFTP answers here".into(),
            Answer::Error(ErrorCode(1), _) => return "server does not have this file".into(),
            Answer::Error(ErrorCode(8), _) => return "server refuses this option".into(),
            Answer::Error(..) => return "server refuses".into(),
            Answer::Data(_) if asked.is_empty() => return self.origin().into(),
            Answer::Data(_) if !knows_options => return "server ignores options".into(),
            Answer::Timed(Err(cause)) => return format!("cannot be timed: {cause}"),
            Answer::Timed(Ok(timing)) => return self.pace(timing),
            Answer::Data(_) => {}
            Answer::Agreed(_) => {}
        }
        let Some(&(name, wanted)) = asked.last() else {
            return "an OACK without a request for options".into();
        };
        let Some(granted) = self.granted(name) else {
            return format!("server ignores {}", name.as_str());
        };
        match name {
            _ if self.blocks == 0 => {
                if granted > u64::from(limits::DEFAULT_BLKSIZE) && name == OptionName::Blksize {
                    format!("blocks of {granted} never arrive: MTU or fragments")
                } else {
                    "agreed, but no data comes".into()
                }
            }
            OptionName::Tsize => format!("the file has {granted} octets"),
            _ if granted > wanted => "more than was asked for: a broken server".into(),
            OptionName::Blksize | OptionName::Blksize2 => {
                let full = self.octets as u64 == granted;
                match (granted == wanted, full) {
                    (true, true) => "works".into(),
                    (false, true) => format!("lowered to {granted}, works"),
                    (_, false) => "agreed; the file is too small to show it".into(),
                }
            }
            OptionName::Windowsize => {
                let lowered = if granted == wanted { "" } else { "lowered, " };
                match u64::from(self.blocks) == granted {
                    true => format!("{lowered}whole window arrives"),
                    false if self.is_whole => {
                        format!("{lowered}agreed; the file is too small to show it")
                    }
                    false => format!("{} of {granted} blocks arrive: loss", self.blocks),
                }
            }
            _ => "works".into(),
        }
    }

    /// The rate, and what differs from the settings that were asked for.
    fn pace(&self, timing: &Timing) -> String {
        let tenths = (timing.octets_per_second() * 10) >> 20;
        let mut words = format!("{}.{} MiB/s", tenths / 10, tenths % 10);
        let asked = |name| self.options.get(name).unwrap_or(1);
        let (size, window) = (asked(OptionName::Blksize), asked(OptionName::Windowsize));
        let (blksize, windowsize) = (timing.blksize, timing.windowsize);
        if (u64::from(blksize), u64::from(windowsize)) != (size, window) {
            let _ = write!(words, " with blksize {blksize}, window {windowsize}");
        }
        if timing.octets < LEAST_SAMPLE {
            words.push_str("; the file is too small to show it");
        }
        if timing.lossy_windows > 0 {
            let _ = write!(words, "; {} windows with loss", timing.lossy_windows);
        }
        words
    }

    /// Who answered, seen from who was asked.
    fn origin(&self) -> &'static str {
        match self.from {
            Some(from) if from.ip() != self.server.ip() => {
                "answers from another address: NAT or multi-homing"
            }
            Some(from) if from.port() == self.server.port() => {
                "answers from the port that was asked: single-port mode"
            }
            _ => "works",
        }
    }

    /// Blocks of this size came through.
    pub(super) fn block_works(&self) -> bool {
        self.granted(OptionName::Blksize) == Some(self.octets as u64)
    }

    /// A window of this size came through whole, or as far as the file goes.
    pub(super) fn window_works(&self) -> bool {
        let granted = self.granted(OptionName::Windowsize);
        self.blocks > 0 && (granted == Some(self.blocks.into()) || self.is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Name;
    use crate::wire::Options;

    fn row(options: Options, answer: Answer) -> Row {
        Row::answered(options, answer)
    }

    fn asked(name: OptionName, value: u64) -> Options {
        Options::default().with(name, value)
    }

    #[test]
    fn verdicts_are_words() {
        let (size, window) = (OptionName::Blksize, OptionName::Windowsize);
        let plain = |answer| row(Options::default(), answer);
        assert_eq!(plain(Answer::Data(512)).verdict(true), "works");
        let other = Row {
            from: Some(([192, 0, 2, 2], 4000).into()),
            ..plain(Answer::Data(512))
        };
        assert_eq!(
            other.verdict(true),
            "answers from another address: NAT or multi-homing"
        );
        let single = Row {
            from: Some(([192, 0, 2, 1], 69).into()),
            ..plain(Answer::Data(512))
        };
        assert_eq!(
            single.verdict(true),
            "answers from the port that was asked: single-port mode"
        );
        let ignored = row(asked(size, 1428), Answer::Data(512));
        assert_eq!(ignored.verdict(false), "server ignores options");
        let granted =
            |name, wanted, got| row(asked(name, wanted), Answer::Agreed(asked(name, got)));
        assert_eq!(
            granted(size, 8192, 8192).verdict(true),
            "blocks of 8192 never arrive: MTU or fragments"
        );
        let with = |row: Row, blocks, octets| Row {
            blocks,
            octets,
            ..row
        };
        assert_eq!(
            with(granted(size, 8192, 8192), 1, 8192).verdict(true),
            "works"
        );
        assert_eq!(
            with(granted(size, 8192, 1432), 1, 1432).verdict(true),
            "lowered to 1432, works"
        );
        assert_eq!(
            with(granted(size, 8192, 9000), 1, 9000).verdict(true),
            "more than was asked for: a broken server"
        );
        assert_eq!(
            with(granted(window, 64, 32), 32, 512).verdict(true),
            "lowered, whole window arrives"
        );
        assert_eq!(
            with(granted(window, 64, 64), 9, 512).verdict(true),
            "9 of 64 blocks arrive: loss"
        );
        let tsize = with(granted(OptionName::Tsize, 0, 70_000), 1, 512);
        assert_eq!(tsize.verdict(true), "the file has 70000 octets");
        let refused = row(
            asked(size, 1428),
            Answer::Error(ErrorCode(8), Name::new(b"no")),
        );
        assert_eq!(refused.verdict(true), "server refuses this option");
    }
}
