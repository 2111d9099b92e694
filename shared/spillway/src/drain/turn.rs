//! The turn of a tenant: sends its parked jobs that fit its limits soon, and plans the next
//! turn.

use tracing::{debug, warn};

use super::attempt;
use crate::{
    app::App,
    job::{Backlog, Chosen, JobStatus, LOOK_AHEAD, MAX_SENT, Turn, TurnStep, TurnView, WaitingJob},
    overflow::{MAX_EARLY, send_turn},
    problem::Kind,
    queue::Queue,
    quota::Capacity,
    store::WriteOutcome,
    units::Millis,
};

/// Maximum number of tries of a turn while parked jobs change the backlog.
const MAX_TRIES: u32 = 8;

/// Maximum number of waiting jobs that a turn looks at: more than the jobs that were sent.
const MAX_JOBS: usize = 2 * MAX_SENT;

/// Number of jobs that are sent without a look at the limits because the first of them will fail:
/// for example, its model was removed.
const FAILING_JOBS: usize = 20;

/// Handles a message about a turn. It may arrive twice or late. Only one turn with its number is
/// taken.
///
/// # Errors
/// Returns an error if a service is unavailable. The turn can be tried again.
pub async fn handle(app: &App, queue: &Queue, turn: &Turn) -> anyhow::Result<()> {
    for _ in 0..MAX_TRIES {
        let Some(backlog) = app.backlogs.get(&turn.tenant).await? else { return Ok(()) };
        let now = app.clock.now();
        match backlog.turn_step(turn.number, now) {
            TurnStep::Drop => return Ok(()),
            TurnStep::Wait { until } if until > now + MAX_EARLY => return Ok(send_turn(queue, &backlog, now).await?),
            TurnStep::Wait { until } => app.clock.sleep_until(until).await,
            TurnStep::Take => {}
        }
        let view = view(app, &backlog).await?;
        let now = app.clock.now();
        let (changed, chosen) = backlog.take_turn(turn.number, &view, now);
        // The message first: if this process dies here, the message takes this turn.
        if changed.is_open {
            send_turn(queue, &changed, now).await?;
        }
        match app.backlogs.replace(&backlog, changed).await? {
            WriteOutcome::Written(backlog) => {
                send_jobs(queue, &backlog, &chosen).await;
                return Ok(());
            }
            WriteOutcome::Conflict(_) => {}
        }
    }
    anyhow::bail!("the backlog of {} changes too often", turn.tenant)
}

/// Sends the chosen jobs. A lost message is sent again by a later turn.
async fn send_jobs(queue: &Queue, backlog: &Backlog, chosen: &[Chosen]) {
    let messages: Vec<(String, Millis)> = chosen.iter().map(|(job, delay)| (job.id.clone(), *delay)).collect();
    if let Err(error) = queue.send_all(&messages, &backlog.tenant).await {
        warn!(tenant = backlog.tenant, %error, "failed to send parked jobs; a later turn will send them");
    }
    debug!(tenant = backlog.tenant, turn = backlog.turn, sent = messages.len(), "took a turn");
}

/// Reads what waits, and how much of it fits.
async fn view(app: &App, backlog: &Backlog) -> anyhow::Result<TurnView> {
    let (parked, with_messages) = app.jobs.waiting(&backlog.tenant, MAX_JOBS).await?;
    let now = app.clock.now();
    let next = parked.iter().find(|job| !backlog.is_sent(job, now));
    let capacity = match next {
        Some(next) => capacity(app, next).await?,
        None => any(0),
    };
    let Capacity { retry_after, may_settle, .. } = capacity;
    let waits = if capacity.is_over_budget() { any(MAX_SENT).waits } else { capacity.waits };
    Ok(TurnView { parked, with_messages, waits, retry_after, may_settle })
}

/// The capacity for `count` jobs, whatever their size.
fn any(count: usize) -> Capacity {
    Capacity { waits: vec![Millis::ZERO; count], refusal: None, retry_after: Millis::ZERO, may_settle: false }
}

/// Finds when jobs like `next` fit. A job that will fail fits now.
async fn capacity(app: &App, next: &WaitingJob) -> anyhow::Result<Capacity> {
    let Some(job) = app.jobs.get(&next.id).await?.filter(|job| job.status == JobStatus::Queued) else {
        return Ok(any(FAILING_JOBS));
    };
    let body = match app.jobs.request(&job).await {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(any(FAILING_JOBS)),
        Err(error) => {
            warn!(job_id = job.id, %error, "failed to read the request of a parked job");
            return Ok(any(FAILING_JOBS));
        }
    };
    match attempt::capacity(app, &job, &body, app.clock.now() + LOOK_AHEAD, MAX_SENT).await {
        Ok(capacity) => Ok(capacity),
        Err(problem) if matches!(problem.kind, Kind::Unavailable | Kind::Throttled) => Err(problem.into()),
        Err(_) => Ok(any(FAILING_JOBS)),
    }
}
