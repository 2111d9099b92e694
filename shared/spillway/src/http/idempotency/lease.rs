//! The lease on a call: claimed in the store after a delay, or immediately for an
//! `Idempotency-Key`, and renewed while the call runs.

use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

use crate::{
    app::App,
    idempotency::{CallIdentity, KeySource},
    job::StoredResult,
    retention,
    store::{
        StoreError,
        idempotency::{Claim, IdempotencyRecord, PackedAnswer},
    },
    units::{Millis, UnixMs},
};

/// Time after which a running call is claimed. Most calls end sooner and cost no write.
const CLAIM_DELAY: Millis = Millis::from_s(3);

/// Length of a lease.
const LEASE: Millis = Millis::from_s(20);

/// Time between two renewals. A lease outlasts one failed renewal.
const RENEW_INTERVAL: Millis = Millis::from_s(7);

/// A lease on a call.
pub struct Lease {
    app: App,
    claim: Claim,
    source: KeySource,
    is_held: bool,
}

/// A lease that a task claims and renews while the call runs.
pub struct RenewedLease {
    progress: watch::Sender<CallProgress>,
    renewal: JoinHandle<Lease>,
}

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CallProgress {
    /// Its caller waits for the first byte of the answer.
    Silent,
    /// The first chunk of its stream was sent at this time.
    Streaming(UnixMs),
    Ended,
}

impl Lease {
    /// Creates a lease on a call that began at `started`. Nothing is claimed yet.
    pub fn new(app: &App, identity: &CallIdentity, started: UnixMs) -> Self {
        let claim = Claim {
            key: identity.key,
            fingerprint: identity.fingerprint,
            owner: uuid::Uuid::new_v4().simple().to_string(),
            since: started,
        };
        Self { app: app.clone(), claim, source: identity.source, is_held: false }
    }

    /// Claims the call. Returns the existing record if another process runs the call or the call is
    /// answered.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn claim(&mut self) -> Result<Option<IdempotencyRecord>, StoreError> {
        let now = self.app.clock.now();
        let found = self.app.idempotency_records.claim(&self.claim, now + LEASE, now).await?;
        self.is_held = found.is_none();
        Ok(found)
    }

    /// Starts a task that claims the call after [`CLAIM_DELAY`], unless it is claimed, and renews
    /// the lease from then on. A call that no retry can find is not claimed.
    pub fn renew(self) -> RenewedLease {
        let (progress, seen) = watch::channel(CallProgress::Silent);
        RenewedLease { progress, renewal: tokio::spawn(self.renew_until_over(seen)) }
    }

    /// Renews the lease until the call has ended. A write in progress is completed first, so that
    /// it cannot follow the answer.
    async fn renew_until_over(mut self, mut progress: watch::Receiver<CallProgress>) -> Self {
        let clock = self.app.clock.clone();
        while self.source.is_found_by_retries() {
            let pause = if self.is_held { RENEW_INTERVAL } else { CLAIM_DELAY };
            let is_held = self.is_held;
            tokio::select! {
                // It fails if the leader has died, which ends the call too.
                _ = progress.wait_for(|progress| progress.ends_renewal(is_held)) => break,
                () = clock.sleep_until(clock.now() + pause) => {}
            }
            match self.claim_or_renew().await {
                Ok(true) => {}
                // Another attempt runs, which this one did not see. Its claim stands.
                Ok(false) => break,
                Err(error) => {
                    warn!(%error, "failed to claim a call; a retry in another process may be charged again");
                }
            }
        }
        self
    }

    /// Returns `false` if another attempt has the call.
    async fn claim_or_renew(&mut self) -> Result<bool, StoreError> {
        if self.is_held {
            let until = self.app.clock.now() + LEASE;
            self.is_held = self.app.idempotency_records.renew(&self.claim, until).await?;
            return Ok(true);
        }
        Ok(self.claim().await?.is_none())
    }

    /// Stores the answer of a call whose client `waited` for its first byte, or releases the call
    /// if no retry needs the answer.
    async fn end(&self, answer: Option<StoredResult>, waited: Millis) -> Result<(), StoreError> {
        let (records, now) = (&self.app.idempotency_records, self.app.clock.now());
        let small = answer.as_ref().and_then(PackedAnswer::small);
        let is_needed = small.is_some() || self.source.expects_retry(waited);
        if !is_needed && records.release_unless_awaited(&self.claim).await? {
            return Ok(());
        }
        let packed = small.or_else(|| PackedAnswer::new(&answer?));
        let kept_for = match self.source {
            KeySource::Explicit => retention::KEYED_ANSWER,
            KeySource::SdkInvocation { .. } | KeySource::Fingerprint { .. } => retention::ANSWER,
        };
        records.answer(&self.claim, packed.as_ref(), now + kept_for, now).await
    }
}

impl CallProgress {
    /// Whether a lease need not be renewed. A stream that was not claimed before its first chunk
    /// needs no claim: no SDK sends a request again after it, and a request with an
    /// `Idempotency-Key` is claimed at its start.
    fn ends_renewal(self, is_held: bool) -> bool {
        match self {
            Self::Silent => false,
            Self::Streaming(_) => !is_held,
            Self::Ended => true,
        }
    }
}

impl RenewedLease {
    /// Notes that the first chunk of a stream was sent.
    pub fn begin_stream(&self, now: UnixMs) {
        self.progress.send_replace(CallProgress::Streaming(now));
    }

    /// Releases the call, so that the next attempt runs.
    pub async fn release(self) {
        let (lease, _) = self.stop().await;
        if let Some(lease) = lease
            && let Err(error) = lease.app.idempotency_records.release(&lease.claim).await
        {
            warn!(%error, "failed to release a call; its retries wait until the lease ends");
        }
    }

    /// Ends the call with its answer, if the lease is held. `None` is an answer that is too large
    /// to store.
    pub async fn end(self, answer: impl FnOnce() -> Option<StoredResult>) {
        let (lease, began_at) = self.stop().await;
        let Some(lease) = lease else { return };
        let waited = began_at.unwrap_or(lease.app.clock.now()) - lease.claim.since;
        let answer = answer();
        // Doing it twice is the same as once.
        let ended = match lease.end(answer.clone(), waited).await {
            Err(StoreError::Unavailable(_)) => lease.end(answer, waited).await,
            ended => ended,
        };
        if let Err(error) = ended {
            warn!(%error, "failed to store an answer; a retry in another process may be charged again");
        }
    }

    /// Stops the renewal. Returns the lease if it is held, and the time of the first chunk of a
    /// stream.
    async fn stop(self) -> (Option<Lease>, Option<UnixMs>) {
        let began_at = match self.progress.send_replace(CallProgress::Ended) {
            CallProgress::Streaming(began_at) => Some(began_at),
            CallProgress::Silent | CallProgress::Ended => None,
        };
        (self.renewal.await.ok().filter(|lease| lease.is_held), began_at)
    }
}
