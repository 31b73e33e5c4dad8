//! Progress of what takes long, on standard error. Where that is not a terminal nothing is shown. It is gone when the
//! work is: results are not its business.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Work of unknown length. It disappears when dropped.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn start(message: &'static str) -> Self {
        let bar = ProgressBar::new_spinner().with_message(message);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn say(&self, message: String) {
        self.0.set_message(message);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Work of so many steps. It disappears when dropped.
pub(crate) struct Steps(ProgressBar);

impl Steps {
    pub(crate) fn start(message: &'static str, steps: u64) -> Self {
        let bar = ProgressBar::new(steps).with_message(message);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    pub(crate) fn say(&self, message: String) {
        self.0.set_message(message);
    }

    pub(crate) fn at(&self, step: u64) {
        self.0.set_position(step);
    }

    pub(crate) fn next(&self) {
        self.0.inc(1);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Work on so many bytes, with its rate. It disappears when dropped.
pub(crate) struct Bytes(ProgressBar);

impl Bytes {
    pub(crate) fn start(message: &'static str, bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes).with_message(message);
        let template = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    pub(crate) fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
