//! The webhook event that the end of a job causes.

use serde::Deserialize;

use super::{Job, Status, StoredResult};
use crate::{dialect::Api, tenant::EventType};

impl Job {
    /// The event of an end with `status`. `None` if the job has not ended, or belongs to a batch, which has an event
    /// instead. The answer is read only to see whether a response was cut short.
    pub fn end_event(&self, status: Status, answer: Option<&StoredResult>) -> Option<EventType> {
        if self.member.is_some() {
            return None;
        }
        let is_cut = || answer.is_some_and(|answer| is_incomplete(&answer.body));
        Some(match (status, self.call.api == Api::Responses) {
            (Status::Queued | Status::Running, _) => return None,
            (Status::Succeeded, true) if is_cut() => EventType::ResponseIncomplete,
            (Status::Succeeded, true) => EventType::ResponseCompleted,
            // OpenAI's responses do not expire.
            (Status::Failed | Status::Expired, true) => EventType::ResponseFailed,
            (Status::Cancelled, true) => EventType::ResponseCancelled,
            (Status::Succeeded, false) => EventType::JobSucceeded,
            (Status::Failed, false) => EventType::JobFailed,
            (Status::Expired, false) => EventType::JobExpired,
            (Status::Cancelled, false) => EventType::JobCancelled,
        })
    }
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

    fn answer(body: &'static str) -> StoredResult {
        StoredResult { status: 200, headers: Vec::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_response_is_told_as_openai_tells_it() {
        for path in ["/v1/responses", "/openai/v1/responses/"] {
            let of = |status, answer: Option<&StoredResult>| job(path).end_event(status, answer);
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
        let of = |status| job("/v1/chat/completions").end_event(status, None);
        assert_eq!(of(Status::Succeeded), Some(EventType::JobSucceeded));
        assert_eq!(of(Status::Failed), Some(EventType::JobFailed));
        assert_eq!(of(Status::Expired), Some(EventType::JobExpired));
        assert_eq!(of(Status::Cancelled), Some(EventType::JobCancelled));
        assert_eq!((of(Status::Queued), of(Status::Running)), (None, None));
        let member = Some(Member { batch: "b".into(), line: 0, of: 1, custom_id: "c".into() });
        let line = Job { member, ..job("/v1/responses") };
        assert_eq!(line.end_event(Status::Succeeded, None), None, "its batch tells");
    }
}
