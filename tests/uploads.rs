//! Uploads: batch files that are larger than a request, in parts or straight to the bucket.

use md5::{Digest, Md5};
use serde_json::{Value, json};
use spillway::batch::MAX_UPLOAD_TIME;

use crate::support::{Deployment, answer::Answer, chat, jobs::two_tenants, key, time::eventually};

const CHAT: &str = "/v1/chat/completions";

/// An upload of 11 bytes, as the API returns it.
struct Upload<'a> {
    deployment: &'a Deployment,
    created: Value,
}

impl<'a> Upload<'a> {
    async fn create(deployment: &'a Deployment, bytes: usize) -> Self {
        let body = json!({
            "filename": "batch.jsonl", "bytes": bytes, "purpose": "batch", "mime_type": "application/jsonl",
        });
        let created = deployment.ask("/v1/uploads", "t", &body).await;
        assert_eq!(created.status, 200, "{}", created.text());
        Self { deployment, created: created.json() }
    }

    fn path(&self, action: &str) -> String {
        format!("/v1/uploads/{}/{action}", self.created["id"].as_str().expect("an id"))
    }

    async fn add_as(&self, tenant: &str, content: &str) -> Answer {
        let form =
            format!("--b\r\ncontent-disposition: form-data; name=data; filename=upload\r\n\r\n{content}\r\n--b--\r\n");
        let request = self.deployment.http.post(format!("{}{}", self.deployment.world.url, self.path("parts")));
        let request = request.header("content-type", "multipart/form-data; boundary=b");
        Answer::to(request.bearer_auth(key(tenant)).body(form)).await
    }

    /// Adds a part and returns its id.
    async fn add(&self, content: &str) -> String {
        let part = self.add_as("t", content).await;
        assert_eq!(part.status, 200, "{}", part.text());
        let part = part.json();
        assert_eq!((&part["object"], &part["upload_id"]), (&json!("upload.part"), &self.created["id"]));
        part["id"].as_str().expect("an id").to_owned()
    }

    async fn complete(&self, parts: &[&String]) -> Answer {
        self.deployment.ask(&self.path("complete"), "t", &json!({ "part_ids": parts })).await
    }

    /// Completes the upload with these parts. Returns the content of its file.
    async fn content(&self, parts: &[&String]) -> String {
        let completed = self.complete(parts).await;
        assert_eq!(completed.status, 200, "{}", completed.text());
        let completed = completed.json();
        assert_eq!((&completed["status"], &completed["id"]), (&json!("completed"), &self.created["id"]));
        let path = format!("/v1/files/{}/content", completed["file"]["id"].as_str().expect("a file"));
        let content = Answer::to(self.deployment.get(&path, "t")).await;
        assert_eq!(completed["file"]["bytes"], content.body.len());
        content.text()
    }

    async fn put(&self, content: &str) -> u16 {
        let url = self.created["put_url"].as_str().expect("a URL");
        Answer::to(self.deployment.http.put(url).body(content.to_owned())).await.status
    }
}

/// Fails unless `answer` is an error about `param`.
fn assert_refused(answer: &Answer, status: u16, param: &str) {
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (status, &json!(param)), "{}", answer.text());
}

#[tokio::test]
async fn a_file_is_the_parts_of_its_upload_in_the_order_of_the_request() {
    let deployment = Deployment::with_tenants("").await;
    let upload = Upload::create(&deployment, 11).await;
    let expires_at = upload.created["created_at"].as_u64().expect("a time") + MAX_UPLOAD_TIME.as_ms() / 1_000;
    assert_eq!(upload.created["expires_at"], expires_at);
    assert_eq!((&upload.created["status"], &upload.created["object"]), (&json!("pending"), &json!("upload")));
    let last = upload.add("world").await;
    let (first, _unused) = (upload.add("hello ").await, upload.add("unused").await);
    assert_eq!(upload.content(&[&first, &last]).await, "hello world");
}

#[tokio::test]
async fn a_file_can_be_sent_to_the_bucket_as_a_whole() {
    let deployment = Deployment::with_tenants("").await;
    let upload = Upload::create(&deployment, 11).await;
    assert_refused(&upload.complete(&[]).await, 400, "part_ids");
    assert_eq!(upload.put("hello world!").await, 403, "the size is part of the signature");
    assert_eq!(upload.put("hello world").await, 200);
    assert_eq!(upload.content(&[]).await, "hello world");
}

#[tokio::test]
async fn a_file_is_complete_or_refused() {
    let deployment = Deployment::with_tenants("").await;
    let upload = Upload::create(&deployment, 11).await;
    let (first, last) = (upload.add("hello ").await, upload.add("world").await);
    let other = Upload::create(&deployment, 11).await;
    let foreign = other.add("world").await;
    assert_refused(&upload.complete(&[&first, &foreign]).await, 400, "part_ids[1]");
    let too_few = upload.complete(&[&first]).await;
    assert_refused(&too_few, 400, "part_ids");
    assert!(too_few.text().contains("6 bytes") && too_few.text().contains("11 bytes"), "{}", too_few.text());
    let digest: String = Md5::digest("hello world").iter().map(|byte| format!("{byte:02X}")).collect();
    for (md5, status) in [("00", 400), (digest.as_str(), 200)] {
        let body = json!({ "part_ids": [first, last], "md5": md5 });
        assert_eq!(deployment.ask(&upload.path("complete"), "t", &body).await.status, status, "{md5}");
    }
}

#[tokio::test]
async fn an_upload_is_completed_once() {
    let deployment = Deployment::with_tenants("").await;
    let upload = Upload::create(&deployment, 5).await;
    let (part, other) = (upload.add("hello").await, upload.add("world").await);
    let parts = [&part];
    let twice = tokio::join!(upload.complete(&parts), upload.complete(&parts));
    assert_eq!((twice.0.status, twice.1.status), (200, 200), "{} {}", twice.0.text(), twice.1.text());
    assert_eq!(twice.0.json()["file"]["id"], twice.1.json()["file"]["id"], "a repeated request gets the same file");
    assert_refused(&upload.complete(&[&other]).await, 400, "upload_id");
    assert_refused(&deployment.ask(&upload.path("cancel"), "t", &json!({})).await, 400, "upload_id");
    assert_refused(&upload.add_as("t", "more").await, 400, "upload_id");
    let files = Answer::to(deployment.get("/v1/files", "t")).await.json();
    assert_eq!(files["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_cancelled_or_expired_upload_accepts_nothing() {
    let deployment = Deployment::with_tenants("").await;
    let (cancelled, expired) = (Upload::create(&deployment, 5).await, Upload::create(&deployment, 5).await);
    let parts = (cancelled.add("hello").await, expired.add("hello").await);
    for _ in 0..2 {
        let answer = deployment.ask(&cancelled.path("cancel"), "t", &json!({})).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("cancelled")));
    }
    assert_refused(&cancelled.add_as("t", "more").await, 400, "upload_id");
    assert_refused(&cancelled.complete(&[&parts.0]).await, 400, "upload_id");
    deployment.world.advance(MAX_UPLOAD_TIME.as_ms());
    assert_refused(&expired.add_as("t", "more").await, 400, "upload_id");
    assert_refused(&expired.complete(&[&parts.1]).await, 400, "upload_id");
    assert_refused(&deployment.ask(&expired.path("cancel"), "t", &json!({})).await, 400, "upload_id");
}

#[tokio::test]
async fn an_upload_belongs_to_its_tenant() {
    let deployment = Deployment::start(&two_tenants("")).await;
    let upload = Upload::create(&deployment, 5).await;
    let part = upload.add("hello").await;
    assert_eq!(upload.add_as("u", "more").await.status, 404);
    let body = json!({ "part_ids": [part] });
    for action in ["complete", "cancel"] {
        assert_refused(&deployment.ask(&upload.path(action), "u", &body).await, 404, "upload_id");
    }
    assert_eq!(upload.content(&[&part]).await, "hello");
}

#[tokio::test]
async fn a_batch_reads_a_file_of_several_parts_and_keeps_a_copy() {
    let deployment = Deployment::with_tenants("").await;
    let line =
        |id: &str| json!({ "custom_id": id, "method": "POST", "url": CHAT, "body": chat(5, 5) }).to_string() + "\n";
    let content = line("a") + &line("b");
    let upload = Upload::create(&deployment, content.len()).await;
    // A part can end within a line.
    let (first, last) = (upload.add(&content[..40]).await, upload.add(&content[40..]).await);
    let file = upload.complete(&[&first, &last]).await.json()["file"]["id"].as_str().expect("a file").to_owned();
    let body = json!({ "input_file_id": file, "endpoint": CHAT, "completion_window": "24h" });
    let batch = deployment.ask("/v1/batches", "t", &body).await;
    assert_eq!(batch.status, 200, "{}", batch.text());
    let deleted = deployment.http.delete(format!("{}/v1/files/{file}", deployment.world.url)).bearer_auth(key("t"));
    assert_eq!(Answer::to(deleted).await.status, 200);
    assert_refused(&upload.complete(&[&first, &last]).await, 400, "part_ids[0]");
    let path = format!("/v1/batches/{}", batch.json()["id"].as_str().expect("an id"));
    deployment
        .quickly(eventually("the batch ends", async || {
            let batch = Answer::to(deployment.get(&path, "t")).await.json();
            batch["request_counts"] == json!({ "total": 2, "completed": 2, "failed": 0 })
        }))
        .await;
}
