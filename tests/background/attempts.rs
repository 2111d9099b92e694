//! Background responses with a drain that dies while it streams their output.

use bytes::Bytes;
use serde_json::{Value, json};
use spillway::{
    dialect::Api,
    drain::handle,
    job::{Job, JobReader},
    store::jobs::ClaimOutcome,
    stored_headers::StoredHeaders,
    units::Millis,
};

use super::{PATH, ROOM, ask, names, number, slow};
use crate::support::{
    Deployment,
    answer::Events,
    jobs::{batch_of, new_job},
};

/// Submits a streaming response without sending its message, so that only the test runs it.
async fn submit_without_message(deployment: &Deployment, output_tokens: u64) -> Job {
    let now = deployment.world.app.clock.now();
    let new = new_job(Api::Responses, &ask(output_tokens, &json!({ "stream": true })), now);
    deployment.world.app.jobs.submit_for(JobReader::Background, &new).await.expect("a job")
}

fn response_id(job: &Job) -> String {
    format!("resp_{}", job.answer_id())
}

/// Returns the events without keep-alives, which are comments that the SDKs skip.
fn without_comments(events: Vec<(String, String)>) -> Vec<(String, String)> {
    events.into_iter().filter(|(_, data)| !data.is_empty()).collect()
}

impl Deployment {
    async fn follow(&self, job: &Job) -> Events {
        let path = format!("{PATH}/{}?stream=true", response_id(job));
        Events::of(self.get(&path, "t").send().await.expect("an answer"))
    }

    async fn run(&self, job: &Job) {
        let handled = self.quickly(handle(&self.world.app, batch_of(&[&job.id]), None)).await;
        assert_eq!(handled.expect("handled").batch_item_failures, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_continues_with_the_next_drain_if_both_send_the_same_events() {
    let deployment = slow(20).await;
    let job = submit_without_message(&deployment, 200).await;
    let mut events = deployment.follow(&job).await;
    let (app, event) = (deployment.world.app.clone(), batch_of(&[&job.id]));
    let drain = tokio::spawn(async move { handle(&app, event, None).await });
    let mut received = Vec::new();
    while received.len() < 7 {
        received.push(deployment.quickly(events.next()).await.expect("an event"));
    }
    drain.abort();
    assert!(drain.await.is_err(), "it died");
    deployment.world.advance(76_000);
    let (rest, ()) = tokio::join!(deployment.quickly(events.rest()), deployment.run(&job));
    received.extend(without_comments(rest));
    assert_eq!(deployment.stored(&job.id).await.result_fence, Some(2));
    assert_eq!(received, deployment.events(&response_id(&job), None).await);
    let resumed = deployment.events(&response_id(&job), Some(5)).await;
    assert_eq!(resumed, received[6..], "the first attempt sent the same events");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_two_differing_attempts_are_never_mixed() {
    let deployment = Deployment::with_tenants(ROOM).await;
    let app = &deployment.world.app;
    let job = submit_without_message(&deployment, 20).await;
    let mut events = deployment.follow(&job).await;
    let mut received = vec![events.next().await.expect("created"), events.next().await.expect("queued")];
    // An attempt that sends other events and dies.
    let Ok(ClaimOutcome::Run { job, .. }) = app.jobs.claim(&job.id, Millis::from_s(45), app.clock.now()).await else {
        panic!("the job cannot be claimed");
    };
    received.extend((2..6).map(|number| ("other".to_owned(), json!({ "sequence_number": number }).to_string())));
    let stored: String = received.iter().map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")).collect();
    app.jobs.begin_stream(&job, &StoredHeaders::default(), app.clock.now()).await.expect("begun");
    app.jobs.put_chunk(&job, 0, &Bytes::from(stored), app.clock.now()).await.expect("stored");
    for expected in &received[2..] {
        assert_eq!(deployment.quickly(events.next()).await.as_ref(), Some(expected));
    }
    deployment.world.advance(46_000);
    deployment.run(&job).await;

    let end = without_comments(deployment.quickly(events.rest()).await);
    assert_eq!((names(&end), number(&end[0])), (vec!["error"], 5), "the error is no event of the response");
    let error: Value = serde_json::from_str(&end[0].1).expect("JSON");
    assert_eq!(error["error"]["code"], "unavailable", "{error}");
    let events = deployment.events(&response_id(&job), None).await;
    assert_eq!(names(&events).last(), Some(&"response.completed"));
    for after in [3, 5] {
        let refused = deployment.events(&response_id(&job), Some(after)).await;
        assert_eq!(
            (names(&refused), number(&refused[0])),
            (vec!["error"], after),
            "the events may belong to the other attempt"
        );
    }
    for after in [0, 2, 6, 9] {
        let rest = deployment.events(&response_id(&job), Some(after as u64)).await;
        assert_eq!(rest, events[after + 1..], "{after}: the events can only belong to this attempt");
    }
    let retrieved = deployment.retrieve("t", &response_id(&job), "").await.json();
    assert_eq!(retrieved["status"], "completed");
}
