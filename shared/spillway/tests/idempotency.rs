//! Claims and answers of calls against DynamoDB on the wire.

#[path = "support/dynamodb.rs"]
mod dynamodb;

use bytes::Bytes;
use dynamodb::Dynamodb;
use futures_util::future::join_all;
use spillway::{
    job::StoredResult,
    store::{
        idempotency::{Answers, Claim, State},
        jobs::MAX_ROW_BODY_BYTES,
        tables,
    },
};

const NOW_MS: u64 = 1_800_000_000_123;
const LEASE_MS: u64 = 20_000;
const UNTIL_MS: u64 = NOW_MS + LEASE_MS;

async fn setup() -> (Dynamodb, Answers) {
    let dynamodb = dynamodb::start().await;
    tables::create_jobs(&dynamodb.client, &dynamodb.table).await.expect("a table");
    let answers = Answers::new(dynamodb.client.clone(), &dynamodb.table);
    (dynamodb, answers)
}

fn claim(owner: &str) -> Claim {
    Claim { key: [7; 32], payload: [9; 32], owner: owner.into(), since_ms: NOW_MS }
}

fn answer(bytes: usize) -> StoredResult {
    let headers = vec![("content-type".into(), "text/event-stream".into()), ("x-request-id".into(), "r".into())];
    StoredResult { status: 200, headers, body: Bytes::from(vec![0xff; bytes]) }
}

async fn state(answers: &Answers, now_ms: u64) -> Option<State> {
    answers.find(&[7; 32], now_ms).await.expect("read").map(|found| found.state)
}

#[tokio::test]
async fn of_many_who_claim_a_call_one_runs_it() {
    let (_dynamodb, answers) = setup().await;
    let owners: Vec<String> = (0..10).map(|n| format!("owner-{n}")).collect();
    let claims = owners.iter().map(|owner| {
        let answers = &answers;
        async move { answers.claim(&claim(owner), UNTIL_MS, NOW_MS).await.expect("answered") }
    });
    let found = join_all(claims).await;
    assert_eq!(found.iter().filter(|found| found.is_none()).count(), 1);
    for found in found.into_iter().flatten() {
        assert_eq!((found.payload, found.since_ms, found.state), ([9; 32], NOW_MS, State::Running));
    }
}

#[tokio::test]
async fn a_claim_holds_until_its_lease_ends_and_its_owner_renews_it() {
    let (_dynamodb, answers) = setup().await;
    let take = async |owner: &str, now_ms: u64| {
        answers.claim(&claim(owner), now_ms + LEASE_MS, now_ms).await.expect("answered").is_none()
    };
    assert!(take("one", NOW_MS).await);
    assert!(!take("two", NOW_MS + LEASE_MS - 1).await);
    assert!(take("one", NOW_MS + LEASE_MS - 1).await, "renewed");
    assert!(!take("two", NOW_MS + LEASE_MS).await);
    assert_eq!(state(&answers, NOW_MS + 2 * LEASE_MS - 2).await, Some(State::Running));
    assert_eq!(state(&answers, NOW_MS + 2 * LEASE_MS - 1).await, None, "its process is gone");
    assert!(take("two", NOW_MS + 2 * LEASE_MS - 1).await);
    assert!(!take("one", NOW_MS + 2 * LEASE_MS).await, "another runs it by now");
}

#[tokio::test]
async fn an_answer_is_read_as_it_was_given_until_its_time_is_over() {
    let (_dynamodb, answers) = setup().await;
    assert_eq!(state(&answers, NOW_MS).await, None);
    let one = claim("one");
    assert_eq!(answers.claim(&one, UNTIL_MS, NOW_MS).await, Ok(None));
    let given = answer(MAX_ROW_BODY_BYTES);
    answers.answer(&one, Some(&given), NOW_MS + 60_000, NOW_MS + 5).await.expect("stored");
    answers.answer(&one, Some(&given), NOW_MS + 60_000, NOW_MS + 5).await.expect("repeating is harmless");
    let answered = State::Answered { ended_ms: NOW_MS + 5, answer: given };
    assert_eq!(state(&answers, NOW_MS + 59_999).await, Some(answered.clone()));
    assert_eq!(state(&answers, NOW_MS + 60_000).await, None);
    let found = answers.claim(&one, UNTIL_MS, NOW_MS + 6).await.expect("answered").expect("what was answered");
    assert_eq!(found.state, answered, "a late renewal undoes nothing");
    assert_eq!(answers.claim(&claim("two"), UNTIL_MS, NOW_MS + 60_000).await, Ok(None));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_leaves_a_mark() {
    let (_dynamodb, answers) = setup().await;
    for too_large in [Some(answer(MAX_ROW_BODY_BYTES + 1)), None] {
        let one = claim("one");
        assert_eq!(answers.claim(&one, UNTIL_MS, NOW_MS).await, Ok(None));
        answers.answer(&one, too_large.as_ref(), NOW_MS + 60_000, NOW_MS + 5).await.expect("stored");
        assert_eq!(state(&answers, NOW_MS + 6).await, Some(State::TooLarge { ended_ms: NOW_MS + 5 }));
        answers.release(&one).await.expect("for the next round");
    }
}

#[tokio::test]
async fn what_is_given_back_can_be_claimed_at_once_and_only_by_its_owner_given_back() {
    let (_dynamodb, answers) = setup().await;
    assert_eq!(answers.claim(&claim("one"), UNTIL_MS, NOW_MS).await, Ok(None));
    answers.release(&claim("two")).await.expect("nothing happens");
    answers.answer(&claim("two"), Some(&answer(1)), UNTIL_MS, NOW_MS).await.expect("nothing happens");
    assert_eq!(state(&answers, NOW_MS).await, Some(State::Running));
    answers.release(&claim("one")).await.expect("given back");
    assert_eq!(state(&answers, NOW_MS).await, None);
    assert_eq!(answers.claim(&claim("two"), UNTIL_MS, NOW_MS).await, Ok(None));
}
