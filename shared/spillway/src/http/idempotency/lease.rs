//! The claim on a call in the store: made when it takes long or the caller asked for it, renewed while it runs.

use tokio::{sync::oneshot, task::JoinHandle};
use tracing::warn;

use crate::{
    app::App,
    idempotency::{Identity, KEPT_MS, Name},
    job::StoredResult,
    store::{
        StoreError,
        idempotency::{Claim, IdempotencyRecord},
    },
    units::{Millis, UnixMs},
};

/// How long a call runs before it is claimed, in milliseconds: most end sooner and cost no write.
const CLAIM_AFTER_MS: u64 = 3_000;

/// How long a claim holds without being renewed, in milliseconds.
const LEASE_MS: u64 = 20_000;

/// How often a claim is renewed, in milliseconds: twice before its end.
const RENEW_MS: u64 = 7_000;

/// How long the answer to a request with an `Idempotency-Key` is kept, in milliseconds.
const EXPLICIT_KEPT_MS: u64 = 60 * 60 * 1_000;

/// A right to run a call.
pub struct Lease {
    app: App,
    claim: Claim,
    kept_ms: u64,
}

/// A lease that renews itself.
pub struct Kept {
    lease: Lease,
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<bool>,
}

impl Lease {
    pub fn new(app: &App, identity: &Identity, started_ms: u64) -> Self {
        let claim = Claim {
            key: identity.key,
            payload: identity.payload,
            owner: uuid::Uuid::new_v4().simple().to_string(),
            since: UnixMs::from_ms(started_ms),
        };
        let kept_ms = if identity.name == Name::Explicit { EXPLICIT_KEPT_MS } else { KEPT_MS };
        Self { app: app.clone(), claim, kept_ms }
    }

    /// Claims the call, or renews the claim; what is there if it is another's.
    pub async fn claim(&self) -> Result<Option<IdempotencyRecord>, StoreError> {
        let now = self.app.clock.now();
        self.app.idempotency_records.claim(&self.claim, now + Millis::from_ms(LEASE_MS), now).await
    }

    /// Claims the call when it has run for long, unless it is claimed, and keeps the claim from then on.
    pub fn keep(self, is_claimed: bool) -> Kept {
        let (stop, stopped) = oneshot::channel();
        let lease = Self { app: self.app.clone(), claim: self.claim.clone(), kept_ms: self.kept_ms };
        Kept { lease: self, stop, keeper: tokio::spawn(lease.renew(is_claimed, stopped)) }
    }

    /// Whether the call is claimed when it ends. A write that is under way then is awaited, so that it cannot come after
    /// the answer.
    async fn renew(self, mut is_claimed: bool, mut stopped: oneshot::Receiver<()>) -> bool {
        let clock = self.app.clock.clone();
        loop {
            let wait_ms = if is_claimed { RENEW_MS } else { CLAIM_AFTER_MS };
            tokio::select! {
                _ = &mut stopped => return is_claimed,
                () = clock.sleep_until(crate::units::UnixMs::from_ms(clock.now_ms() + wait_ms)) => {}
            }
            match self.claim().await {
                Ok(None) => is_claimed = true,
                // Another attempt runs, unseen by this one: its claim stands.
                Ok(Some(_)) => return false,
                Err(error) => warn!(%error, "a call was not claimed; a repetition elsewhere may be charged as well"),
            }
        }
    }
}

impl Kept {
    /// Gives the call back, so that the next attempt runs.
    pub async fn release(self) {
        if let Some(lease) = self.stop().await
            && let Err(error) = lease.app.idempotency_records.release(&lease.claim).await
        {
            warn!(%error, "a call that failed stays claimed until its lease ends");
        }
    }

    /// Stores the answer, if the call was claimed.
    pub async fn answer(self, answer: impl FnOnce() -> Option<StoredResult>) {
        let Some(lease) = self.stop().await else { return };
        let now = lease.app.clock.now();
        let (records, answer) = (&lease.app.idempotency_records, answer());
        let until = now + Millis::from_ms(lease.kept_ms);
        let store = || records.answer(&lease.claim, answer.as_ref(), until, now);
        // Storing it twice is the same as once.
        let stored = match store().await {
            Err(StoreError::Unavailable(_)) => store().await,
            stored => stored,
        };
        if let Err(error) = stored {
            warn!(%error, "an answer was not stored; a repetition elsewhere may be charged as well");
        }
    }

    /// The lease, if it is held.
    async fn stop(self) -> Option<Lease> {
        drop(self.stop);
        self.keeper.await.unwrap_or_default().then_some(self.lease)
    }
}
