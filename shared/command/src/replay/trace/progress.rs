//! Progress bar of a replay. It is hidden if stderr is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Tally;

const TEMPLATE: &str = "{elapsed_precise} [{bar:30}] {pos}/{len} sent  {msg}";

/// Creates a bar for this number of requests.
pub fn bar(requests: usize) -> ProgressBar {
    let bar = ProgressBar::new(requests as u64);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Shows the current counts.
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
