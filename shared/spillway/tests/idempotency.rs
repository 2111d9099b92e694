//! Idempotency records, against DynamoDB on the wire.

#[path = "support/dynamodb.rs"]
mod dynamodb;

use bytes::Bytes;
use dynamodb::Dynamodb;
use futures_util::future::join_all;
use spillway::{
    job::StoredResult,
    store::{
        idempotency::{CallState, Claim, IdempotencyRecords},
        jobs::MAX_ROW_BODY_BYTES,
        tables,
    },
    units::{Millis, UnixMs},
};

const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_123);
const LEASE: Millis = Millis::from_s(20);

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
        assert_eq!((found.fingerprint, found.since, found.state), ([9; 32], NOW, CallState::Running));
    }
}

#[tokio::test]
async fn a_claim_holds_until_its_lease_ends_unless_its_owner_renews_it() {
    let (_dynamodb, records) = setup().await;
    let take = async |owner: &str, now: UnixMs| {
        records.claim(&claim(owner), now + LEASE, now).await.expect("answered").is_none()
    };
    assert!(take("owner-a", NOW).await);
    assert!(!take("owner-b", NOW + LEASE - Millis::from_ms(1)).await);
    assert!(take("owner-a", NOW + LEASE - Millis::from_ms(1)).await, "renewed");
    assert!(!take("owner-b", NOW + LEASE).await);
    assert_eq!(state(&records, NOW + LEASE * 2 - Millis::from_ms(2)).await, Some(CallState::Running));
    assert_eq!(state(&records, NOW + LEASE * 2 - Millis::from_ms(1)).await, None, "its process died");
    assert!(take("owner-b", NOW + LEASE * 2 - Millis::from_ms(1)).await);
    assert!(!take("owner-a", NOW + LEASE * 2).await, "another process runs it");
}

#[tokio::test]
async fn an_answer_is_returned_unchanged_until_it_expires() {
    let (_dynamodb, records) = setup().await;
    assert_eq!(state(&records, NOW).await, None);
    let owned = claim("owner-a");
    assert_eq!(records.claim(&owned, NOW + LEASE, NOW).await, Ok(None));
    let stored = answer(MAX_ROW_BODY_BYTES);
    records.answer(&owned, Some(&stored), NOW + Millis::from_s(60), NOW + Millis::from_ms(5)).await.expect("stored");
    records
        .answer(&owned, Some(&stored), NOW + Millis::from_s(60), NOW + Millis::from_ms(5))
        .await
        .expect("a repetition is harmless");
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
    for too_large in [Some(answer(MAX_ROW_BODY_BYTES + 1)), None] {
        let owned = claim("owner-a");
        assert_eq!(records.claim(&owned, NOW + LEASE, NOW).await, Ok(None));
        records
            .answer(&owned, too_large.as_ref(), NOW + Millis::from_s(60), NOW + Millis::from_ms(5))
            .await
            .expect("stored");
        assert_eq!(
            state(&records, NOW + Millis::from_ms(6)).await,
            Some(CallState::TooLarge { ended_at: NOW + Millis::from_ms(5) })
        );
        records.release(&owned).await.expect("for the next round");
    }
}

#[tokio::test]
async fn only_its_owner_can_release_a_call_which_can_then_be_claimed() {
    let (_dynamodb, records) = setup().await;
    assert_eq!(records.claim(&claim("owner-a"), NOW + LEASE, NOW).await, Ok(None));
    records.release(&claim("owner-b")).await.expect("ignored");
    records.answer(&claim("owner-b"), Some(&answer(1)), NOW + LEASE, NOW).await.expect("ignored");
    assert_eq!(state(&records, NOW).await, Some(CallState::Running));
    records.release(&claim("owner-a")).await.expect("released");
    assert_eq!(state(&records, NOW).await, None);
    assert_eq!(records.claim(&claim("owner-b"), NOW + LEASE, NOW).await, Ok(None));
}
