//! What is told: that a job or a batch has ended, in the shape of OpenAI's webhook events, without a word of what was
//! asked or answered.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{job::Job, tenant::EventType};

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
        dialect::Api,
        job::{Call, NewJob, Priority, Status},
        tenant::Class,
    };

    const ENDED_MS: u64 = 1_800_000_000_999;

    fn job(path: &str) -> Job {
        let new = NewJob {
            id: None,
            tenant: "acme".into(),
            call: Call {
                api: Api::at(path).expect("a path that calls a model").api,
                model: None,
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
