//! One attempt has one deadline: its in-flight slot, its job's lease, its call and its stream all
//! end by it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use spillway::{dialect::Api, drain::handle, job::JobReader};
use tokio::task::JoinHandle;

use crate::support::{
    Deployment,
    answer::{Events, deployment, pool, used, within},
    jobs::{batch_of, new_job, two_tenants},
    time::{eventually, happens_within},
};

/// How long the stream of a test takes to end once it is cut off, in real time; far less than its
/// next token takes.
const CUT_OFF: Duration = Duration::from_millis(900);

/// A model whose calls may take 30 s, behind a tenant that may have one request in flight.
async fn one_in_flight(first_token_ms: u64) -> Deployment {
    let pool = pool("only", "on_demand", "sim.model", "");
    let simulator = format!("[simulator]\ntime_to_first_token_ms = {first_token_ms}\ntokens_per_second = 1\n");
    let settings = deployment("limits = { in_flight = 1 }", &pool) + &simulator;
    let deployment = Deployment::start(&settings).await;
    deployment.advance_to_noon();
    deployment
}

/// A stream of 25 tokens, read in the background.
struct StreamReader {
    events: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl StreamReader {
    /// Starts the stream. Returns when the model works on it.
    async fn start(deployment: &Deployment, path: &str) -> Self {
        let body = json!({
            "model": "m", "max_tokens": 25, "stream": true,
            "messages": [{ "role": "user", "content": "[[output_tokens=25]]" }],
        });
        let request = deployment.post(path, "t", &body);
        let events = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&events);
        let task = tokio::spawn(async move {
            let mut stream = Events::of(within(request.send()).await.expect("a response"));
            while let Some((_, data)) = stream.next().await {
                read.lock().expect("no panic").push(data);
            }
        });
        deployment.simulator_when(|account| account["total"]["in_flight"] == 1).await;
        Self { events, task }
    }

    fn count(&self) -> usize {
        self.events.lock().expect("no panic").len()
    }

    /// Lets a second pass, in which the model makes a token. Waits until its event is read or the
    /// stream is over.
    async fn after_a_second(&self, deployment: &Deployment) {
        let before = self.count();
        deployment.world.advance(1_000);
        eventually("the next event", async || self.count() > before || self.task.is_finished()).await;
    }

    /// Lets time pass until the in-flight slot is free. Fails if the stream still runs then.
    async fn until_the_slot_is_free(&self, deployment: &Deployment) {
        while used(&deployment.quota("t").await, "in_flight") == 1 {
            self.after_a_second(deployment).await;
        }
        let has_ended = happens_within(CUT_OFF, async || self.task.is_finished()).await;
        assert!(has_ended, "a second request is admitted while the stream still runs");
    }

    /// The data of the last two events.
    fn end(&self) -> String {
        let events = self.events.lock().expect("no panic");
        events[events.len().saturating_sub(2)..].concat()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_never_outlives_its_in_flight_slot() {
    for (path, first_token_ms) in [("/v1/chat/completions", 28_000), ("/v1/messages", 10_000)] {
        let deployment = one_in_flight(first_token_ms).await;
        let reader = StreamReader::start(&deployment, path).await;
        deployment.world.advance(first_token_ms - 1_000);
        reader.until_the_slot_is_free(&deployment).await;
        assert!(reader.end().contains("did not answer in time"), "{path}: {}", reader.end());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_before_its_deadline_is_whole() {
    let deployment = one_in_flight(2_000).await;
    let reader = StreamReader::start(&deployment, "/v1/chat/completions").await;
    reader.until_the_slot_is_free(&deployment).await;
    assert!(reader.end().ends_with("[DONE]"), "{}", reader.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_not_called_again_while_its_call_may_still_run() {
    let settings = two_tenants("limits = { in_flight = 5 }").replace("timeout_ms = 30000", "timeout_ms = 60000");
    let simulator = "[simulator]\ntime_to_first_token_ms = 57000\ntokens_per_second = 1\n";
    let deployment = Deployment::start(&format!("{settings}\n{simulator}")).await;
    deployment.advance_to_noon();
    let app = &deployment.world.app;
    let body = json!({
        "model": "m", "background": true, "stream": true, "input": "[[output_tokens=57]]", "max_output_tokens": 57,
    });
    let job = new_job(Api::Responses, &body, app.clock.now());
    let job = app.jobs.submit_for(JobReader::Background, &job).await.expect("a job");
    let drain = || {
        let (app, event) = (app.clone(), batch_of(&[&job.id]));
        tokio::spawn(async move { handle(&app, event, None).await })
    };
    let first = drain();
    deployment.simulator_when(|account| account["total"]["in_flight"] == 1).await;
    deployment.world.advance(57_000);
    eventually("the answer begins", async || app.jobs.chunk(&job.id, 1, 0).await.expect("the store").is_some()).await;

    // Past the deadline, then past the lease. The model would be done after 114 s.
    deployment.world.advance(6_000);
    happens_within(CUT_OFF, async || first.is_finished()).await;
    deployment.world.advance(45_000);
    let second = drain();
    second.await.expect("no panic").expect("handled");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1, "the call is made and billed once");
    first.await.expect("no panic").expect("handled");
    assert_eq!(deployment.stored(&job.id).await.status.name(), "failed");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}
