//! Many concurrent requests from several processes: exactly as many are admitted as fit.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use futures_util::future::join_all;
use spillway::{
    clock::Clock,
    quota::{Attribute, Charge, EPOCH, Limits, Settled},
    store::ledger::{Account, HeldReservation, Ledger, ReserveOutcome},
    units::{Millis, UnixMs},
};

use crate::{dynamodb::Dynamodb, item::policy};

const RUNS: usize = 21;
const PROCESSES: usize = 8;
const TASKS: usize = 64;

/// Consecutive refusals after which all shards count as full. Each request draws two shards of
/// four, so missing a shard with room this often is practically impossible.
const CONSECUTIVE_REFUSALS: usize = 60;

struct Storm {
    /// Runs until it is dropped.
    _dynamodb: Dynamodb,
    clock: Clock,
    ledgers: Vec<Ledger>,
}

async fn storm() -> Storm {
    let dynamodb = crate::start().await;
    let clock = Clock::default();
    let ledgers = (0..PROCESSES).map(|_| crate::ledger(&dynamodb, &clock)).collect();
    Storm { _dynamodb: dynamodb, clock, ledgers }
}

fn account(name: String, limits: Limits, shards: u64) -> Account {
    Account { name, policy: policy(limits, 12), shards }
}

/// Reserves; `None` if it is refused.
async fn reserve(ledger: &Ledger, account: &Account, charge: Charge, expires_at: UnixMs) -> Option<HeldReservation> {
    loop {
        match ledger.reserve(account, charge, expires_at).await.expect("reached") {
            ReserveOutcome::Reserved(held, _) => return Some(held),
            ReserveOutcome::Refused(..) => return None,
            // Writes of other processes interfered: try again.
            ReserveOutcome::Busy => {}
            ReserveOutcome::Stale => panic!("the limits did not change"),
        }
    }
}

impl Storm {
    /// All tasks reserve until they are refused, then one task looks for the remaining room.
    /// Returns the number of admitted requests.
    async fn fill(&self, account: &Account, charge: Charge) -> usize {
        let expires_at = self.clock.now() + Millis::from_s(600);
        let tasks = (0..TASKS).map(|task| {
            let (ledger, account) = (self.ledgers[task % PROCESSES].clone(), account.clone());
            tokio::spawn(async move {
                let mut admitted = 0;
                while reserve(&ledger, &account, charge, expires_at).await.is_some() {
                    admitted += 1;
                }
                admitted
            })
        });
        let mut admitted: usize = join_all(tasks).await.into_iter().map(|count| count.expect("no panic")).sum();
        let mut refused = 0;
        while account.shards > 1 && refused < CONSECUTIVE_REFUSALS {
            match reserve(&self.ledgers[0], account, charge, expires_at).await {
                Some(_) => (admitted, refused) = (admitted + 1, 0),
                None => refused += 1,
            }
        }
        admitted
    }
}

fn charge(minute_tokens: u64) -> Charge {
    Charge { requests: 1, minute_tokens, ..Charge::default() }
}

/// One item admits exactly the limit. Several items never admit more, and each is as full as
/// possible in the end. A refused request of 7 tokens leaves less than 7 free, so each of 4 shards
/// of 75 tokens holds 70.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_as_many_requests_are_admitted_as_fit() {
    let storm = storm().await;
    let requests = Limits { requests_per_minute: Some(48), ..Limits::default() };
    let in_flight = Limits { in_flight: Some(32), ..Limits::default() };
    let tokens = Limits { tokens_per_minute: Some(300), ..Limits::default() };
    for run in 0..RUNS {
        let (limits, expected) = [(requests, [48, 4 * 12]), (in_flight, [32, 4 * 8]), (tokens, [42, 4 * 10])][run % 3];
        for (shards, expected) in [1, 4].into_iter().zip(expected) {
            let account = account(format!("T#{run}/{shards}"), limits, shards);
            assert_eq!(storm.fill(&account, charge(7)).await, expected, "run {run}, {shards} shards");
            let (each, now) = (expected as u64 / shards, storm.clock.now() / EPOCH);
            for image in storm.ledgers[0].images(&account).await.expect("reached") {
                // A window that contains all of them: it began before the first and has not ended.
                let held_in = |window: fn(u64) -> Attribute| {
                    (now - 11..=now).map(|start| image.get(window(start))).max().expect("twelve windows")
                };
                let held = (held_in(Attribute::Requests), held_in(Attribute::Tokens), image.get(Attribute::InFlight));
                assert_eq!(held, (each, 7 * each, each), "run {run}, {shards} shards");
            }
        }
    }
}

/// Reserves and settles as fast as possible. Returns the maximum number of running requests that it
/// saw, and the number that it ran.
async fn churn(ledger: Ledger, account: Account, expires_at: UnixMs, running: Arc<AtomicI64>) -> (i64, usize) {
    let (mut max_running, mut admitted) = (0, 0);
    for _ in 0..2 {
        let Some(held) = reserve(&ledger, &account, charge(5), expires_at).await else {
            tokio::task::yield_now().await;
            continue;
        };
        admitted += 1;
        max_running = max_running.max(running.fetch_add(1, Ordering::SeqCst) + 1);
        tokio::task::yield_now().await;
        let settled = Settled { charge: charge(3), ..Settled::default() };
        running.fetch_sub(1, Ordering::SeqCst);
        ledger.settle(held, &settled).await.expect("reached");
    }
    (max_running, admitted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn churn_never_exceeds_the_limit_and_leaves_no_reservation() {
    let storm = storm().await;
    for run in 0..RUNS {
        let limits = Limits { in_flight: Some(16), ..Limits::default() };
        let account = account(format!("T#{run}"), limits, 1);
        let (running, expires_at) = (Arc::new(AtomicI64::new(0)), storm.clock.now() + Millis::from_s(600));
        let tasks = (0..TASKS).map(|task| {
            tokio::spawn(churn(storm.ledgers[task % PROCESSES].clone(), account.clone(), expires_at, running.clone()))
        });
        let ended: Vec<(i64, usize)> = join_all(tasks).await.into_iter().map(|task| task.expect("no panic")).collect();
        let max_running = ended.iter().map(|(running, _)| *running).max().expect("tasks");
        let admitted: usize = ended.iter().map(|(_, admitted)| admitted).sum();
        assert!((1..=16).contains(&max_running), "{max_running} ran concurrently in run {run}");
        let images = storm.ledgers[0].images(&account).await.expect("reached");
        assert_eq!(images[0].get(Attribute::InFlight), 0, "run {run}");
        let now = storm.clock.now() / EPOCH;
        let tokens = (now - 11..=now).map(|start| images[0].get(Attribute::Tokens(start))).max();
        assert_eq!(tokens, Some(3 * admitted as u64), "run {run}: exactly the usage stays charged");
    }
}
