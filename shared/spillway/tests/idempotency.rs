//! Idempotency records, against DynamoDB on the wire.

#[path = "support/dynamodb.rs"]
mod dynamodb;

use std::collections::HashMap;

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use bytes::Bytes;
use dynamodb::Dynamodb;
use futures_util::future::join_all;
use spillway::{
    job::StoredResult,
    store::{
        idempotency::{CallState, Claim, IdempotencyRecord, IdempotencyRecords, PackedAnswer},
        tables,
    },
    units::{Millis, UnixMs},
};

const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_123);
const LEASE: Millis = Millis::from_s(20);

const RUNNING: CallState = CallState::Running { is_awaited: false };

async fn setup() -> (Dynamodb, IdempotencyRecords) {
    let dynamodb = dynamodb::start().await;
    tables::create_jobs(&dynamodb.client, &dynamodb.table).await.expect("a table");
    let records = IdempotencyRecords::new(dynamodb.client.clone(), &dynamodb.table);
    (dynamodb, records)
}

fn claim(owner: &str) -> Claim {
    Claim { key: [7; 32], fingerprint: [9; 32], owner: owner.into(), since: NOW }
}

fn answer(bytes: usize) -> StoredResult {
    let headers = [("content-type", "text/event-stream"), ("x-request-id", "r")];
    StoredResult { status: 200, headers: headers.into(), body: Bytes::from(vec![0xff; bytes]) }
}

fn packed(answer: &StoredResult) -> PackedAnswer {
    PackedAnswer::new(answer).expect("it fits into a row")
}

async fn state(records: &IdempotencyRecords, now: UnixMs) -> Option<CallState> {
    records.find(&[7; 32], now).await.expect("read").map(|found| found.state)
}

#[tokio::test]
async fn one_of_many_concurrent_claims_succeeds() {
    let (_dynamodb, records) = setup().await;
    let owners: Vec<String> = (0..10).map(|n| format!("owner-{n}")).collect();
    let claims = owners.iter().map(|owner| {
        let records = &records;
        async move { records.claim(&claim(owner), NOW + LEASE, NOW).await.expect("answered") }
    });
    let found = join_all(claims).await;
    assert_eq!(found.iter().filter(|found| found.is_none()).count(), 1);
    for found in found.into_iter().flatten() {
        assert_eq!((found.fingerprint, found.since, found.state), ([9; 32], NOW, RUNNING));
    }
}

#[tokio::test]
async fn a_claim_holds_until_its_lease_ends_unless_its_owner_renews_it() {
    let (_dynamodb, records) = setup().await;
    let take = async |owner: &str, now: UnixMs| {
        records.claim(&claim(owner), now + LEASE, now).await.expect("answered").is_none()
    };
    let renew = async |owner: &str, now: UnixMs| records.renew(&claim(owner), now + LEASE).await.expect("answered");
    assert!(!renew("owner-a", NOW).await, "nothing is claimed");
    assert!(take("owner-a", NOW).await);
    assert!(!take("owner-b", NOW + LEASE - Millis::from_ms(1)).await);
    assert!(!renew("owner-b", NOW + LEASE - Millis::from_ms(1)).await);
    assert!(renew("owner-a", NOW + LEASE - Millis::from_ms(1)).await);
    assert!(!take("owner-b", NOW + LEASE).await);
    assert_eq!(state(&records, NOW + LEASE * 2 - Millis::from_ms(2)).await, Some(RUNNING));
    assert_eq!(state(&records, NOW + LEASE * 2 - Millis::from_ms(1)).await, None, "its process died");
    assert!(take("owner-b", NOW + LEASE * 2 - Millis::from_ms(1)).await);
    assert!(!take("owner-a", NOW + LEASE * 2).await, "another process runs it");
    assert!(!renew("owner-a", NOW + LEASE * 2).await, "another process runs it");
}

#[tokio::test]
async fn an_answer_is_returned_unchanged_until_it_expires() {
    let (_dynamodb, records) = setup().await;
    assert_eq!(state(&records, NOW).await, None);
    let owned = claim("owner-a");
    assert_eq!(records.claim(&owned, NOW + LEASE, NOW).await, Ok(None));
    let stored = answer(1024 * 1024);
    for _ in 0..2 {
        let packed = packed(&stored);
        let kept_until = NOW + Millis::from_s(60);
        records.answer(&owned, Some(&packed), kept_until, NOW + Millis::from_ms(5)).await.expect("stored");
    }
    let answered = CallState::Answered { ended_at: NOW + Millis::from_ms(5), answer: stored };
    assert_eq!(state(&records, NOW + Millis::from_ms(59_999)).await, Some(answered.clone()));
    assert_eq!(state(&records, NOW + Millis::from_s(60)).await, None);
    let found =
        records.claim(&owned, NOW + LEASE, NOW + Millis::from_ms(6)).await.expect("answered").expect("a record");
    assert_eq!(found.state, answered, "a late renewal changes nothing");
    assert_eq!(records.claim(&claim("owner-b"), NOW + LEASE, NOW + Millis::from_s(60)).await, Ok(None));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_recorded_as_such() {
    let (_dynamodb, records) = setup().await;
    let owned = claim("owner-a");
    assert_eq!(records.claim(&owned, NOW + LEASE, NOW).await, Ok(None));
    records.answer(&owned, None, NOW + Millis::from_s(60), NOW + Millis::from_ms(5)).await.expect("stored");
    assert_eq!(
        state(&records, NOW + Millis::from_ms(6)).await,
        Some(CallState::TooLarge { ended_at: NOW + Millis::from_ms(5) })
    );
}

/// Returns the size of an item (Amazon DynamoDB Developer Guide, "DynamoDB Item sizes and
/// formats").
fn item_bytes(item: &HashMap<String, AttributeValue>) -> usize {
    let value_bytes = |value: &AttributeValue| match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::B(blob) => blob.as_ref().len(),
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        value => panic!("{value:?}"),
    };
    item.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

#[tokio::test]
async fn a_small_answer_takes_one_write_unit() {
    let (dynamodb, records) = setup().await;
    let owned = Claim { owner: "0".repeat(32), ..claim("") };
    assert_eq!(records.claim(&owned, NOW + LEASE, NOW).await, Ok(None));
    // The largest small answer: each byte more makes it a little larger.
    let body = |bytes: usize| (0..bytes).map(|n| (n * n / 7 % 251) as u8).collect::<Vec<u8>>();
    let stored = |bytes| StoredResult { body: body(bytes).into(), ..answer(0) };
    let largest = (0..2_000).rev().find_map(|bytes| PackedAnswer::small(&stored(bytes))).expect("a small answer");
    records.answer(&owned, Some(&largest), NOW + LEASE, NOW).await.expect("stored");
    let items = dynamodb.client.scan().table_name(&dynamodb.table).send().await.expect("read").items.expect("rows");
    let bytes = item_bytes(&items[0]);
    assert!((900..=1_024).contains(&bytes), "{bytes} bytes");
}

#[tokio::test]
async fn an_answer_that_an_older_version_stored_is_replayed() {
    let (dynamodb, records) = setup().await;
    assert_eq!(records.claim(&claim("owner-a"), NOW + LEASE, NOW).await, Ok(None));
    let mut items = dynamodb.client.scan().table_name(&dynamodb.table).send().await.expect("read").items.expect("rows");
    let mut item = items.remove(0);
    item.insert("ended_ms".into(), AttributeValue::N(NOW.as_ms().to_string()));
    item.insert("status".into(), AttributeValue::N("200".into()));
    item.insert("headers".into(), AttributeValue::S(r#"[["content-type","text/plain"]]"#.into()));
    item.insert("body".into(), AttributeValue::B(Blob::new("hello")));
    dynamodb.client.put_item().table_name(&dynamodb.table).set_item(Some(item)).send().await.expect("written");
    let headers = [("content-type", "text/plain")];
    let stored = StoredResult { status: 200, headers: headers.into(), body: Bytes::from_static(b"hello") };
    assert_eq!(state(&records, NOW).await, Some(CallState::Answered { ended_at: NOW, answer: stored }));
}

#[tokio::test]
async fn only_its_owner_can_release_a_call_which_can_then_be_claimed() {
    let (_dynamodb, records) = setup().await;
    assert_eq!(records.claim(&claim("owner-a"), NOW + LEASE, NOW).await, Ok(None));
    records.release(&claim("owner-b")).await.expect("ignored");
    records.answer(&claim("owner-b"), Some(&packed(&answer(1))), NOW + LEASE, NOW).await.expect("ignored");
    assert_eq!(records.release_unless_awaited(&claim("owner-b")).await, Ok(true), "it has nothing to release");
    assert_eq!(state(&records, NOW).await, Some(RUNNING));
    records.release(&claim("owner-a")).await.expect("released");
    assert_eq!(state(&records, NOW).await, None);
    assert_eq!(records.claim(&claim("owner-b"), NOW + LEASE, NOW).await, Ok(None));
}

/// A step of the process that runs a call, or of an attempt in another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Claim,
    Renew,
    /// The call ends with an answer that no timeout makes useful.
    Answer,
    /// The call ends with a failure.
    Fail,
    /// The process dies: it renews nothing any more.
    Die,
    Look,
    Mark,
}

/// Returns all sequences that keep the order of both lists.
fn interleavings(first: &[Step], second: &[Step]) -> Vec<Vec<Step>> {
    let (Some(a), Some(b)) = (first.first(), second.first()) else { return vec![[first, second].concat()] };
    let after = |step: Step, rest: Vec<Vec<Step>>| rest.into_iter().map(move |rest| [vec![step], rest].concat());
    after(*a, interleavings(&first[1..], second)).chain(after(*b, interleavings(first, &second[1..]))).collect()
}

/// A call, its runner and an attempt that waits, over one row.
struct Race<'r> {
    records: &'r IdempotencyRecords,
    claim: Claim,
    now: UnixMs,
    seen: Option<IdempotencyRecord>,
    is_marked: bool,
    is_stored: bool,
}

impl Race<'_> {
    async fn step(&mut self, step: Step) {
        self.now += Millis::from_s(1);
        let (records, claim, now) = (self.records, &self.claim, self.now);
        match step {
            Step::Claim => assert_eq!(records.claim(claim, now + LEASE, now).await, Ok(None)),
            Step::Renew => assert_eq!(records.renew(claim, now + LEASE).await, Ok(true)),
            Step::Answer => {
                self.is_stored = !records.release_unless_awaited(claim).await.expect("answered");
                if self.is_stored {
                    records.answer(claim, Some(&packed(&answer(3))), now + LEASE * 3, now).await.expect("stored");
                }
            }
            Step::Fail => records.release(claim).await.expect("released"),
            Step::Die => {}
            Step::Look => self.seen = records.find(&claim.key, now).await.expect("read"),
            Step::Mark => {
                if let Some(seen) = self.seen.as_ref().filter(|seen| matches!(seen.state, CallState::Running { .. })) {
                    self.is_marked |= records.mark(&claim.key, &seen.owner, now).await.expect("answered");
                }
            }
        }
    }
}

#[tokio::test]
async fn in_every_order_a_marked_call_is_answered_from_the_store_or_runs_again() {
    let (_dynamodb, records) = setup().await;
    let (mut number, mut marked, mut stored) = (0u8, 0, 0);
    for end in [Step::Answer, Step::Fail, Step::Die] {
        let runner = [Step::Claim, Step::Renew, end];
        for steps in interleavings(&runner, &[Step::Look, Step::Mark, Step::Look, Step::Mark]) {
            number += 1;
            let claim = Claim { key: [number; 32], ..claim("runner") };
            let mut race = Race { records: &records, claim, now: NOW, seen: None, is_marked: false, is_stored: false };
            for step in &steps {
                race.step(*step).await;
            }
            marked += u32::from(race.is_marked);
            stored += u32::from(race.is_stored);
            assert_eq!(race.is_stored, race.is_marked && end == Step::Answer, "{steps:?}");
            // Whatever has happened, the waiting attempt soon replays the answer or runs.
            race.now += LEASE;
            race.step(Step::Look).await;
            let seen = race.seen.map(|record| record.state);
            let is_replayed = matches!(&seen, Some(CallState::Answered { answer: found, .. }) if *found == answer(3));
            assert_eq!((is_replayed, seen.is_none()), (race.is_stored, !race.is_stored), "{steps:?}: {seen:?}");
        }
    }
    assert!(marked > 20 && stored > 5 && stored < marked, "{marked} marked, {stored} stored");
}
