//! Looks in the store for an earlier attempt at a call, made by another process.

use tracing::warn;

use super::{Leader, key_reused, lease::Lease};
use crate::{
    idempotency::KeySource,
    job::StoredResult,
    problem::{Kind, Problem},
    store::{
        StoreError,
        idempotency::{CallState, IdempotencyRecord},
    },
    units::Millis,
};

/// Pause before the second look at a call that runs in another process. The pause grows up to
/// [`MAX_POLL_INTERVAL`].
const MIN_POLL_INTERVAL: Millis = Millis::from_ms(250);

/// Maximum pause between two looks at a call that runs in another process.
const MAX_POLL_INTERVAL: Millis = Millis::from_s(4);

/// Returns the stored answer of an earlier attempt. While another process runs the call, waits for
/// its end. Returns `None` if the leader must run the call.
///
/// A request with an `Idempotency-Key` claims the call before it runs, and fails if the store is
/// unavailable. Other requests only look, and run if the store is unavailable.
///
/// # Errors
/// Returns an error if the key was used for a different request, the answer was too large to store,
/// the process ends before the call, or the store is unavailable.
pub async fn find_answer(leader: &Leader, lease: &mut Lease) -> Result<Option<StoredResult>, Problem> {
    let (clock, source) = (&leader.app.clock, leader.identity.source);
    if !source.may_be_retry() {
        return Ok(None);
    }
    let is_explicit = source == KeySource::Explicit;
    let mut interval = MIN_POLL_INTERVAL;
    let mut found = if is_explicit { lease.claim().await } else { find_record(leader).await };
    loop {
        let record = match found {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) if is_explicit => return Err(error.into()),
            Err(error) => {
                warn!(%error, "failed to look for an earlier attempt");
                return Ok(None);
            }
        };
        if record.fingerprint != leader.identity.fingerprint {
            return Err(key_reused());
        }
        match record.state {
            CallState::Running { is_awaited: true } => {}
            CallState::Running { is_awaited: false } => {
                if !is_explicit && !mark(leader, &record.owner).await {
                    found = find_record(leader).await;
                    continue;
                }
            }
            CallState::Answered { answer, .. } => return Ok(Some(answer)),
            CallState::TooLarge { .. } if is_explicit => return Err(too_large()),
            CallState::TooLarge { .. } => return Ok(None),
        }
        let next_look = clock.now() + interval;
        let deadline = leader.call.head.answer_deadline(false);
        if deadline.is_some_and(|deadline| deadline <= next_look) {
            return Err(still_running());
        }
        clock.sleep_until(next_look).await;
        interval = (interval * 3 / 2).min(MAX_POLL_INTERVAL);
        found = find_record(leader).await;
        if is_explicit && matches!(found, Ok(None)) {
            found = lease.claim().await;
        }
    }
}

/// Returns the record of the call. If the key is the fingerprint of the request, the record counts
/// only if its caller has timed out. Otherwise it may belong to a different caller, which still
/// waits.
async fn find_record(leader: &Leader) -> Result<Option<IdempotencyRecord>, StoreError> {
    let now = leader.app.clock.now();
    let found = leader.app.idempotency_records.find(&leader.identity.key, now).await?;
    let KeySource::Fingerprint { client_timeout, .. } = leader.identity.source else { return Ok(found) };
    Ok(found.filter(|record| {
        let waited_until = match &record.state {
            CallState::Running { .. } => now,
            CallState::Answered { ended_at, .. } | CallState::TooLarge { ended_at } => *ended_at,
        };
        client_timeout.is_some_and(|timeout| record.since + timeout <= waited_until)
    }))
}

/// Marks the call of `owner`, so that its answer is stored. Returns `false` if the call has ended.
/// The answer of a call with an `Idempotency-Key` is always stored.
async fn mark(leader: &Leader, owner: &str) -> bool {
    let now = leader.app.clock.now();
    leader.app.idempotency_records.mark(&leader.identity.key, owner, now).await.unwrap_or_else(|error| {
        warn!(%error, "failed to mark an earlier attempt; its answer may not be stored");
        true
    })
}

fn still_running() -> Problem {
    let message = "An earlier attempt at this call has not ended in time. Send the request again to get its answer.";
    Problem::new(Kind::Timeout, message)
}

fn too_large() -> Problem {
    let message = "The request with this Idempotency-Key was answered, but the answer was too large to store. To run the \
                   request again, send it with a new key.";
    Problem::new(Kind::Conflict, message)
}
