//! One bar for one file on a terminal: how much, how fast, how long, the round trip and what was sent again. Without a
//! terminal, or without the feature `progress`, nothing.

use crate::client::Progress;

/// A bar, or none. Gone from the screen when dropped.
pub(super) struct Bar {
    #[cfg(feature = "progress")]
    bar: Option<indicatif::ProgressBar>,
}

#[cfg(feature = "progress")]
impl Bar {
    /// Shown if it is wanted and stderr is a terminal.
    pub(super) fn new(label: &str, is_wanted: bool) -> Self {
        use indicatif::{ProgressBar, ProgressDrawTarget};
        use std::io::{IsTerminal, stderr};
        let bar = (is_wanted && stderr().is_terminal()).then(|| {
            let label = super::settings::shown(label);
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(style(
                    "{prefix} {spinner} {bytes} {binary_bytes_per_sec} {elapsed}{msg}",
                ))
                .with_prefix(label)
        });
        Self { bar }
    }

    /// What the client calls.
    pub(super) fn watcher(&self) -> Option<impl Fn(&Progress) + Send + Sync + use<>> {
        let bar = self.bar.clone()?;
        Some(move |progress: &Progress| {
            if let (Some(size), None) = (progress.size, bar.length()) {
                bar.set_length(size);
                bar.set_style(
                    style("{prefix} [{bar:25}] {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta}{msg}")
                        .progress_chars("=> "),
                );
            }
            bar.set_message(remarks(progress));
            bar.set_position(progress.bytes);
        })
    }
}

#[cfg(feature = "progress")]
fn style(template: &str) -> indicatif::ProgressStyle {
    indicatif::ProgressStyle::with_template(template).expect("a template of our own")
}

#[cfg(feature = "progress")]
fn remarks(progress: &Progress) -> String {
    let rtt = progress.rtt.map(super::settings::millis);
    let rtt = rtt.map(|rtt| format!(" rtt {rtt}"));
    let resent = (progress.retransmits > 0).then(|| format!(" {} resent", progress.retransmits));
    rtt.unwrap_or_default() + &resent.unwrap_or_default()
}

#[cfg(feature = "progress")]
impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(not(feature = "progress"))]
impl Bar {
    pub(super) fn new(_: &str, _: bool) -> Self {
        Self {}
    }

    pub(super) fn watcher(&self) -> Option<fn(&Progress)> {
        None
    }
}
