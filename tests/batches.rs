//! Batches of both APIs, from the file to the results.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spillway::{
    batch::{Batch, BatchStatus, LineCounts},
    drain,
    job::Redelivery,
    quota::Charge,
    store::WriteOutcome,
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{
    Deployment,
    answer::Answer,
    chat,
    jobs::{JOB_QUEUE, ONE_REQUEST, batch_of},
    key,
    time::eventually,
};

const CHAT: &str = "/v1/chat/completions";

/// Returns the input of a batch: a chat for each of these models, with the custom id `line-N`.
fn lines(models: &[&str]) -> String {
    let line = |(number, model): (usize, &&str)| {
        let body = Value::Object(chat(5, 5).as_object().expect("an object").clone());
        let mut line = json!({ "custom_id": format!("line-{number}"), "method": "POST", "url": CHAT, "body": body });
        line["body"]["model"] = json!(model);
        line.to_string() + "\n"
    };
    models.iter().enumerate().map(line).collect()
}

impl Deployment {
    async fn upload(&self, tenant: &str, content: &str) -> String {
        let part =
            |name: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; name={name}\r\n\r\n{value}\r\n");
        let file = part("file; filename=\"batch.jsonl\"", content);
        let form = format!("{}{file}--b--\r\n", part("purpose", "batch"));
        let request = self.http.post(format!("{}/v1/files", self.world.url)).bearer_auth(key(tenant));
        let request = request.header("content-type", "multipart/form-data; boundary=b").body(form);
        let uploaded = Answer::to(request).await;
        assert_eq!(uploaded.status, 200, "{}", uploaded.text());
        uploaded.json()["id"].as_str().expect("an id").to_owned()
    }

    fn batch_request(&self, tenant: &str, file: &str) -> reqwest::RequestBuilder {
        let body = json!({ "input_file_id": file, "endpoint": CHAT, "completion_window": "24h" });
        self.post("/v1/batches", tenant, &body)
    }

    /// Submits a batch of chats with these models. Returns its id.
    async fn begin(&self, tenant: &str, models: &[&str]) -> String {
        let file = self.upload(tenant, &lines(models)).await;
        id_of(&Answer::to(self.batch_request(tenant, &file)).await)
    }

    async fn stored_batch(&self, id: &str) -> Batch {
        self.world.app.batches.get(id).await.expect("the store").expect("a batch")
    }

    async fn batch_when(&self, id: &str, condition: impl Fn(&Batch) -> bool) -> Batch {
        let polling = async {
            loop {
                let batch = self.stored_batch(id).await;
                if condition(&batch) {
                    return batch;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        self.quickly(polling).await
    }

    async fn finished_batch(&self, id: &str) -> Batch {
        self.batch_when(id, |batch| batch.is_reported).await
    }

    async fn read_json(&self, tenant: &str, path: &str) -> Value {
        Answer::to(self.get(path, tenant)).await.json()
    }

    async fn content(&self, tenant: &str, file: &str) -> Vec<Value> {
        jsonl(&Answer::to(self.get(&format!("/v1/files/{file}/content"), tenant)).await)
    }

    async fn counts(&self, id: &str) -> LineCounts {
        self.world.app.batches.counts(id).await.expect("the store")
    }

    async fn model_calls(&self) -> Value {
        self.simulator().await["total"]["requests"].clone()
    }
}

fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn jsonl(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn a_batch_writes_its_answers_to_one_file_and_its_errors_to_another() {
    let deployment = Deployment::with_tenants("").await;
    let id = deployment.begin("t", &["m", "m", "missing", "m"]).await;
    deployment.finished_batch(&id).await;
    let shown = deployment.read_json("t", &format!("/v1/batches/{id}")).await;
    assert_eq!((&shown["status"], &shown["object"]), (&json!("completed"), &json!("batch")));
    assert_eq!(shown["request_counts"], json!({ "total": 4, "completed": 3, "failed": 1 }));
    assert!(shown["completed_at"].as_u64() >= shown["finalizing_at"].as_u64() && shown["finalizing_at"].is_u64());

    let answers = deployment.content("t", shown["output_file_id"].as_str().expect("an output")).await;
    let names: Vec<_> = answers.iter().filter_map(|line| line["custom_id"].as_str()).collect();
    assert_eq!(names, ["line-0", "line-1", "line-3"]);
    assert!(answers.iter().all(|line| line["response"]["status_code"] == 200 && line["error"].is_null()));
    assert!(answers.iter().all(|line| line["response"]["body"]["choices"][0]["message"]["content"].is_string()));
    let errors = deployment.content("t", shown["error_file_id"].as_str().expect("an error file")).await;
    assert_eq!(errors.len(), 1);
    assert_eq!((&errors[0]["custom_id"], &errors[0]["response"]["status_code"]), (&json!("line-2"), &json!(404)));

    assert_eq!(deployment.model_calls().await, 3, "each line is called once");
    assert_eq!(deployment.quota("t").await["settled"]["requests"], json!(3));
    let jobs = deployment.read_json("t", "/v1/jobs").await;
    assert_eq!(jobs["data"], json!([]), "the list of jobs omits the lines of batches");
    let listed = deployment.read_json("t", "/v1/batches").await;
    assert_eq!((&listed["data"][0]["id"], &listed["has_more"]), (&json!(id), &json!(false)));
}

#[tokio::test]
async fn a_line_whose_pool_keeps_failing_ends_as_a_failed_line_with_the_reason() {
    let deployment = Deployment::with_tenants("job_max_failures = 1").await;
    deployment.set_model_faults(&[json!({ "model_id": "sim.model", "error": "InternalServerException" })]).await;
    let id = deployment.begin("t", &["m"]).await;
    deployment.finished_batch(&id).await;
    let shown = deployment.read_json("t", &format!("/v1/batches/{id}")).await;
    assert_eq!(shown["request_counts"], json!({ "total": 1, "completed": 0, "failed": 1 }));
    let errors = deployment.content("t", shown["error_file_id"].as_str().expect("an error file")).await;
    let response = &errors[0]["response"];
    assert_eq!((&errors[0]["custom_id"], &response["status_code"]), (&json!("line-0"), &json!(503)));
    let message = response["body"]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("s and one try; on-demand: InternalServerException."), "{message}");
}

#[tokio::test]
async fn files_are_stored_listed_and_deleted_for_their_tenant_only() {
    let deployment = Deployment::with_tenants("").await;
    let content = lines(&["m"]);
    let mut files = Vec::new();
    for _ in 0..3 {
        files.push(deployment.upload("t", &content).await);
        deployment.world.advance(10);
    }
    let file = deployment.read_json("t", &format!("/v1/files/{}", files[0])).await;
    let fields = [&file["object"], &file["purpose"], &file["filename"], &file["bytes"]];
    assert_eq!(fields, [&json!("file"), &json!("batch"), &json!("batch.jsonl"), &json!(content.len())]);
    let read = Answer::to(deployment.get(&format!("/v1/files/{}/content", files[0]), "t")).await;
    assert_eq!(read.text(), content);
    let ids = |page: &Value| -> Vec<String> {
        page["data"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|file| Some(file["id"].as_str()?.to_owned()))
            .collect()
    };
    let first = deployment.read_json("t", "/v1/files?limit=2&order=asc&purpose=batch").await;
    assert_eq!((ids(&first), &first["has_more"]), (files[..2].to_vec(), &json!(true)));
    let rest = deployment.read_json("t", &format!("/v1/files?order=asc&after={}", files[1])).await;
    assert_eq!((ids(&rest), &rest["has_more"]), (files[2..].to_vec(), &json!(false)));
    assert_eq!(ids(&deployment.read_json("t", "/v1/files?purpose=batch_output").await), [""; 0]);

    for path in [format!("/v1/files/{}", files[0]), format!("/v1/files/{}/content", files[0])] {
        assert_eq!(Answer::to(deployment.get(&path, "u")).await.status, 404, "{path}");
    }
    let refused = Answer::to(deployment.batch_request("u", &files[0])).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (404, &json!("input_file_id")));
    let url = format!("{}/v1/files/{}", deployment.world.url, files[0]);
    let deleted = Answer::to(deployment.http.delete(&url).bearer_auth(key("t"))).await;
    assert_eq!(deleted.json(), json!({ "id": files[0], "object": "file", "deleted": true }));
    assert_eq!(Answer::to(deployment.get(&format!("/v1/files/{}", files[0]), "t")).await.status, 404);

    deployment.world.advance(31 * 24 * 3_600_000);
    assert_eq!(
        Answer::to(deployment.get(&format!("/v1/files/{}", files[1]), "t")).await.status,
        404,
        "the file has expired"
    );
}

#[tokio::test]
async fn bad_lines_fail_a_batch_before_any_line_runs() {
    let deployment = Deployment::with_tenants("").await;
    let valid = lines(&["m"]);
    let file = deployment.upload("t", &format!("{valid}{valid}{{\n{}", valid.replace(CHAT, "/v1/embeddings"))).await;
    let id = id_of(&Answer::to(deployment.batch_request("t", &file)).await);
    deployment.finished_batch(&id).await;
    let shown = deployment.read_json("t", &format!("/v1/batches/{id}")).await;
    assert_eq!((&shown["status"], &shown["request_counts"]["total"]), (&json!("failed"), &json!(0)));
    let errors = shown["errors"]["data"].as_array().expect("errors");
    let codes: Vec<_> = errors.iter().map(|error| (error["code"].as_str(), error["line"].as_u64())).collect();
    let expected = [("duplicate_custom_id", 2), ("invalid_json_line", 3), ("url_mismatch", 4)];
    assert_eq!(codes, expected.map(|(code, line)| (Some(code), Some(line))));
    assert_eq!(deployment.model_calls().await, 0);
}

#[tokio::test]
async fn a_message_batch_has_a_result_for_every_request() {
    let deployment = Deployment::with_tenants("").await;
    let request = |id: &str, model: &str| {
        let messages = json!([{ "role": "user", "content": "[[output_tokens=5]]" }]);
        json!({ "custom_id": id, "params": { "model": model, "max_tokens": 5, "messages": messages } })
    };
    let body = json!({ "requests": [request("a", "m"), request("b", "missing"), request("c", "m")] });
    let submitted = Answer::to(deployment.post("/v1/messages/batches", "t", &body)).await;
    let id = id_of(&submitted);
    assert!(id.starts_with("msgbatch_"));
    assert_eq!(
        (&submitted.json()["processing_status"], &submitted.json()["results_url"]),
        (&json!("in_progress"), &Value::Null)
    );
    assert_eq!(submitted.json()["request_counts"]["processing"], 3);
    deployment.finished_batch(&id).await;
    let shown = deployment.read_json("t", &format!("/v1/messages/batches/{id}")).await;
    assert_eq!(shown["processing_status"], "ended");
    let counts = json!({ "processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0 });
    assert_eq!(shown["request_counts"], counts);
    let url = shown["results_url"].as_str().expect("a URL");
    assert_eq!(url, format!("{}/v1/messages/batches/{id}/results", deployment.world.url));
    let results = jsonl(&Answer::to(deployment.http.get(url).header("x-api-key", key("t"))).await);
    let results: BTreeMap<_, _> = results.iter().map(|line| (line["custom_id"].as_str(), &line["result"])).collect();
    assert!(results[&Some("a")]["message"]["content"][0]["text"].is_string(), "{results:?}");
    let error = &results[&Some("b")];
    assert_eq!((&error["type"], &error["error"]["error"]["type"]), (&json!("errored"), &json!("not_found_error")));
    assert_eq!(results.len(), 3);

    for path in [format!("/v1/messages/batches/{id}"), format!("/v1/messages/batches/{id}/results")] {
        assert_eq!(Answer::to(deployment.get(&path, "u")).await.status, 404, "{path}");
    }
    assert_eq!(
        Answer::to(deployment.get(&format!("/v1/batches/{id}"), "t")).await.status,
        404,
        "the batch belongs to the other API"
    );
    let batch_url = format!("{}/v1/messages/batches/{id}", deployment.world.url);
    let deleted = Answer::to(deployment.http.delete(&batch_url).bearer_auth(key("t"))).await;
    assert_eq!(deleted.json(), json!({ "id": id, "type": "message_batch_deleted" }));
    assert_eq!(Answer::to(deployment.http.get(url).bearer_auth(key("t"))).await.status, 404);
}

#[tokio::test]
async fn message_batches_are_listed_in_both_directions() {
    let deployment = Deployment::with_tenants("").await;
    let mut ids = Vec::new();
    for number in 0..4 {
        let params = json!({ "model": "m", "max_tokens": 1, "messages": [{ "role": "user", "content": "hi" }] });
        let body = json!({ "requests": [{ "custom_id": format!("{number}"), "params": params }] });
        ids.push(id_of(&Answer::to(deployment.post("/v1/messages/batches", "t", &body)).await));
        deployment.world.advance(10);
    }
    ids.reverse();
    let list = async |query: String| {
        let page = deployment.read_json("t", &format!("/v1/messages/batches?{query}")).await;
        let data = page["data"].as_array().expect("a list").iter();
        let found: Vec<String> = data.filter_map(|batch| Some(batch["id"].as_str()?.to_owned())).collect();
        assert_eq!(
            (page["first_id"].as_str(), page["last_id"].as_str()),
            (found.first().map(|id| &**id), found.last().map(|id| &**id))
        );
        (found, page["has_more"] == true)
    };
    assert_eq!(list("limit=2".into()).await, (ids[..2].to_vec(), true));
    assert_eq!(list(format!("limit=2&after_id={}", ids[1])).await, (ids[2..].to_vec(), false));
    assert_eq!(list(format!("limit=2&before_id={}", ids[3])).await, (ids[1..3].to_vec(), true));
    assert_eq!(list(format!("limit=2&before_id={}", ids[1])).await, (ids[..1].to_vec(), false));
}

#[tokio::test]
async fn a_cancelled_batch_runs_no_more_lines_and_counts_all_of_them() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", Charge { requests: 1, ..ONE_REQUEST }, 3_600_000).await;
    let id = deployment.begin("t", &["m"; 5]).await;
    deployment.batch_when(&id, |batch| batch.expanded == 5).await;
    let url = format!("/v1/batches/{id}/cancel");
    let cancelled = Answer::to(deployment.post(&url, "t", &json!({}))).await.json();
    assert_eq!(cancelled["status"], "cancelling", "{cancelled}");
    let ended = deployment.finished_batch(&id).await;
    assert_eq!(
        (ended.status, ended.counts),
        (BatchStatus::Cancelled, LineCounts { cancelled: 5, ..LineCounts::default() })
    );
    let shown = deployment.read_json("t", &format!("/v1/batches/{id}")).await;
    assert_eq!(shown["output_file_id"], Value::Null);
    let errors = deployment.content("t", shown["error_file_id"].as_str().expect("an error file")).await;
    assert!(errors.len() == 5 && errors.iter().all(|line| line["error"]["code"] == "batch_cancelled"), "{errors:?}");
    assert_eq!(deployment.model_calls().await, 0);
    let repeated = Answer::to(deployment.post(&url, "t", &json!({}))).await;
    assert_eq!((repeated.status, &repeated.json()["status"]), (200, &json!("cancelled")));
    assert_eq!(Answer::to(deployment.post(&url, "u", &json!({}))).await.status, 404);
}

#[tokio::test]
async fn lines_that_find_no_room_before_the_deadline_expire_with_their_batch() {
    let deployment = Deployment::with_tenants("limits = { requests_per_minute = 2 }").await;
    let file = deployment.upload("t", &lines(&["m"; 4])).await;
    let request = deployment.batch_request("t", &file).header("spillway-deadline", "30");
    let id = id_of(&Answer::to(request).await);
    deployment.batch_when(&id, |batch| batch.expanded == 4).await;
    let ended = deployment.finished_batch(&id).await;
    assert_eq!((ended.status, ended.counts.ended()), (BatchStatus::Expired, 4));
    assert!(ended.counts.completed == 2 && ended.counts.expired == 2, "{:?}", ended.counts);
    let errors = deployment.content("t", &ended.error_file.expect("an error file")).await;
    assert!(errors.iter().all(|line| line["error"]["code"] == "batch_expired" && line["response"].is_null()));
    assert_eq!(deployment.content("t", &ended.output_file.expect("an output")).await.len(), 2);
}

#[tokio::test]
async fn a_tenants_limits_hold_while_its_batch_runs() {
    let deployment = Deployment::with_tenants("limits = { requests_per_minute = 3 }").await;
    let id = deployment.begin("t", &["m"; 5]).await;
    deployment.batch_when(&id, |batch| batch.expanded == 5).await;
    let have_ended = async || deployment.counts(&id).await.completed == 3;
    deployment.quickly(eventually("three lines end", have_ended)).await;
    assert_eq!(deployment.model_calls().await, 3, "no more calls in the first minute");
    deployment.world.advance(60_000);
    let ended = deployment.finished_batch(&id).await;
    assert_eq!(ended.counts, LineCounts { completed: 5, ..LineCounts::default() });
    assert_eq!(deployment.model_calls().await, 5);
}

#[tokio::test]
async fn expanding_a_batch_twice_runs_each_line_once() {
    let deployment = Deployment::with_tenants("").await;
    let id = deployment.begin("t", &["m"; 20]).await;
    let drains = (0..6).map(|_| drain::handle(&deployment.world.app, batch_of(&[&id]), None));
    for handled in futures_util::future::join_all(drains).await {
        handled.expect("handled");
    }
    // As if the expansion had been interrupted before it stored its progress.
    let ended = deployment.finished_batch(&id).await;
    assert_eq!(ended.counts, LineCounts { completed: 20, ..LineCounts::default() });
    let interrupted =
        Batch { status: BatchStatus::InProgress, expanded: 0, ended_at: None, is_reported: false, ..ended.clone() };
    let app = &deployment.world.app;
    app.blobs.as_ref().expect("a bucket").put(&ended.input_key(), lines(&["m"; 20]).into()).await.expect("stored");
    let replaced = app.batches.replace(&ended, interrupted).await.expect("the store");
    assert!(matches!(replaced, WriteOutcome::Written(_)), "{replaced:?}");
    drain::handle(app, batch_of(&[&id]), None).await.expect("handled");
    let ended_again = deployment.finished_batch(&id).await;
    assert_eq!((ended_again.counts, &ended_again.output_file), (ended.counts, &ended.output_file));
    assert_eq!(deployment.model_calls().await, 20);
    assert_eq!(deployment.content("t", &ended.output_file.expect("an output")).await.len(), 20);
}

#[tokio::test]
async fn the_sweep_resumes_a_batch_whose_message_was_lost() {
    let deployment = Deployment::with_tenants("").await;
    let id = deployment.begin("t", &["m"]).await;
    let ended = deployment.finished_batch(&id).await;
    let app = &deployment.world.app;
    app.blobs.as_ref().expect("a bucket").put(&ended.input_key(), lines(&["m"]).into()).await.expect("stored");
    let stuck = Batch {
        status: BatchStatus::InProgress,
        ended_at: None,
        is_reported: false,
        redelivery: Redelivery::new(app.clock.now()),
        ..ended.clone()
    };
    let replaced = app.batches.replace(&ended, stuck).await.expect("the store");
    assert!(matches!(replaced, WriteOutcome::Written(_)), "{replaced:?}");
    assert_eq!(drain::sweep(app).await.expect("swept"), 0, "it is not overdue yet");
    deployment.world.advance(121_000);
    drain::sweep(app).await.expect("swept");
    assert_eq!(deployment.finished_batch(&id).await.status, BatchStatus::Completed);
}

#[tokio::test]
async fn a_batch_with_an_idempotency_key_is_accepted_once() {
    let deployment = Deployment::with_tenants("").await;
    let file = deployment.upload("t", &lines(&["m"; 3])).await;
    let request = || deployment.batch_request("t", &file).header("idempotency-key", "nightly-7");
    let (first, second) = tokio::join!(Answer::to(request()), Answer::to(request()));
    let id = id_of(&first);
    assert_eq!(id_of(&second), id);
    deployment.finished_batch(&id).await;
    assert_eq!(id_of(&Answer::to(request()).await), id);
    let other_file = deployment.upload("t", &lines(&["m"])).await;
    let conflicting = deployment.batch_request("t", &other_file).header("idempotency-key", "nightly-7");
    let refused = Answer::to(conflicting).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("Idempotency-Key")));
    assert_eq!(deployment.read_json("t", "/v1/batches").await["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(deployment.model_calls().await, 3);
    // Two drains may have made the jobs. A second message for a running job comes back after its
    // lease.
    deployment.world.advance(60_000);
    eventually("no message is left", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
}

#[tokio::test]
async fn of_two_concurrent_batches_with_one_idempotency_key_only_the_accepted_batch_runs() {
    let deployment = Deployment::with_tenants("").await;
    let (few, many) = (deployment.upload("t", &lines(&["m"])).await, deployment.upload("t", &lines(&["m"; 3])).await);
    for name in 0..6 {
        let delay = Fault { times: Some(2), ..Fault::on("CopyObject", Effect::DelayMs(100)) };
        deployment.world.stand_ins.s3_faults().inject(delay);
        let request = |file| deployment.batch_request("t", file).header("idempotency-key", format!("name-{name}"));
        let (first, second) = tokio::join!(Answer::to(request(&few)), Answer::to(request(&many)));
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400]);
        let accepted = if first.status == 200 { first } else { second };
        let batch = deployment.finished_batch(&id_of(&accepted)).await;
        let expected = if batch.input_file.as_ref() == Some(&few) { 1 } else { 3 };
        assert_eq!((batch.total, deployment.counts(&batch.id).await.completed), (expected, expected));
    }
}
