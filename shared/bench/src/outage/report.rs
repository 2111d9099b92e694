//! The table of the drills and their goals.

use std::time::Duration;

use super::{Phases, deployment::BROKERS, drill::Figures, fault::Fault};

/// Most callers of one broker that the outage of a pool costs.
const MAX_FAILED: usize = 3;

/// Longest time until a pool that works again is used.
const MAX_RECOVERY: Duration = Duration::from_secs(30);

/// Most by which the 95th percentile of answers may grow.
const MAX_P95_RATIO: f64 = 1.1;

/// Prints the head of the table.
pub fn print_header(phases: Phases, callers: u64) {
    println!(
        "{BROKERS} brokers with {callers} callers each; {} s of health, {} s of outage, then recovery.",
        phases.healthy.as_secs(),
        phases.outage.as_secs()
    );
    println!(
        "In progress: requests that the outage met, and that failed. Failed: requests that began during it, of the"
    );
    println!(
        "broker and the pool with the most. p95: of answers after a broker has noticed, as a multiple of before.\n"
    );
    println!(
        "| The near region | requests | in progress | failed | lost | billed twice | jobs and lines done | of them billed twice | noticed | p95 | used again |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
}

/// Prints the row of a drill.
pub fn print_row(fault: Fault, figures: &Figures) {
    let Figures { requests, failed_in_progress, failed, lost, billed_twice, jobs, .. } = figures;
    let noticed = if fault.is_outage() { seconds(figures.noticed) } else { "-".to_owned() };
    println!(
        "| {} | {requests} | {failed_in_progress} | {failed} | {lost} | {} | {} of {} | {} | {noticed} | {:.2} | {} |",
        fault.name(),
        billed_twice.calls,
        jobs.succeeded,
        jobs.succeeded + jobs.failed + jobs.open,
        billed_twice.jobs,
        p95_ratio(figures),
        seconds(figures.recovered),
    );
}

/// Returns the goals that a drill missed.
pub fn missed(fault: Fault, figures: &Figures) -> Vec<String> {
    let ratio = p95_ratio(figures);
    let goals = [
        (figures.failed <= MAX_FAILED, format!("{} failed calls of one broker at one pool", figures.failed)),
        (figures.lost == 0, format!("{} requests or jobs lost", figures.lost)),
        (figures.jobs.failed == 0, format!("{} jobs failed", figures.jobs.failed)),
        (figures.billed_twice.calls == 0, format!("{} requests billed twice", figures.billed_twice.calls)),
        (figures.noticed.is_some() || !fault.is_outage(), "a broker did not notice".to_owned()),
        (ratio <= MAX_P95_RATIO, format!("p95 is {ratio:.2} of before")),
        (
            figures.recovered.is_some_and(|after| after <= MAX_RECOVERY),
            format!("used again after {}", seconds(figures.recovered)),
        ),
    ];
    goals.into_iter().filter(|(is_met, _)| !is_met).map(|(_, what)| format!("{}: {what}", fault.name())).collect()
}

fn p95_ratio(figures: &Figures) -> f64 {
    figures.outage_p95.as_secs_f64() / figures.healthy_p95.as_secs_f64().max(f64::EPSILON)
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or("never".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}
