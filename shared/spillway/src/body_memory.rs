//! Memory for the bodies of requests that a process holds at the same time.
//!
//! Room is taken in two steps: for the bytes of a body before it is read, and for what is built of
//! them before it is parsed. The steps have separate memory, so bodies that wait for the second
//! step never keep each other from it. One tenant can take half of each, so it delays only itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    dialect::json,
    problem::{Kind, Problem},
    units::Millis,
};

/// Maximum time for which a request waits for room.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Size of a permit.
const PERMIT_BYTES: usize = 1024;

/// Number of tenants from which on tenants without a body are forgotten.
const MANY_TENANTS: usize = 1_000;

/// Memory for bodies. Clones share it.
#[derive(Clone)]
pub struct BodyMemory {
    read: Arc<Shares>,
    parsed: Arc<Shares>,
}

impl BodyMemory {
    /// Memory of `mib` mebibytes for each step.
    pub fn new(mib: u32) -> Self {
        let shares = || Arc::new(Shares::new(mib * 1024));
        Self { read: shares(), parsed: shares() }
    }

    /// Takes room to read a body of up to `bytes`.
    ///
    /// # Errors
    /// Returns an error if there is no room in time.
    pub async fn to_read(&self, tenant: &str, bytes: usize) -> Result<BodyRoom, Problem> {
        self.read.take(tenant, bytes).await
    }

    /// Takes room to parse `body`. It is given back when the last part of the result is dropped.
    ///
    /// # Errors
    /// Returns an error if there is no room in time.
    pub async fn to_parse(&self, tenant: &str, body: Bytes) -> Result<Bytes, Problem> {
        let room = self.parsed.take(tenant, json::memory(&body)).await?;
        Ok(room.hold(body))
    }
}

/// Memory that the bodies of all tenants share.
struct Shares {
    all: Arc<Semaphore>,
    max_permits: u32,
    tenants: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Shares {
    fn new(max_permits: u32) -> Self {
        let all = Arc::new(Semaphore::new(max_permits as usize));
        Self { all, max_permits, tenants: Mutex::default() }
    }

    async fn take(&self, tenant: &str, bytes: usize) -> Result<BodyRoom, Problem> {
        let max = self.max_permits / 2;
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(max).min(max);
        let of_tenant = acquire(self.of(tenant), permits).await.ok_or_else(tenant_is_full)?;
        let of_all = acquire(Arc::clone(&self.all), permits).await.ok_or_else(process_is_full)?;
        Ok(BodyRoom { of_tenant, of_all })
    }

    /// Returns the share of `tenant`.
    fn of(&self, tenant: &str) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(tenant) {
            return Arc::clone(share);
        }
        if tenants.len() >= MANY_TENANTS {
            tenants.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = Arc::new(Semaphore::new(self.max_permits as usize / 2));
        tenants.insert(tenant.to_owned(), Arc::clone(&share));
        share
    }
}

async fn acquire(semaphore: Arc<Semaphore>, permits: u32) -> Option<OwnedSemaphorePermit> {
    timeout(MAX_WAIT, semaphore.acquire_many_owned(permits)).await.ok()?.ok()
}

/// Room for a body.
#[must_use = "room is given back when it is dropped"]
pub struct BodyRoom {
    of_tenant: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

impl BodyRoom {
    /// Gives back what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let needed = bytes.div_ceil(PERMIT_BYTES);
        for permit in [&mut self.of_tenant, &mut self.of_all] {
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
    }

    /// Returns `body`, which keeps this room until its last part is dropped.
    pub fn hold(self, body: Bytes) -> Bytes {
        Bytes::from_owner(HeldBody { body, _room: self })
    }
}

struct HeldBody {
    body: Bytes,
    _room: BodyRoom,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

fn tenant_is_full() -> Problem {
    let message = "Requests of this tenant take all memory that one tenant may use for bodies in this process. Send fewer \
                   large requests at the same time.";
    Problem { retry_after: Some(Millis::from_s(1)), ..Problem::new(Kind::Throttled, message) }
}

fn process_is_full() -> Problem {
    let message = "This process has no memory for another body now. Try again in a second.";
    Problem { retry_after: Some(Millis::from_s(1)), ..Problem::new(Kind::Unavailable, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_takes_half_of_the_memory_and_leaves_the_rest_to_the_others() {
        let memory = BodyMemory::new(8);
        let first = memory.to_read("a", 4 * MIB).await.expect("room");
        let refused = memory.to_read("a", 1).await.err().map(|problem| (problem.kind, problem.retry_after));
        assert_eq!(refused, Some((Kind::Throttled, Some(Millis::from_s(1)))));
        let second = memory.to_read("b", 4 * MIB).await.expect("room for another tenant");
        assert_eq!(memory.to_read("c", 1).await.err().map(|problem| problem.kind), Some(Kind::Unavailable));
        drop((first, second));
        assert!(memory.to_read("a", 4 * MIB).await.is_ok());
        assert!(memory.to_read("a", 100 * MIB).await.is_ok(), "a body that is larger than the share takes all of it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_keeps_its_room_until_its_last_part_is_dropped() {
        let memory = BodyMemory::new(2);
        let mut room = memory.to_read("a", MIB).await.expect("room");
        room.shrink_to(MIB / 2);
        let body = room.hold(Bytes::from(vec![b' '; MIB / 2]));
        let part = body.slice(1..2);
        assert!(memory.to_read("a", MIB / 2).await.is_ok(), "the excess is given back");
        drop(body);
        assert!(memory.to_read("a", MIB).await.is_err());
        drop(part);
        assert!(memory.to_read("a", MIB).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_many_values_takes_more_room_than_a_text() {
        let memory = BodyMemory::new(64);
        let text = Bytes::from(format!("[\"{}\"]", " ".repeat(280_000)));
        let values = Bytes::from(format!("[{}0]", "0,".repeat(139_999)));
        let (mut texts, mut trees) = (Vec::new(), Vec::new());
        while let Ok(held) = memory.to_parse("a", text.clone()).await {
            texts.push(held);
        }
        while let Ok(held) = memory.to_parse("b", values.clone()).await {
            trees.push(held);
        }
        assert_eq!((texts.len(), trees.len()), (59, 1));
    }

    #[tokio::test]
    async fn tenants_without_a_body_are_forgotten() {
        let shares = Shares::new(1024);
        let _room = shares.take("kept", 1).await.expect("room");
        for tenant in 0..3 * MANY_TENANTS {
            drop(shares.take(&tenant.to_string(), 1).await);
        }
        let tenants = shares.tenants.lock().expect("not poisoned");
        assert!(tenants.len() <= MANY_TENANTS + 1 && tenants.contains_key("kept"));
    }
}
