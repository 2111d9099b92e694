//! What became of an earlier attempt, in another process.

use tracing::warn;

use super::{Attempt, lease::Lease, other_payload};
use crate::{
    idempotency::{Identity, Name},
    job::StoredResult,
    problem::{Kind, Problem},
    store::{
        StoreError,
        idempotency::{CallState, IdempotencyRecord},
    },
    units::Millis,
};

/// How long to wait before looking again at a call that runs elsewhere, in milliseconds: at first, and at most.
const PAUSES_MS: (u64, u64) = (250, 4_000);

/// What an earlier attempt came to.
pub enum Earlier {
    /// There is none, or it came to nothing: this one runs.
    None { is_claimed: bool },
    /// It was answered.
    Answered(StoredResult),
}

/// Looks for an earlier attempt if the caller says that there is one, and waits for its end. One who asked for a single
/// call claims it before it runs; the others only look, and do not stand still when the store does.
pub async fn earlier(attempt: &Attempt, lease: &Lease) -> Result<Earlier, Problem> {
    let (clock, name) = (&attempt.app.clock, attempt.identity.name);
    if !name.is_repetition() {
        return Ok(Earlier::None { is_claimed: false });
    }
    let is_explicit = name == Name::Explicit;
    let (mut pause_ms, longest_pause_ms) = PAUSES_MS;
    let mut found = if is_explicit { lease.claim().await } else { find(attempt).await };
    loop {
        if let Some(earlier) = outcome(&attempt.identity, found)? {
            return Ok(earlier);
        }
        let again_ms = clock.now_ms() + pause_ms;
        if attempt.call.head.deadline.is_some_and(|deadline| deadline.as_ms() <= again_ms) {
            return Err(Problem::new(Kind::Timeout, "The first attempt at this call has not ended in time."));
        }
        clock.sleep_until(crate::units::UnixMs::from_ms(again_ms)).await;
        pause_ms = (pause_ms * 3 / 2).min(longest_pause_ms);
        found = find(attempt).await;
        if is_explicit && matches!(found, Ok(None)) {
            found = lease.claim().await;
        }
    }
}

/// What came of an earlier attempt; `None` while it runs.
fn outcome(
    identity: &Identity,
    found: Result<Option<IdempotencyRecord>, StoreError>,
) -> Result<Option<Earlier>, Problem> {
    let is_explicit = identity.name == Name::Explicit;
    let earlier = match found {
        Ok(Some(earlier)) => earlier,
        Ok(None) => return Ok(Some(Earlier::None { is_claimed: is_explicit })),
        Err(error) if is_explicit => return Err(error.into()),
        Err(error) => {
            warn!(%error, "an earlier attempt could not be looked for");
            return Ok(Some(Earlier::None { is_claimed: false }));
        }
    };
    if earlier.payload != identity.payload {
        return Err(other_payload());
    }
    match earlier.state {
        CallState::Running => Ok(None),
        CallState::Answered { answer, .. } => Ok(Some(Earlier::Answered(answer))),
        CallState::TooLarge { .. } if is_explicit => Err(too_large()),
        CallState::TooLarge { .. } => Ok(Some(Earlier::None { is_claimed: false })),
    }
}

/// The earlier attempt that the store knows. One who did not name its call is not taken for another who asks the same and
/// still waits for the answer.
async fn find(attempt: &Attempt) -> Result<Option<IdempotencyRecord>, StoreError> {
    let now = attempt.app.clock.now();
    let found = attempt.app.idempotency_records.find(&attempt.identity.key, now).await?;
    let Name::Counted { patience_ms, .. } = attempt.identity.name else { return Ok(found) };
    Ok(found.filter(|found| {
        let until = match &found.state {
            CallState::Running => now,
            CallState::Answered { ended_at, .. } | CallState::TooLarge { ended_at } => *ended_at,
        };
        patience_ms.is_some_and(|patience_ms| found.since + Millis::from_ms(patience_ms) <= until)
    }))
}

fn too_large() -> Problem {
    let told = "This request was answered with more than is kept. Send it with another Idempotency-Key to ask again.";
    Problem::new(Kind::Conflict, told)
}
