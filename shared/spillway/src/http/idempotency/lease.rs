//! The lease on a call: claimed in the store after a delay, or immediately for an
//! `Idempotency-Key`, and renewed while the call runs.

use tokio::{sync::oneshot, task::JoinHandle};
use tracing::warn;

use crate::{
    app::App,
    idempotency::{CallIdentity, KeySource},
    job::StoredResult,
    retention,
    store::{
        StoreError,
        idempotency::{Claim, IdempotencyRecord},
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
    replay_window: Millis,
    is_held: bool,
}

/// A lease that a task claims and renews while the call runs.
pub struct RenewedLease {
    stop: oneshot::Sender<()>,
    renewal: JoinHandle<Lease>,
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
        let replay_window = match identity.source {
            KeySource::Explicit => retention::KEYED_ANSWER,
            KeySource::SdkInvocation { .. } | KeySource::Fingerprint { .. } => retention::ANSWER,
        };
        Self { app: app.clone(), claim, replay_window, is_held: false }
    }

    /// Claims the call, or renews the claim. Returns the existing record if another process runs
    /// the call or the call is answered.
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
    /// the lease from then on.
    pub fn renew(self) -> RenewedLease {
        let (stop, stopped) = oneshot::channel();
        RenewedLease { stop, renewal: tokio::spawn(self.renew_until(stopped)) }
    }

    /// Renews the lease until `stopped`. A write in progress is completed first, so that it cannot
    /// follow the answer.
    async fn renew_until(mut self, mut stopped: oneshot::Receiver<()>) -> Self {
        let clock = self.app.clock.clone();
        loop {
            let pause = if self.is_held { RENEW_INTERVAL } else { CLAIM_DELAY };
            tokio::select! {
                _ = &mut stopped => return self,
                () = clock.sleep_until(clock.now() + pause) => {}
            }
            match self.claim().await {
                Ok(None) => {}
                // Another attempt runs, which this one did not see. Its claim stands.
                Ok(Some(_)) => return self,
                Err(error) => {
                    warn!(%error, "failed to claim a call; a retry in another process may be charged again");
                }
            }
        }
    }
}

impl RenewedLease {
    /// Releases the call, so that the next attempt runs.
    pub async fn release(self) {
        if let Some(lease) = self.stop().await
            && let Err(error) = lease.app.idempotency_records.release(&lease.claim).await
        {
            warn!(%error, "failed to release a call; its retries wait until the lease ends");
        }
    }

    /// Stores the answer, if the lease is held. `None` is an answer that is too large to store.
    pub async fn store_answer(self, answer: impl FnOnce() -> Option<StoredResult>) {
        let Some(lease) = self.stop().await else { return };
        let now = lease.app.clock.now();
        let (records, answer) = (&lease.app.idempotency_records, answer());
        let store = || records.answer(&lease.claim, answer.as_ref(), now + lease.replay_window, now);
        // Storing it twice is the same as once.
        let stored = match store().await {
            Err(StoreError::Unavailable(_)) => store().await,
            stored => stored,
        };
        if let Err(error) = stored {
            warn!(%error, "failed to store an answer; a retry in another process may be charged again");
        }
    }

    /// Stops the renewal and returns the lease, if it is held.
    async fn stop(self) -> Option<Lease> {
        drop(self.stop);
        self.renewal.await.ok().filter(|lease| lease.is_held)
    }
}
