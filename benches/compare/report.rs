//! From samples to medians, from medians to a table for people and one for machines.

use crate::contenders::{BASE, Role};
use crate::results::{self, Results};
use crate::rows;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

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
    FirstReplyP50Millis,
    FirstReplyP99Millis,
    WastedPercent,
    LoadPercent,
    CallsPerBlock,
    BlocksPerSend,
    InstructionsPerBlock,
    PrivateMib,
    ProportionalMib,
    PageTablesKib,
    Threads,
    UserPerTransfer,
    KernelPerTransfer,
    IdlePrivateMib,
    IdleProportionalMib,
    BinaryMib,
    FirstAnswerMillis,
}

impl Figure {
    const ALL: [Figure; 25] = [
        Figure::MibPerSecond,
        Figure::TransfersPerSecond,
        Figure::CpuSecondsPerGib,
        Figure::CpuMicrosPerTransfer,
        Figure::Served,
        Figure::LastMillis,
        Figure::P99Millis,
        Figure::P50Millis,
        Figure::FirstReplyP50Millis,
        Figure::FirstReplyP99Millis,
        Figure::WastedPercent,
        Figure::LoadPercent,
        Figure::CallsPerBlock,
        Figure::BlocksPerSend,
        Figure::InstructionsPerBlock,
        Figure::PrivateMib,
        Figure::ProportionalMib,
        Figure::PageTablesKib,
        Figure::Threads,
        Figure::UserPerTransfer,
        Figure::KernelPerTransfer,
        Figure::IdlePrivateMib,
        Figure::IdleProportionalMib,
        Figure::BinaryMib,
        Figure::FirstAnswerMillis,
    ];

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
            Self::FirstReplyP50Millis => "first reply p50 ms",
            Self::FirstReplyP99Millis => "first reply p99 ms",
            Self::WastedPercent => "wasted blocks %",
            Self::LoadPercent => "load's CPU %",
            Self::CallsPerBlock => "calls/block",
            Self::BlocksPerSend => "blocks/send",
            Self::InstructionsPerBlock => "instructions/block",
            Self::PrivateMib => "private MiB",
            Self::ProportionalMib => "PSS MiB",
            Self::PageTablesKib => "page tables KiB",
            Self::Threads => "threads",
            Self::UserPerTransfer => "private KiB/transfer",
            Self::KernelPerTransfer => "kernel KiB/transfer",
            Self::IdlePrivateMib => "private MiB idle",
            Self::IdleProportionalMib => "PSS MiB idle",
            Self::BinaryMib => "binary MiB",
            Self::FirstAnswerMillis => "exec to answer ms",
        }
    }

    /// As it stands in the JSON.
    pub(crate) fn key(self) -> String {
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
    pub(crate) fn new(server: &'static str, role: Role) -> Self {
        Self {
            server,
            role,
            samples: Vec::new(),
        }
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        let mut values: Vec<f64> = self
            .samples
            .iter()
            .filter_map(|sample| sample.figures.get(&figure).copied())
            .collect();
        results::median(&mut values)
    }

    /// What was unusual, each thing once.
    fn notes(&self, runs: usize) -> String {
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
        if self.samples.len() < runs {
            notes.push(format!("{} of {runs} runs", self.samples.len()));
        }
        notes.retain(|note| !note.is_empty());
        notes.sort_unstable();
        notes.dedup();
        notes.join("; ")
    }

    /// True while no run of this server has left anybody without a file.
    pub(crate) fn is_whole(&self) -> bool {
        let part = |sample: &Sample| {
            let served = sample.figures.get(&Figure::Served);
            sample.figures.is_empty() || served.is_some_and(|served| *served < 100.0)
        };
        !self.samples.iter().any(part)
    }

    fn failed(&self) -> bool {
        self.samples.iter().all(|sample| sample.figures.is_empty())
    }
}

/// One finished row.
pub(crate) struct Table {
    pub(crate) row: String,
    pub(crate) entries: Vec<Entry>,
    /// How long all its runs took.
    pub(crate) seconds: f64,
}

impl Table {
    /// As a Markdown table. Ratios are to the first limit (the bare sender; in crowds the floor)
    /// and to the best rival.
    pub(crate) fn markdown(&self) -> String {
        let mut columns: Vec<Figure> = self
            .entries
            .iter()
            .flat_map(|entry| &entry.samples)
            .flat_map(|sample| sample.figures.keys().copied())
            .collect();
        columns.sort_unstable();
        columns.dedup();
        let runs = self
            .entries
            .iter()
            .map(|entry| entry.samples.len())
            .max()
            .unwrap_or(0);
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
            let _ = writeln!(text, " {failed}{} |", entry.notes(runs));
        }
        let _ = writeln!(text, "\n{:.0} s in all", self.seconds);
        text
    }

    /// What this crate and the limits did in an older run, and now; or what another build of this
    /// crate did in this run.
    pub(crate) fn before_and_after(&self, old: Option<&Results>) -> String {
        let mut text = String::new();
        let other_build = self.entries.iter().find(|entry| entry.server == BASE);
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.role != Role::Rival && entry.server != BASE)
        {
            let before = |figure: Figure| match old {
                Some(old) => {
                    let figures = old.figures(&self.row, entry.server)?;
                    figures.get(&figure.key()).copied()
                }
                None if entry.role == Role::Own => other_build?.median(figure),
                None => None,
            };
            for figure in Figure::ALL {
                let (Some(before), Some(after)) = (before(figure), entry.median(figure)) else {
                    continue;
                };
                let (server, heading) = (entry.server, figure.heading());
                let (was, is) = (number(Some(before)), number(Some(after)));
                let ratio = ratio(Some(after), Some(before));
                let _ = writeln!(text, "| {server} | {heading} | {was} | {is} | {ratio} |");
            }
        }
        if text.is_empty() {
            return text;
        }
        format!(
            "\n| server | | before | now | now / before |\n| --- | --- | ---: | ---: | ---: |\n{text}"
        )
    }

    pub(crate) fn is_on_curve(&self) -> bool {
        self.row.starts_with("curve ")
    }

    /// Whether this server brought every file in every run.
    pub(crate) fn served_all(&self, server: &str) -> bool {
        let served = |entry: &Entry| entry.median(Figure::Served);
        let entry = self.entries.iter().find(|entry| entry.server == server);
        entry.and_then(served).is_some_and(|served| served >= 100.0)
    }

    fn limit(&self, figure: Figure) -> Option<f64> {
        let limit = self
            .entries
            .iter()
            .find(|entry| entry.role == Role::Limit)?;
        limit.median(figure)
    }

    /// The best value of a rival that served everybody: who turns clients away is fast and cheap
    /// for the rest.
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

    fn json(&self) -> Value {
        json!({
            "row": self.row,
            "seconds": self.seconds,
            "servers": self.entries.iter().map(Entry::json).collect::<Vec<_>>(),
        })
    }
}

impl Entry {
    fn json(&self) -> Value {
        json!({
            "server": self.server,
            "role": format!("{:?}", self.role).to_lowercase(),
            "samples": self.samples.iter().map(Sample::json).collect::<Vec<_>>(),
        })
    }
}

impl Sample {
    fn json(&self) -> Value {
        let figures = self.figures.iter();
        let mut members: Map<String, Value> = figures
            .map(|(figure, value)| (figure.key(), json!(value)))
            .collect();
        members.insert("others".into(), json!(self.others));
        if !self.note.is_empty() {
            members.insert("note".into(), json!(self.note));
        }
        Value::Object(members)
    }
}

/// All that was measured, with every sample, for [`Results`] and for other programs.
pub(crate) fn document(head: &str, versions: &[String], runs: usize, tables: &[Table]) -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let document = json!({
        "machine": head,
        "unix_time": seconds,
        "runs": runs,
        "versions": versions,
        "rows": tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

/// The rows of the curve as one table, with a line for each server and number of clients; nothing
/// where there are none.
pub(crate) fn curve(tables: &[Table]) -> String {
    const FIGURES: [Figure; 8] = [
        Figure::Served,
        Figure::LastMillis,
        Figure::P50Millis,
        Figure::P99Millis,
        Figure::FirstReplyP99Millis,
        Figure::CpuMicrosPerTransfer,
        Figure::WastedPercent,
        Figure::PrivateMib,
    ];
    let mut lines = String::new();
    for table in tables.iter().filter(|table| table.is_on_curve()) {
        let clients = table.row.trim_start_matches("curve ");
        for entry in &table.entries {
            let _ = write!(lines, "| {clients} | {} |", entry.server);
            for figure in FIGURES {
                let _ = write!(lines, " {} |", number(entry.median(figure)));
            }
            lines.push('\n');
        }
    }
    if lines.is_empty() {
        return lines;
    }
    let headings: Vec<&str> = FIGURES.iter().map(|figure| figure.heading()).collect();
    let rule = " ---: |".repeat(FIGURES.len());
    format!(
        "\n### The curve\n\n| clients | server | {} |\n| ---: | --- |{rule}\n{lines}",
        headings.join(" | ")
    )
}

/// The rows of lock-step crowds as one table, with a line for each row and server: what it did, and
/// what this crate's server did divided by that. Nothing where there are no such rows.
pub(crate) fn crowds(tables: &[Table]) -> String {
    const FIGURES: [Figure; 3] = [
        Figure::MibPerSecond,
        Figure::CpuSecondsPerGib,
        Figure::P99Millis,
    ];
    let is_crowd = |table: &&Table| table.row.starts_with(rows::CROWD) || table.row == rows::SILENT;
    let mut lines = String::new();
    for table in tables.iter().filter(is_crowd) {
        let mut all = table.entries.iter();
        let own = all.find(|entry| entry.role == Role::Own && entry.server != BASE);
        for entry in &table.entries {
            let _ = write!(lines, "| {} | {} |", table.row, entry.server);
            for figure in FIGURES {
                let value = entry.median(figure);
                let own = own.and_then(|own| own.median(figure));
                let _ = write!(lines, " {} | {} |", number(value), ratio(own, value));
            }
            for figure in [Figure::Served, Figure::LoadPercent] {
                let _ = write!(lines, " {} |", number(entry.median(figure)));
            }
            lines.push('\n');
        }
    }
    if lines.is_empty() {
        return lines;
    }
    let mut headings = String::new();
    for figure in FIGURES {
        let _ = write!(headings, " {} | tftpool ÷ it |", figure.heading());
    }
    for figure in [Figure::Served, Figure::LoadPercent] {
        let _ = write!(headings, " {} |", figure.heading());
    }
    let rule = " ---: |".repeat(2 * FIGURES.len() + 2);
    format!("\n### Lock-step crowds\n\n| row | server |{headings}\n| --- | --- |{rule}\n{lines}")
}

/// Three digits that count.
pub(crate) fn number(value: Option<f64>) -> String {
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
