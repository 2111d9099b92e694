//! The progress bar of a replay; silent where standard error is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Tally;

const TEMPLATE: &str = "{elapsed_precise} [{bar:30}] {pos}/{len} sent  {msg}";

/// A bar over `requests`.
pub fn bar(requests: usize) -> ProgressBar {
    let bar = ProgressBar::new(requests as u64);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Shows where the replay stands.
pub fn show(bar: &ProgressBar, tally: &Tally) {
    if bar.is_hidden() {
        return;
    }
    bar.set_position(tally.sent);
    let jobs_open = tally.accepted.saturating_sub(tally.finished + tally.jobs_failed());
    bar.set_message(format!(
        "answered {}  jobs open {jobs_open}  finished {}  refused {}  errors {}",
        tally.answered,
        tally.finished,
        tally.refused,
        tally.errors()
    ));
}
