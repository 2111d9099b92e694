//! Time and room in a test's deployment: clocks that are moved by hand, and capacity that is taken on purpose.

use std::time::Duration;

use reqwest::{Response, header::HeaderMap};
use serde_json::Value;
use spillway::{
    broker,
    dialect::Api,
    quota::{Charge, Image, Tokenizer, input_tokens},
    store::ledger::{Account, Held, ReserveOutcome},
    units::Millis,
};
use tokio::task::JoinSet;

use super::Deployment;

/// How long a test waits for something that must happen, in real time.
const PATIENCE: Duration = Duration::from_secs(30);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Deployment {
    /// Moves all clocks to the next noon (UTC) and a second, so that no epoch, day or month ends in the middle of a
    /// test.
    pub fn advance_to_noon(&self) {
        let into_day_ms = self.world.app.clock.now_ms() % DAY_MS;
        self.world.advance((DAY_MS + DAY_MS / 2 + 1_000 - into_day_ms) % DAY_MS);
    }

    /// What `future` gives, with the clocks moving four times as fast as real ones meanwhile: models that take their
    /// time answer, and held requests wake.
    pub async fn quickly<F: Future>(&self, future: F) -> F::Output {
        let quick = async {
            loop {
                tokio::time::sleep(Duration::from_millis(25)).await;
                self.world.advance(75);
            }
        };
        tokio::select! {
            output = future => output,
            () = quick => unreachable!("time does not end"),
            () = tokio::time::sleep(PATIENCE) => panic!("it did not happen in time"),
        }
    }

    /// Sends `count` requests at once.
    pub fn burst(&self, count: usize, tenant: &str, body: &Value) -> JoinSet<Response> {
        let mut requests = JoinSet::new();
        for _ in 0..count {
            let request = self.post("/v1/chat/completions", tenant, body);
            requests.spawn(async move { request.send().await.expect("an answer") });
        }
        requests
    }

    /// The ledger account of a tenant.
    pub async fn account(&self, tenant: &str) -> Account {
        let tenant = self.world.app.registry.tenant(tenant).await.expect("the registry").expect("a tenant");
        broker::account_for(&tenant)
    }

    /// The ledger item of a tenant.
    pub async fn ledger(&self, tenant: &str) -> Image {
        let images = self.world.app.ledger.images(&self.account(tenant).await).await.expect("the ledger");
        <[Image; 1]>::try_from(images).expect("limits that one item carries").into_iter().next().expect("one")
    }

    /// Reserves `charge` on a tenant, as a request would that has not ended yet.
    pub async fn occupy(&self, tenant: &str, charge: Charge, for_ms: u64) -> Held {
        let expires_at = self.world.app.clock.now() + Millis::from_ms(for_ms);
        match self.world.app.ledger.reserve(&self.account(tenant).await, charge, expires_at).await {
            Ok(ReserveOutcome::Reserved(held, _)) => held,
            refused => panic!("the tenant has no room: {refused:?}"),
        }
    }
}

/// The next answer of a burst.
pub async fn next(requests: &mut JoinSet<Response>) -> Response {
    let next = tokio::time::timeout(PATIENCE, requests.join_next()).await.expect("an answer in time");
    next.expect("a request is left").expect("no panic")
}

/// Waits, in real time, until `condition` holds.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(happens_within(PATIENCE, condition).await, "not in time: {what}");
}

/// Waits, in real time, until `condition` holds; whether it did, within `patience`.
pub async fn happens_within(patience: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(patience, waited).await.is_ok()
}

/// The quota tokens that an OpenAI chat reserves on a model without burndown, whose pools tell no tokenizer.
pub fn reserved_tokens(body: &Value) -> u64 {
    let draft = Api::ChatCompletions.read(body.to_string().as_bytes(), None, false).expect("a chat");
    let (request, _) = draft.request(None, &HeaderMap::new()).expect("a chat");
    input_tokens(&request.input.bodies()[0], Tokenizer::Unknown) + request.max_tokens.expect("a cap")
}

/// Checks that this is a refusal for now, by `limit`, in every header that says so; gives the wait, in milliseconds.
pub fn refused(response: &Response, limit: &str) -> u64 {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!((response.status().as_u16(), header("x-spillway-limit")), (429, limit));
    let wait_ms: u64 = header("retry-after-ms").parse().expect("milliseconds");
    let wait_s: u64 = header("retry-after").parse().expect("seconds");
    assert!(wait_ms > 0 && wait_s == wait_ms.div_ceil(1_000), "{wait_ms} ms and {wait_s} s");
    assert!(header("ratelimit").contains(limit), "{}", header("ratelimit"));
    wait_ms
}
