//! The progress of long work: a bar on a terminal, log lines elsewhere.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two log lines.
const LINE_S: u64 = 10;

/// The progress of work on the events of the log.
pub struct Progress {
    activity: &'static str,
    bar: ProgressBar,
    logged_at: Mutex<Instant>,
}

impl Progress {
    /// Progress of an activity such as `verifying`. Nothing is shown before the first call of [`Progress::show`].
    pub fn of(activity: &'static str) -> Self {
        let template =
            format!("{activity} {{wide_bar}} {{human_pos}} of {{human_len}} events, {{per_sec}}, {{eta}} left");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { activity, bar: ProgressBar::new(0).with_style(style), logged_at: Mutex::new(Instant::now()) }
    }

    /// Shows that `done` of `total` events are done.
    pub fn show(&self, done: i64, total: i64) {
        self.bar.set_length(total.unsigned_abs());
        self.bar.set_position(done.unsigned_abs());
        if self.bar.is_hidden() && self.is_line_due() {
            tracing::info!(activity = self.activity, done, total, "progress");
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn is_line_due(&self) -> bool {
        let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged_at.elapsed() >= Duration::from_secs(LINE_S);
        if is_due {
            *logged_at = Instant::now();
        }
        is_due
    }
}
