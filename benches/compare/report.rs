//! From samples to medians, from medians to a table for people and one for machines.

use crate::contenders::Role;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One run of one server in one row. A failed run has `note` and no figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) figures: BTreeMap<Figure, f64>,
    pub(crate) note: String,
    /// The share of the machine that others took meanwhile.
    pub(crate) others: f64,
}

/// What is measured. The order is that of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    MibPerSecond,
    TransfersPerSecond,
    CpuSecondsPerGib,
    CpuMicrosPerTransfer,
    Served,
    LastMillis,
    P99Millis,
    P50Millis,
    FirstReplyP99Millis,
    WastedPercent,
    CallsPerBlock,
    BlocksPerSend,
    PrivateMib,
    Threads,
    IdlePrivateMib,
    BinaryMib,
    FirstAnswerMillis,
}

impl Figure {
    fn heading(self) -> &'static str {
        match self {
            Self::MibPerSecond => "MiB/s",
            Self::TransfersPerSecond => "transfers/s",
            Self::CpuSecondsPerGib => "CPU-s/GiB",
            Self::CpuMicrosPerTransfer => "CPU µs/transfer",
            Self::Served => "served %",
            Self::LastMillis => "last done ms",
            Self::P99Millis => "p99 ms",
            Self::P50Millis => "p50 ms",
            Self::FirstReplyP99Millis => "first reply p99 ms",
            Self::WastedPercent => "wasted blocks %",
            Self::CallsPerBlock => "calls/block",
            Self::BlocksPerSend => "blocks/send",
            Self::PrivateMib => "private MiB",
            Self::Threads => "threads",
            Self::IdlePrivateMib => "private MiB idle",
            Self::BinaryMib => "binary MiB",
            Self::FirstAnswerMillis => "exec to answer ms",
        }
    }

    fn key(self) -> String {
        let mut key = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !key.is_empty() {
                key.push('_');
            }
            key.push(letter.to_ascii_lowercase());
        }
        key
    }

    /// The figures that are also shown as a ratio, and whether more is better.
    fn compared(self) -> Option<bool> {
        match self {
            Self::MibPerSecond | Self::TransfersPerSecond => Some(true),
            Self::CpuSecondsPerGib | Self::CpuMicrosPerTransfer | Self::P99Millis => Some(false),
            _ => None,
        }
    }
}

/// What one server did in one row.
pub(crate) struct Entry {
    pub(crate) server: &'static str,
    pub(crate) role: Role,
    pub(crate) samples: Vec<Sample>,
}

impl Entry {
    fn median(&self, figure: Figure) -> Option<f64> {
        let mut values: Vec<f64> = self
            .samples
            .iter()
            .filter_map(|sample| sample.figures.get(&figure).copied())
            .collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(values[middle]),
            _ => Some((values[middle - 1] + values[middle]) / 2.0),
        }
    }

    /// What was unusual, each thing once.
    fn notes(&self) -> String {
        let mut notes: Vec<String> = self
            .samples
            .iter()
            .map(|sample| sample.note.clone())
            .collect();
        let others = self
            .samples
            .iter()
            .map(|sample| sample.others)
            .fold(0.0, f64::max);
        if others > 0.1 {
            notes.push(format!(
                "disturbed: others took {:.0} % of the machine",
                100.0 * others
            ));
        }
        notes.retain(|note| !note.is_empty());
        notes.sort_unstable();
        notes.dedup();
        notes.join("; ")
    }

    fn failed(&self) -> bool {
        self.samples.iter().all(|sample| sample.figures.is_empty())
    }
}

/// One finished row.
pub(crate) struct Table {
    pub(crate) row: String,
    pub(crate) entries: Vec<Entry>,
}

impl Table {
    /// As a Markdown table. Ratios are to the first limit (the bare sender; in crowds the floor) and to the best rival.
    pub(crate) fn markdown(&self) -> String {
        let mut columns: Vec<Figure> = self
            .entries
            .iter()
            .flat_map(|entry| &entry.samples)
            .flat_map(|sample| sample.figures.keys().copied())
            .collect();
        columns.sort_unstable();
        columns.dedup();
        let mut text = format!("\n### {}\n\n| server |", self.row);
        for column in &columns {
            let _ = write!(text, " {} |", column.heading());
            if column.compared().is_some() {
                text.push_str(" × limit | × best rival |");
            }
        }
        text.push_str(" note |\n| --- |");
        for column in &columns {
            text.push_str(if column.compared().is_some() {
                " ---: | ---: | ---: |"
            } else {
                " ---: |"
            });
        }
        text.push_str(" --- |\n");
        for entry in &self.entries {
            let _ = write!(text, "| {} |", entry.server);
            for &column in &columns {
                let value = entry.median(column);
                let _ = write!(text, " {} |", number(value));
                if column.compared().is_some() {
                    let limit = self.limit(column);
                    let rival = (entry.role == Role::Own)
                        .then(|| self.best_rival(column))
                        .flatten();
                    let _ = write!(text, " {} | {} |", ratio(value, limit), ratio(value, rival));
                }
            }
            let failed = if entry.failed() { "**failed** " } else { "" };
            let _ = writeln!(text, " {failed}{} |", entry.notes());
        }
        text
    }

    fn limit(&self, figure: Figure) -> Option<f64> {
        let limit = self
            .entries
            .iter()
            .find(|entry| entry.role == Role::Limit)?;
        limit.median(figure)
    }

    /// The best value of a rival that served everybody: who turns clients away is fast and cheap for the rest.
    fn best_rival(&self, figure: Figure) -> Option<f64> {
        let values = self
            .entries
            .iter()
            .filter(|entry| entry.role == Role::Rival)
            .filter(|entry| {
                entry
                    .median(Figure::Served)
                    .is_none_or(|served| served >= 100.0)
            })
            .filter_map(|entry| entry.median(figure));
        if figure.compared()? {
            values.max_by(f64::total_cmp)
        } else {
            values.min_by(f64::total_cmp)
        }
    }

    /// As one JSON object.
    pub(crate) fn json(&self) -> String {
        let entries: Vec<String> = self.entries.iter().map(Entry::json).collect();
        format!(
            "{{\"row\":{},\"servers\":[{}]}}",
            quoted(&self.row),
            entries.join(",")
        )
    }
}

impl Entry {
    fn json(&self) -> String {
        let samples: Vec<String> = self
            .samples
            .iter()
            .map(|sample| {
                let mut fields: Vec<String> = sample
                    .figures
                    .iter()
                    .map(|(figure, value)| format!("{}:{value}", quoted(&figure.key())))
                    .collect();
                fields.push(format!("\"others\":{:.3}", sample.others));
                if !sample.note.is_empty() {
                    fields.push(format!("\"note\":{}", quoted(&sample.note)));
                }
                format!("{{{}}}", fields.join(","))
            })
            .collect();
        format!(
            "{{\"server\":{},\"role\":{},\"samples\":[{}]}}",
            quoted(self.server),
            quoted(&format!("{:?}", self.role).to_lowercase()),
            samples.join(",")
        )
    }
}

/// Three digits that count.
fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn ratio(value: Option<f64>, to: Option<f64>) -> String {
    match (value, to) {
        (Some(value), Some(to)) if to > 0.0 => format!("{:.2}", value / to),
        _ => "–".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
