//! Time and room in a deployment: clocks that tests advance, and capacity that tests occupy.

use std::time::Duration;

use reqwest::{Response, header::HeaderMap};
use serde_json::Value;
use spillway::{
    broker,
    dialect::Api,
    quota::{Charge, Image, InputEstimate, Tokenizer, estimate_input},
    store::ledger::{Account, HeldReservation, ReserveOutcome},
    units::Millis,
};
use tokio::task::JoinSet;

use super::Deployment;

/// How long a test waits for an expected condition, in real time.
const TIME_LIMIT: Duration = Duration::from_secs(30);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Deployment {
    /// Advances all clocks to one second after the next noon (UTC), so that no epoch, day or month
    /// ends during a test.
    pub fn advance_to_noon(&self) {
        let into_day_ms = self.world.app.clock.now().as_ms() % DAY_MS;
        self.world.advance((DAY_MS + DAY_MS / 2 + 1_000 - into_day_ms) % DAY_MS);
    }

    /// Awaits `future` while the clocks run four times as fast as real time, so that slow models
    /// answer and held requests wake.
    pub async fn quickly<F: Future>(&self, future: F) -> F::Output {
        let advance = async {
            loop {
                tokio::time::sleep(Duration::from_millis(25)).await;
                self.world.advance(75);
            }
        };
        tokio::select! {
            output = future => output,
            () = advance => unreachable!("the clocks run forever"),
            () = tokio::time::sleep(TIME_LIMIT) => panic!("the future did not end in time"),
        }
    }

    /// Sends `count` concurrent requests.
    pub fn burst(&self, count: usize, tenant: &str, body: &Value) -> JoinSet<Response> {
        let mut requests = JoinSet::new();
        for _ in 0..count {
            let request = self.post("/v1/chat/completions", tenant, body);
            requests.spawn(async move { request.send().await.expect("an answer") });
        }
        requests
    }

    /// Returns the ledger account of a tenant.
    pub async fn account(&self, tenant: &str) -> Account {
        let tenant = self.world.app.registry.tenant(tenant).await.expect("the registry").expect("a tenant");
        broker::account_for(&tenant)
    }

    /// Returns the ledger item of a tenant.
    pub async fn ledger(&self, tenant: &str) -> Image {
        let images = self.world.app.ledger.images(&self.account(tenant).await).await.expect("the ledger");
        <[Image; 1]>::try_from(images).expect("limits that fit in one item").into_iter().next().expect("an item")
    }

    /// Reserves `charge` on a tenant, as an unfinished request does.
    pub async fn occupy(&self, tenant: &str, charge: Charge, for_ms: u64) -> HeldReservation {
        let expires_at = self.world.app.clock.now() + Millis::from_ms(for_ms);
        match self.world.app.ledger.reserve(&self.account(tenant).await, charge, expires_at).await {
            Ok(ReserveOutcome::Reserved(held, _)) => held,
            refused => panic!("the tenant has no room: {refused:?}"),
        }
    }
}

/// Returns the next response to a burst.
pub async fn next_response(requests: &mut JoinSet<Response>) -> Response {
    let next = tokio::time::timeout(TIME_LIMIT, requests.join_next()).await.expect("an answer in time");
    next.expect("a remaining request").expect("no panic")
}

/// Waits, in real time, until `condition` holds.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(happens_within(TIME_LIMIT, condition).await, "not in time: {what}");
}

/// Waits, in real time, until `condition` holds. Returns whether it did within `time_limit`.
pub async fn happens_within(time_limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(time_limit, polling).await.is_ok()
}

/// Returns the quota tokens that an OpenAI chat reserves on a model without burndown and with an
/// unknown tokenizer.
pub fn reserved_tokens(body: &Value) -> u64 {
    let (input, output_tokens) = input_and_output(body);
    input.tokens + output_tokens
}

/// Returns the tokens whose price the same chat reserves.
pub fn priced_tokens(body: &Value) -> u64 {
    let (input, output_tokens) = input_and_output(body);
    input.max_tokens + output_tokens
}

fn input_and_output(body: &Value) -> (InputEstimate, u64) {
    let draft = Api::ChatCompletions.read(body.to_string().as_bytes(), None, false).expect("a chat");
    let (request, _) = draft.request(None, &HeaderMap::new()).expect("a chat");
    let input = estimate_input(&request.input.bodies()[0], Tokenizer::Unknown);
    (input, request.max_tokens.expect("a cap"))
}

/// Checks every header of a temporary refusal by `limit`. Returns its wait in milliseconds.
pub fn assert_refused(response: &Response, limit: &str) -> u64 {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!((response.status().as_u16(), header("x-spillway-limit")), (429, limit));
    let wait_ms: u64 = header("retry-after-ms").parse().expect("milliseconds");
    let wait_s: u64 = header("retry-after").parse().expect("seconds");
    assert!(wait_ms > 0 && wait_s == wait_ms.div_ceil(1_000), "{wait_ms} ms and {wait_s} s");
    assert!(header("ratelimit").contains(limit), "{}", header("ratelimit"));
    wait_ms
}
