//! The jobs API: lists, positions in the queue, deadlines, priorities and idempotency keys.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::{job::JobStatus, quota::Charge};

use crate::support::{
    Deployment,
    answer::Answer,
    chat,
    jobs::{JOB_QUEUE, ONE_REQUEST},
    time::eventually,
};

const CHAT: &str = "/v1/chat/completions";

const ONE_A_MINUTE: &str = "limits = { requests_per_minute = 1 }";

/// Builds a request with `Prefer: respond-async`, to which tests add headers.
fn async_request(deployment: &Deployment, tenant: &str) -> RequestBuilder {
    deployment.post(CHAT, tenant, &chat(5, 5)).header("prefer", "respond-async")
}

async fn id_of(request: RequestBuilder) -> String {
    let accepted = Answer::to(request).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    accepted.json()["id"].as_str().expect("an id").to_owned()
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().expect("a list").iter().filter_map(|job| job["id"].as_str()).collect()
}

#[tokio::test]
async fn jobs_are_listed_by_status_and_time_page_by_page() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let _running_u = deployment.occupy("u", ONE_REQUEST, 600_000).await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.push(id_of(async_request(&deployment, "t")).await);
        deployment.world.advance(10);
    }
    let job_of_u = id_of(async_request(&deployment, "u")).await;
    deployment.cancel("t", &submitted[2]).await;

    let list = async |query: &str| Answer::to(deployment.get(&format!("/v1/jobs{query}"), "t")).await.json();
    let page = list("").await;
    assert_eq!(ids(&page), submitted.iter().rev().map(String::as_str).collect::<Vec<_>>(), "newest first");
    assert_eq!(
        (&page["object"], &page["has_more"], &page["next_after"]),
        (&json!("list"), &json!(false), &Value::Null)
    );
    assert_eq!(ids(&list("?status=cancelled,expired").await), [submitted[2].as_str()]);

    let first = list("?order=asc&limit=2&status=queued").await;
    assert_eq!((ids(&first), &first["has_more"]), (vec![&*submitted[0], &*submitted[1]], &json!(true)));
    let second = list(&format!("?order=asc&limit=2&status=queued&after={}", submitted[1])).await;
    assert_eq!((ids(&second), &second["has_more"]), (vec![&*submitted[3], &*submitted[4]], &json!(false)));

    let created_ms = deployment.stored(&submitted[3]).await.created_at;
    let from = list(&format!("?created_from_ms={created_ms}")).await;
    assert_eq!(ids(&from), [&*submitted[4], &*submitted[3]]);
    let before = list(&format!("?created_before_ms={created_ms}&limit=1")).await;
    assert_eq!(ids(&before), [&*submitted[2]]);

    let refused = Answer::to(deployment.get(&format!("/v1/jobs?after={job_of_u}"), "t")).await;
    assert_eq!(refused.status, 404, "a job of another tenant is no position in the list");
    let unknown = Answer::to(deployment.get("/v1/jobs?status=done", "t")).await;
    assert_eq!((unknown.status, unknown.json()["error"]["param"].clone()), (400, json!("status")));
}

#[tokio::test]
async fn a_queued_job_reports_its_position_and_its_estimated_wait() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let mut submitted = Vec::new();
    for _ in 0..3 {
        submitted.push(id_of(async_request(&deployment, "t")).await);
        deployment.world.advance(10);
    }
    let first = deployment.job("t", &submitted[0]).await.json();
    assert_eq!(first["waits_for"], json!([{ "reason": "requests_per_minute" }]));
    assert_eq!(first["wait_reason"], "Waits for requests_per_minute, once.");
    let third = deployment.job("t", &submitted[2]).await.json();
    assert_eq!(third["position"], 3);
    assert!(third["estimated_wait_ms"].as_u64() >= Some(120_000), "one request a minute, and two jobs ahead: {third}");
    let urgent = id_of(async_request(&deployment, "t").header("spillway-priority", "high")).await;
    assert_eq!(deployment.job("t", &urgent).await.json()["position"], 1);
    assert_eq!(deployment.job("t", &submitted[2]).await.json()["position"], 4);
}

#[tokio::test]
async fn a_more_urgent_job_runs_first_whichever_message_arrives() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let mut submitted = Vec::new();
    for priority in ["low", "normal", "high"] {
        submitted.push(id_of(async_request(&deployment, "t").header("spillway-priority", priority)).await);
        deployment.world.advance(10);
    }
    for (finished_before, next) in submitted.iter().rev().enumerate() {
        deployment.world.advance(61_000);
        deployment.stored_when(next, |job| job.status == JobStatus::Succeeded).await;
        let finished = Answer::to(deployment.get("/v1/jobs?status=succeeded", "t")).await.json();
        assert_eq!(ids(&finished).len(), finished_before + 1, "high, normal, low: {finished}");
    }
    eventually("no message is left", async || {
        deployment.world.advance(2_000);
        deployment.messages_in(JOB_QUEUE).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_job_that_has_not_started_by_its_deadline_expires_uncharged() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let running = Charge { requests: 1, ..ONE_REQUEST };
    let _running = deployment.occupy("t", running, 3_600_000).await;
    let id = id_of(async_request(&deployment, "t").header("spillway-deadline", "90")).await;
    let job = deployment.stored(&id).await;
    // The deadline counts from the arrival of the request, a moment before its job is created.
    let left_ms = (job.expires_at - job.created_at).as_ms();
    assert!((80_000..=90_000).contains(&left_ms), "{left_ms}");
    let charged = deployment.quota("t").await["settled"].clone();
    deployment.world.advance(91_000);
    let ended = deployment.stored_when(&id, |job| job.status.is_final()).await;
    assert_eq!(ended.status, JobStatus::Expired);
    assert_eq!(deployment.quota("t").await["settled"], charged);
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}

#[tokio::test]
async fn invalid_job_headers_are_refused_even_if_there_is_room() {
    let deployment = Deployment::with_tenants("").await;
    for (header, value) in [("spillway-deadline", "tomorrow"), ("spillway-priority", "urgent")] {
        let refused = Answer::to(async_request(&deployment, "t").header(header, value)).await;
        assert_eq!((refused.status, refused.json()["error"]["param"].clone()), (400, json!(header)));
    }
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}

#[tokio::test]
async fn submissions_with_one_idempotency_key_make_one_job() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let request = || async_request(&deployment, "t").header("idempotency-key", "order-7");
    let (first, second) = tokio::join!(id_of(request()), id_of(request()));
    assert_eq!(first, second);
    // Answers are kept by their key for an hour. The job is still found by the key after that.
    deployment.world.advance(2 * 3_600_000);
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    assert_eq!(id_of(request()).await, first);
    let listed = Answer::to(deployment.get("/v1/jobs", "t")).await.json();
    assert_eq!(ids(&listed), [first]);
}
