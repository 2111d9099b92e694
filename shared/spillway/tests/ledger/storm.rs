//! Many at once, from several processes: as many are admitted as there is room for, not one more.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use futures_util::future::join_all;
use spillway::{
    clock::Clock,
    quota::{Attribute, Charge, EPOCH_MS, Limits, Settled},
    store::ledger::{Account, Held, Ledger, Outcome},
};

use crate::{dynamodb::Dynamodb, item::policy};

const RUNS: usize = 21;
const PROCESSES: usize = 8;
const TASKS: usize = 64;

/// Refusals in a row after which everything counts as full. Each draws two shards of four, so that one with room is never
/// drawn is as good as impossible.
const REFUSALS_IN_A_ROW: usize = 60;

struct Storm {
    /// Runs as long as this lives.
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

/// `None` once it is refused.
async fn reserve(ledger: &Ledger, account: &Account, charge: Charge, expires_ms: u64) -> Option<Held> {
    loop {
        match ledger.reserve(account, charge, expires_ms).await.expect("reached") {
            Outcome::Reserved(held, _) => return Some(held),
            Outcome::Refused(..) => return None,
            // Others kept getting in between: ask again.
            Outcome::Busy => {}
            Outcome::Stale => panic!("the limits did not change"),
        }
    }
}

impl Storm {
    /// All tasks reserve until they are refused, and one of them then looks for the last room; how many were admitted.
    async fn fill(&self, account: &Account, charge: Charge) -> usize {
        let expires_ms = self.clock.now_ms() + 600_000;
        let tasks = (0..TASKS).map(|task| {
            let (ledger, account) = (self.ledgers[task % PROCESSES].clone(), account.clone());
            tokio::spawn(async move {
                let mut admitted = 0;
                while reserve(&ledger, &account, charge, expires_ms).await.is_some() {
                    admitted += 1;
                }
                admitted
            })
        });
        let mut admitted: usize = join_all(tasks).await.into_iter().map(|count| count.expect("no panic")).sum();
        let mut refused = 0;
        while account.shards > 1 && refused < REFUSALS_IN_A_ROW {
            match reserve(&self.ledgers[0], account, charge, expires_ms).await {
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

/// On one item exactly what the limit allows; on several never more, and each is as full as it can be in the end. A request
/// of 7 tokens that is refused leaves less than 7 free, so with 4 shards of 75 tokens each holds 70.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_are_admitted_as_there_is_room_for() {
    let storm = storm().await;
    let requests = Limits { requests_per_minute: Some(48), ..Limits::default() };
    let in_flight = Limits { in_flight: Some(32), ..Limits::default() };
    let tokens = Limits { tokens_per_minute: Some(300), ..Limits::default() };
    for run in 0..RUNS {
        let (limits, most) = [(requests, [48, 4 * 12]), (in_flight, [32, 4 * 8]), (tokens, [42, 4 * 10])][run % 3];
        for (shards, most) in [1, 4].into_iter().zip(most) {
            let account = account(format!("T#{run}/{shards}"), limits, shards);
            assert_eq!(storm.fill(&account, charge(7)).await, most, "run {run}, {shards} shards");
            let (each, now) = (most as u64 / shards, storm.clock.now_ms() / EPOCH_MS);
            for image in storm.ledgers[0].images(&account).await.expect("reached") {
                // A window that they all are in: from before the first of them, and not yet over.
                let of = |window: fn(u64) -> Attribute| {
                    (now - 11..=now).map(|start| image.get(window(start))).max().expect("twelve windows")
                };
                let held = (of(Attribute::Requests), of(Attribute::Tokens), image.get(Attribute::InFlight));
                assert_eq!(held, (each, 7 * each, each), "run {run}, {shards} shards");
            }
        }
    }
}

/// Reserves and settles as fast as it can, and counts who runs by itself.
async fn churn(ledger: Ledger, account: Account, expires_ms: u64, running: Arc<AtomicI64>) -> (i64, usize) {
    let (mut most, mut admitted) = (0, 0);
    for _ in 0..2 {
        let Some(held) = reserve(&ledger, &account, charge(5), expires_ms).await else {
            tokio::task::yield_now().await;
            continue;
        };
        admitted += 1;
        most = most.max(running.fetch_add(1, Ordering::SeqCst) + 1);
        tokio::task::yield_now().await;
        let settled = Settled { charge: charge(3), ..Settled::default() };
        running.fetch_sub(1, Ordering::SeqCst);
        ledger.settle(held, &settled).await.expect("reached");
    }
    (most, admitted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_comes_and_goes_never_exceeds_what_may_run_and_leaves_nothing_behind() {
    let storm = storm().await;
    for run in 0..RUNS {
        let limits = Limits { in_flight: Some(16), ..Limits::default() };
        let account = account(format!("T#{run}"), limits, 1);
        let (running, expires_ms) = (Arc::new(AtomicI64::new(0)), storm.clock.now_ms() + 600_000);
        let tasks = (0..TASKS).map(|task| {
            tokio::spawn(churn(storm.ledgers[task % PROCESSES].clone(), account.clone(), expires_ms, running.clone()))
        });
        let ended: Vec<(i64, usize)> = join_all(tasks).await.into_iter().map(|one| one.expect("no panic")).collect();
        let most = ended.iter().map(|(most, _)| *most).max().expect("tasks");
        let admitted: usize = ended.iter().map(|(_, admitted)| admitted).sum();
        assert!((1..=16).contains(&most), "{most} ran at once in run {run}");
        let images = storm.ledgers[0].images(&account).await.expect("reached");
        assert_eq!(images[0].get(Attribute::InFlight), 0, "run {run}");
        let now = storm.clock.now_ms() / EPOCH_MS;
        let tokens = (now - 11..=now).map(|start| images[0].get(Attribute::Tokens(start))).max();
        assert_eq!(tokens, Some(3 * admitted as u64), "run {run}: what was used stays charged, and nothing else");
    }
}
