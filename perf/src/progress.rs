//! How far a long run is; only shown on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar of so many steps. More can be announced later.
    pub fn new(steps: u64) -> Progress {
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}");
        Progress { bar: ProgressBar::new(steps).with_style(style.expect("a valid template")) }
    }

    /// Announces further steps.
    pub fn expect(&self, steps: u64) {
        self.bar.inc_length(steps);
    }

    /// One step is done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Says what is being done.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
