//! Events: the end of a job or a batch, in the format of OpenAI's webhook events. They contain no
//! text of a prompt or an answer.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{job::Job, tenant::EventType, units::UnixMs};

/// An event to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEvent {
    /// Id, which is the same each time the event is sent. Receivers use it to drop duplicates.
    pub id: String,
    /// Type of the event.
    pub kind: EventType,
    /// JSON body, byte for byte.
    pub body: String,
}

impl WebhookEvent {
    /// An event of type `kind` about the resource `subject`.
    fn new(kind: EventType, subject: &str, at: UnixMs, data: &Value) -> Self {
        let id = event_id(kind.name(), subject);
        let body = body(&id, kind.name(), at, data);
        Self { id, kind, body }
    }

    /// The event for the end of a batch.
    pub fn for_batch(kind: EventType, batch_id: &str, ended_at: UnixMs) -> Self {
        Self::new(kind, batch_id, ended_at, &json!({ "id": batch_id }))
    }

    /// The event for the end of a job.
    pub fn for_job(kind: EventType, job: &Job) -> Self {
        let data = if kind.is_response_event() {
            json!({ "id": format!("resp_{}", job.answer_id()) })
        } else {
            let result = job.result_fence.map(|_| format!("{}/v1/jobs/{}/result", job.call.base_path, job.id));
            let mut data = json!({ "id": job.id, "status": job.status, "result": result });
            if let Some(wait) = &job.wait {
                data["waited_for"] = json!(wait.text());
            }
            data
        };
        Self::new(kind, &job.id, job.finished_at.unwrap_or(job.created_at), &data)
    }
}

/// Formats the body of an event (`openai.types.webhooks`). `created_at` is in seconds.
pub(super) fn body(id: &str, kind: &str, at: UnixMs, data: &Value) -> String {
    json!({ "id": id, "object": "event", "created_at": at.as_s(), "type": kind, "data": data }).to_string()
}

/// Returns the id of an event. Different events have different ids. Ids contain no full stop, which
/// would make the signed text ambiguous (Standard Webhooks, "Signature scheme").
pub(super) fn event_id(kind: &str, subject: &str) -> String {
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
        job::{JobStatus, JobWait, NewJob, Obstruction, Priority, StoredCall},
        stored_headers::StoredHeaders,
        tenant::Class,
    };

    const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_999);

    fn job(api: Api) -> Job {
        let new = NewJob {
            id: None,
            tenant: "acme".into(),
            call: StoredCall {
                api,
                model: None,
                path: api.path().into(),
                base_path: "/llm".into(),
                headers: StoredHeaders::default(),
                stream: false,
            },
            body: Bytes::from_static(b"{\"secret\": \"prompt\"}"),
            created_at: NOW,
            ready_at: NOW,
            expires_at: NOW,
            is_parked: false,
            priority: Priority::Normal,
            class: Class::Batch,
            member: None,
            wait: None,
        };
        Job::accepted("018f0000-0000-7000-8000-000000000000".into(), &new)
    }

    #[test]
    fn an_event_has_the_format_that_openais_sdks_parse() {
        let ended = Job { result_fence: Some(3), ..job(Api::Responses).ended(JobStatus::Succeeded, None, NOW) };
        let event = WebhookEvent::for_job(EventType::ResponseCompleted, &ended);
        let expected = format!(
            "{{\"id\":\"{}\",\"object\":\"event\",\"created_at\":1800000000,\"type\":\"response.completed\",\
             \"data\":{{\"id\":\"resp_018f0000-0000-7000-8000-000000000000\"}}}}",
            event.id
        );
        assert_eq!(event.body, expected);
        let batch = WebhookEvent::for_batch(EventType::BatchExpired, "batch_7", NOW);
        let body: Value = serde_json::from_str(&batch.body).expect("JSON");
        assert_eq!((&body["type"], &body["data"]), (&json!("batch.expired"), &json!({ "id": "batch_7" })));
    }

    #[test]
    fn an_event_has_the_path_of_the_answer_and_no_text() {
        let ended = job(Api::ChatCompletions).ended(JobStatus::Succeeded, Some("why".into()), NOW);
        let answered = Job { result_fence: Some(1), ..ended.clone() };
        let data = |job: &Job| -> Value {
            let event = WebhookEvent::for_job(EventType::JobSucceeded, job);
            assert!(!event.body.contains("prompt"), "{}", event.body);
            serde_json::from_str::<Value>(&event.body).expect("JSON")["data"].clone()
        };
        let path = format!("/llm/v1/jobs/{}/result", ended.id);
        assert_eq!(data(&answered), json!({ "id": ended.id, "status": "succeeded", "result": path }));
        assert_eq!(data(&ended)["result"], Value::Null);
        let wait = JobWait::after(None, Obstruction::for_limit("in_flight"), NOW);
        let expired = job(Api::ChatCompletions).deferred(&wait, NOW).ended(JobStatus::Expired, None, NOW);
        assert_eq!(data(&expired)["waited_for"], "in_flight, once");
    }

    #[test]
    fn an_id_is_stable_and_unique_and_has_no_full_stop() {
        let id_for = |kind, subject| WebhookEvent::for_batch(kind, subject, NOW).id;
        let id = id_for(EventType::BatchFailed, "batch_1");
        assert_eq!(id, WebhookEvent::for_batch(EventType::BatchFailed, "batch_1", UnixMs::MAX).id);
        assert_ne!(id, id_for(EventType::BatchFailed, "batch_2"));
        assert_ne!(id, id_for(EventType::BatchExpired, "batch_1"));
        assert!(id.len() == 36 && !id.contains('.'), "{id}");
    }
}
