//! The webhook event that reports the end of a job.

use serde::Deserialize;

use super::{Job, JobStatus, StoredResult};
use crate::{dialect::Api, tenant::EventType};

impl Job {
    /// Returns the event for an end with `status`. Returns `None` if the job has not ended, or
    /// belongs to a batch, whose event reports the end of all its jobs. The answer shows whether a
    /// response is incomplete.
    pub fn end_event(&self, status: JobStatus, answer: Option<&StoredResult>) -> Option<EventType> {
        if self.member.is_some() {
            return None;
        }
        let is_incomplete = || answer.is_some_and(|answer| is_incomplete_response(&answer.body));
        Some(match (status, self.call.api == Api::Responses) {
            (JobStatus::Queued | JobStatus::Running, _) => return None,
            (JobStatus::Succeeded, true) if is_incomplete() => EventType::ResponseIncomplete,
            (JobStatus::Succeeded, true) => EventType::ResponseCompleted,
            // Responses of OpenAI's API do not expire.
            (JobStatus::Failed | JobStatus::Expired, true) => EventType::ResponseFailed,
            (JobStatus::Cancelled, true) => EventType::ResponseCancelled,
            (JobStatus::Succeeded, false) => EventType::JobSucceeded,
            (JobStatus::Failed, false) => EventType::JobFailed,
            (JobStatus::Expired, false) => EventType::JobExpired,
            (JobStatus::Cancelled, false) => EventType::JobCancelled,
        })
    }
}

/// Whether a stored response, JSON or a stream, is marked as incomplete.
fn is_incomplete_response(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct StatusField {
        status: Option<String>,
    }
    // JSON escapes line breaks, so the text of a model cannot contain this line.
    const EVENT: &[u8] = b"event: response.incomplete\n";
    match serde_json::from_slice::<StatusField>(body) {
        Ok(response) => response.status.as_deref() == Some("incomplete"),
        Err(_) => body.split_inclusive(|byte| *byte == b'\n').any(|line| line == EVENT),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        job::{BatchMember, NewJob, Priority, StoredCall},
        stored_headers::StoredHeaders,
        tenant::Class,
        units::UnixMs,
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
                base_path: String::new(),
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

    fn answer(body: &'static str) -> StoredResult {
        StoredResult { status: 200, headers: StoredHeaders::default(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_response_ends_with_an_event_of_openais_api() {
        let event = |status, answer: Option<&StoredResult>| job(Api::Responses).end_event(status, answer);
        let complete = answer(r#"{"id":"resp_1","status":"completed","output":["status","incomplete"]}"#);
        assert_eq!(event(JobStatus::Succeeded, Some(&complete)), Some(EventType::ResponseCompleted));
        let incomplete = answer(r#"{"id":"resp_1","status":"incomplete"}"#);
        assert_eq!(event(JobStatus::Succeeded, Some(&incomplete)), Some(EventType::ResponseIncomplete));
        let complete = answer("event: response.completed\ndata: {\"t\":\"event: response.incomplete\\n\"}\n\n");
        assert_eq!(event(JobStatus::Succeeded, Some(&complete)), Some(EventType::ResponseCompleted));
        let incomplete = answer("event: x\ndata: {}\n\nevent: response.incomplete\ndata: {}\n\n");
        assert_eq!(event(JobStatus::Succeeded, Some(&incomplete)), Some(EventType::ResponseIncomplete));
        assert_eq!(event(JobStatus::Failed, None), Some(EventType::ResponseFailed));
        assert_eq!(event(JobStatus::Expired, None), Some(EventType::ResponseFailed));
        assert_eq!(event(JobStatus::Cancelled, None), Some(EventType::ResponseCancelled));
    }

    #[test]
    fn any_other_job_ends_with_an_event_named_after_its_status() {
        let event = |status| job(Api::ChatCompletions).end_event(status, None);
        assert_eq!(event(JobStatus::Succeeded), Some(EventType::JobSucceeded));
        assert_eq!(event(JobStatus::Failed), Some(EventType::JobFailed));
        assert_eq!(event(JobStatus::Expired), Some(EventType::JobExpired));
        assert_eq!(event(JobStatus::Cancelled), Some(EventType::JobCancelled));
        assert_eq!((event(JobStatus::Queued), event(JobStatus::Running)), (None, None));
        let member = Some(BatchMember { batch_id: "b".into(), line: 0, total_lines: 1, custom_id: "c".into() });
        let line = Job { member, ..job(Api::Responses) };
        assert_eq!(line.end_event(JobStatus::Succeeded, None), None, "its batch has an event");
    }
}
