//! Refusals that are not known to be written.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    quota::LimitName,
    store::{
        StoreError,
        ledger::nonce::{Nonce, NonceAttribute},
    },
    units::UnixMs,
};

/// Refusals by one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RefusalTally {
    pub count: u64,
    pub last_at: UnixMs,
}

impl RefusalTally {
    fn merge(&mut self, added: Self) {
        self.count += added.count;
        self.last_at = self.last_at.max(added.last_at);
    }
}

/// Refusals of one write. It has the same nonce each time that it is sent, so that it takes effect
/// once.
#[derive(Debug, Clone)]
pub(super) struct RefusalBatch {
    pub nonce: Nonce,
    pub tallies: BTreeMap<LimitName, RefusalTally>,
}

/// Refusals of one tenant.
#[derive(Default)]
struct OfTenant {
    /// Refusals of no write yet.
    new: BTreeMap<LimitName, RefusalTally>,
    /// Refusals of a write that is under way, or whose outcome is not known.
    sent: Option<RefusalBatch>,
    /// Held during a write.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl OfTenant {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.sent.is_none()
    }
}

/// Pending refusals of all tenants. A tenant has an entry as long as a task writes its refusals.
/// Clones share them.
#[derive(Clone, Default)]
pub(super) struct Pending(Arc<Mutex<HashMap<String, OfTenant>>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, OfTenant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a refusal. Returns whether the caller must start the task that writes.
    pub(super) fn add(&self, tenant: &str, limits: &[LimitName], now: UnixMs) -> bool {
        if limits.is_empty() {
            return false;
        }
        let mut pending = self.lock();
        let starts = !pending.contains_key(tenant);
        let of_tenant = pending.entry(tenant.to_owned()).or_default();
        for limit in limits {
            of_tenant.new.entry(*limit).or_default().merge(RefusalTally { count: 1, last_at: now });
        }
        starts
    }

    /// Returns the refusals by `limit` that are not known to be written.
    pub(super) fn tally(&self, tenant: &str, limit: LimitName) -> RefusalTally {
        let mut tally = RefusalTally::default();
        if let Some(of_tenant) = self.lock().get(tenant) {
            let sent = of_tenant.sent.as_ref().map(|batch| &batch.tallies);
            let found = sent.into_iter().chain([&of_tenant.new]).filter_map(|tallies| tallies.get(&limit));
            found.for_each(|found| tally.merge(*found));
        }
        tally
    }

    /// Returns the tenants with pending refusals.
    pub(super) fn tenants(&self) -> Vec<String> {
        self.lock().iter().filter(|(_, of_tenant)| !of_tenant.is_empty()).map(|(tenant, _)| tenant.clone()).collect()
    }

    /// Whether a tenant has pending refusals.
    pub(super) fn has(&self, tenant: &str) -> bool {
        self.lock().get(tenant).is_some_and(|of_tenant| !of_tenant.is_empty())
    }

    /// Returns the lock of a tenant that is held during a write.
    pub(super) fn writing(&self, tenant: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.lock().get(tenant).map(|of_tenant| Arc::clone(&of_tenant.writing)).unwrap_or_default()
    }

    /// Returns the batch to write: the last one, if its outcome is not known, or all new refusals.
    ///
    /// # Errors
    /// Returns an error if the system cannot generate random bytes.
    pub(super) fn next_batch(&self, tenant: &str) -> Result<Option<RefusalBatch>, StoreError> {
        let mut pending = self.lock();
        let Some(of_tenant) = pending.get_mut(tenant) else { return Ok(None) };
        if of_tenant.sent.is_none() && !of_tenant.new.is_empty() {
            let nonce = Nonce::new(NonceAttribute::Added)?;
            of_tenant.sent = Some(RefusalBatch { nonce, tallies: std::mem::take(&mut of_tenant.new) });
        }
        Ok(of_tenant.sent.clone())
    }

    /// Notes that the last batch was written.
    pub(super) fn confirm(&self, tenant: &str) {
        if let Some(of_tenant) = self.lock().get_mut(tenant) {
            of_tenant.sent = None;
        }
    }

    /// Removes a tenant without pending refusals. Returns whether it did, so that its task ends.
    pub(super) fn end_if_empty(&self, tenant: &str) -> bool {
        let mut pending = self.lock();
        let is_empty = pending.get(tenant).is_none_or(OfTenant::is_empty);
        if is_empty {
            pending.remove(tenant);
        }
        is_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Allowance;

    const REQUESTS: LimitName = LimitName::Allowance(Allowance::OtherRequests);
    const SLOTS: LimitName = LimitName::ModelCapacity;

    #[test]
    fn a_batch_is_the_same_until_it_is_known_to_be_written() {
        let pending = Pending::default();
        let at = UnixMs::from_ms;
        assert!(pending.add("t", &[REQUESTS, SLOTS], at(1)), "the first refusal starts the task");
        assert!(!pending.add("t", &[REQUESTS], at(2)));
        let first = pending.next_batch("t").expect("random").expect("refusals");
        assert_eq!(first.tallies[&REQUESTS], RefusalTally { count: 2, last_at: at(2) });
        assert_eq!(first.tallies[&SLOTS], RefusalTally { count: 1, last_at: at(1) });
        pending.add("t", &[REQUESTS], at(3));
        let again = pending.next_batch("t").expect("random").expect("refusals");
        assert_eq!(format!("{first:?}"), format!("{again:?}"));
        assert_eq!(pending.tally("t", REQUESTS), RefusalTally { count: 3, last_at: at(3) });
        assert!(!pending.end_if_empty("t"));
        pending.confirm("t");
        let second = pending.next_batch("t").expect("random").expect("refusals");
        assert_eq!(second.tallies, BTreeMap::from([(REQUESTS, RefusalTally { count: 1, last_at: at(3) })]));
        pending.confirm("t");
        assert!(pending.end_if_empty("t") && pending.tenants().is_empty());
        assert!(pending.add("t", &[REQUESTS], at(4)), "the next refusal starts a task again");
    }
}
