//! What is told: that a job or a batch has ended, in the shape of OpenAI's webhook events, without a word of what was
//! asked or answered.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    dialect::Dialect,
    job::{Job, Status, StoredResult},
};

/// What has happened. The names of responses and batches are OpenAI's (`openai.types.webhooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    #[serde(rename = "response.completed")]
    ResponseCompleted,
    #[serde(rename = "response.failed")]
    ResponseFailed,
    #[serde(rename = "response.cancelled")]
    ResponseCancelled,
    #[serde(rename = "response.incomplete")]
    ResponseIncomplete,
    #[serde(rename = "batch.completed")]
    BatchCompleted,
    #[serde(rename = "batch.failed")]
    BatchFailed,
    #[serde(rename = "batch.expired")]
    BatchExpired,
    #[serde(rename = "batch.cancelled")]
    BatchCancelled,
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    #[serde(rename = "job.failed")]
    JobFailed,
    #[serde(rename = "job.expired")]
    JobExpired,
    #[serde(rename = "job.cancelled")]
    JobCancelled,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ResponseCompleted,
        Self::ResponseFailed,
        Self::ResponseCancelled,
        Self::ResponseIncomplete,
        Self::BatchCompleted,
        Self::BatchFailed,
        Self::BatchExpired,
        Self::BatchCancelled,
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobExpired,
        Self::JobCancelled,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResponseCompleted => "response.completed",
            Self::ResponseFailed => "response.failed",
            Self::ResponseCancelled => "response.cancelled",
            Self::ResponseIncomplete => "response.incomplete",
            Self::BatchCompleted => "batch.completed",
            Self::BatchFailed => "batch.failed",
            Self::BatchExpired => "batch.expired",
            Self::BatchCancelled => "batch.cancelled",
            Self::JobSucceeded => "job.succeeded",
            Self::JobFailed => "job.failed",
            Self::JobExpired => "job.expired",
            Self::JobCancelled => "job.cancelled",
        }
    }

    /// The event of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is told of a job that ends with `status`; `None` if nothing is, because it has not ended or its batch tells.
    /// The answer is looked at only to see whether a response was cut short.
    pub fn of_end(job: &Job, status: Status, answer: Option<&StoredResult>) -> Option<Self> {
        if job.member.is_some() {
            return None;
        }
        let is_cut = || answer.is_some_and(|answer| is_incomplete(&answer.body));
        Some(match (status, is_response(job)) {
            (Status::Queued | Status::Running, _) => return None,
            (Status::Succeeded, true) if is_cut() => Self::ResponseIncomplete,
            (Status::Succeeded, true) => Self::ResponseCompleted,
            // OpenAI's responses do not expire.
            (Status::Failed | Status::Expired, true) => Self::ResponseFailed,
            (Status::Cancelled, true) => Self::ResponseCancelled,
            (Status::Succeeded, false) => Self::JobSucceeded,
            (Status::Failed, false) => Self::JobFailed,
            (Status::Expired, false) => Self::JobExpired,
            (Status::Cancelled, false) => Self::JobCancelled,
        })
    }

    fn is_of_response(self) -> bool {
        self.name().starts_with("response.")
    }
}

fn is_response(job: &Job) -> bool {
    job.call.dialect == Dialect::OpenAi && job.call.path.trim_end_matches('/').ends_with("/v1/responses")
}

/// Whether a stored response, whole or as a stream, says that it was cut short.
fn is_incomplete(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Told {
        status: Option<String>,
    }
    // No text of a model holds a line break of its own in a stream of JSON.
    const EVENT: &[u8] = b"event: response.incomplete\n";
    match serde_json::from_slice::<Told>(body) {
        Ok(told) => told.status.as_deref() == Some("incomplete"),
        Err(_) => body.split_inclusive(|byte| *byte == b'\n').any(|line| line == EVENT),
    }
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same however often the event is told: a receiver knows by it what it has seen.
    pub id: String,
    /// What happened.
    pub kind: EventType,
    /// The JSON that is sent, byte for byte.
    pub body: String,
}

impl Event {
    /// The event that `kind` happened to `subject` at `at_ms`, with what there is to tell of it besides.
    fn new(kind: EventType, subject: &str, at_ms: u64, data: &Value) -> Self {
        let id = id_of(kind.name(), subject);
        let body = body(&id, kind.name(), at_ms, data);
        Self { id, kind, body }
    }

    /// The event that the batch with this id, as its tenant knows it (`batch_…`), has ended.
    pub fn of_batch(kind: EventType, batch_id: &str, ended_ms: u64) -> Self {
        Self::new(kind, batch_id, ended_ms, &json!({ "id": batch_id }))
    }

    /// The event that a job has ended. `path_prefix` is what stands before every path of the API.
    pub fn of_job(kind: EventType, job: &Job, path_prefix: &str) -> Self {
        let data = if kind.is_of_response() {
            json!({ "id": format!("resp_{}", job.answer_id()) })
        } else {
            let result = job.answered_at_fence.map(|_| format!("{path_prefix}/v1/jobs/{}/result", job.id));
            json!({ "id": job.id, "status": job.status, "result": result })
        };
        Self::new(kind, &job.id, job.finished_ms.unwrap_or(job.created_ms), &data)
    }
}

/// The body of an event (`openai.types.webhooks`): `created_at` is in seconds.
pub(super) fn body(id: &str, kind: &str, at_ms: u64, data: &Value) -> String {
    json!({ "id": id, "object": "event", "created_at": at_ms / 1_000, "type": kind, "data": data }).to_string()
}

/// An id that is the same for the same event and no other. It holds no full stop, which would make the signed text
/// ambiguous (Standard Webhooks, "Signature scheme").
pub(super) fn id_of(kind: &str, subject: &str) -> String {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(subject).finalize();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("evt_{hex}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        job::{Call, Member, NewJob, Priority},
        tenant::Class,
    };

    const ENDED_MS: u64 = 1_800_000_000_999;

    fn job(path: &str) -> Job {
        let new = NewJob {
            id: None,
            tenant: "acme".into(),
            call: Call {
                dialect: Dialect::OpenAi,
                method: "POST".into(),
                path: path.into(),
                headers: Vec::new(),
                stream: false,
            },
            body: Bytes::from_static(b"{\"secret\": \"prompt\"}"),
            created_ms: ENDED_MS - 5_000,
            ready_ms: ENDED_MS,
            expires_ms: ENDED_MS,
            priority: Priority::Normal,
            class: Class::Batch,
            member: None,
        };
        Job::accepted("018f0000-0000-7000-8000-000000000000".into(), &new)
    }

    fn answer(body: &'static str) -> StoredResult {
        StoredResult { status: 200, headers: Vec::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn every_name_is_read_back_and_is_the_one_in_the_registry() {
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.name());
        }
        assert_eq!(EventType::parse("response.expired"), None);
    }

    #[test]
    fn a_response_is_told_as_openai_tells_it() {
        for path in ["/v1/responses", "/openai/v1/responses/"] {
            let of = |status, answer: Option<&StoredResult>| EventType::of_end(&job(path), status, answer);
            let whole = answer(r#"{"id":"resp_1","status":"completed","output":["status","incomplete"]}"#);
            assert_eq!(of(Status::Succeeded, Some(&whole)), Some(EventType::ResponseCompleted));
            let cut = answer(r#"{"id":"resp_1","status":"incomplete"}"#);
            assert_eq!(of(Status::Succeeded, Some(&cut)), Some(EventType::ResponseIncomplete));
            let whole = answer("event: response.completed\ndata: {\"t\":\"event: response.incomplete\\n\"}\n\n");
            assert_eq!(of(Status::Succeeded, Some(&whole)), Some(EventType::ResponseCompleted));
            let cut = answer("event: x\ndata: {}\n\nevent: response.incomplete\ndata: {}\n\n");
            assert_eq!(of(Status::Succeeded, Some(&cut)), Some(EventType::ResponseIncomplete));
            assert_eq!(of(Status::Failed, None), Some(EventType::ResponseFailed));
            assert_eq!(of(Status::Expired, None), Some(EventType::ResponseFailed));
            assert_eq!(of(Status::Cancelled, None), Some(EventType::ResponseCancelled));
        }
    }

    #[test]
    fn any_other_job_is_told_by_its_status() {
        let of = |status| EventType::of_end(&job("/v1/chat/completions"), status, None);
        assert_eq!(of(Status::Succeeded), Some(EventType::JobSucceeded));
        assert_eq!(of(Status::Failed), Some(EventType::JobFailed));
        assert_eq!(of(Status::Expired), Some(EventType::JobExpired));
        assert_eq!(of(Status::Cancelled), Some(EventType::JobCancelled));
        assert_eq!((of(Status::Queued), of(Status::Running)), (None, None));
        let member = Some(Member { batch: "b".into(), line: 0, of: 1, custom_id: "c".into() });
        let line = Job { member, ..job("/v1/responses") };
        assert_eq!(EventType::of_end(&line, Status::Succeeded, None), None, "its batch tells");
    }

    #[test]
    fn an_event_is_what_openais_sdks_read() {
        let ended = Job { answered_at_fence: Some(3), ..job("/v1/responses").ended(Status::Succeeded, None, ENDED_MS) };
        let event = Event::of_job(EventType::ResponseCompleted, &ended, "");
        let expected = format!(
            "{{\"id\":\"{}\",\"object\":\"event\",\"created_at\":1800000000,\"type\":\"response.completed\",\
             \"data\":{{\"id\":\"resp_018f0000-0000-7000-8000-000000000000\"}}}}",
            event.id
        );
        assert_eq!(event.body, expected);
        let batch = Event::of_batch(EventType::BatchExpired, "batch_7", ENDED_MS);
        let told: Value = serde_json::from_str(&batch.body).expect("JSON");
        assert_eq!((&told["type"], &told["data"]), (&json!("batch.expired"), &json!({ "id": "batch_7" })));
    }

    #[test]
    fn a_job_is_told_with_where_its_answer_is_and_without_its_text() {
        let ended = job("/v1/chat/completions").ended(Status::Succeeded, Some("why".into()), ENDED_MS);
        let answered = Job { answered_at_fence: Some(1), ..ended.clone() };
        let data = |job: &Job| -> Value {
            let event = Event::of_job(EventType::JobSucceeded, job, "/llm");
            assert!(!event.body.contains("prompt"), "{}", event.body);
            serde_json::from_str::<Value>(&event.body).expect("JSON")["data"].clone()
        };
        let path = format!("/llm/v1/jobs/{}/result", ended.id);
        assert_eq!(data(&answered), json!({ "id": ended.id, "status": "succeeded", "result": path }));
        assert_eq!(data(&ended)["result"], Value::Null);
    }

    #[test]
    fn an_id_is_stable_distinct_and_without_a_full_stop() {
        let of = |kind, subject| Event::of_batch(kind, subject, 1).id;
        let id = of(EventType::BatchFailed, "batch_1");
        assert_eq!(id, Event::of_batch(EventType::BatchFailed, "batch_1", 2).id);
        assert_ne!(id, of(EventType::BatchFailed, "batch_2"));
        assert_ne!(id, of(EventType::BatchExpired, "batch_1"));
        assert!(id.len() == 36 && !id.contains('.'), "{id}");
    }
}
