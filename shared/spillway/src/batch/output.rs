//! Output of a batch: the output file and the error file of OpenAI's API, the results of
//! Anthropic's.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::{dialect::Dialect, job::StoredResult};

/// Maximum size of a file, which is built in memory. An answer that does not fit is replaced by a
/// reference to its job.
pub const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;

/// Outcome of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineOutcome {
    /// The line was answered, with a success or an error.
    Answered(StoredResult),
    /// The line failed without an answer, for this reason.
    Failed(String),
    /// There was no room for the line in time.
    Expired,
    /// The line was cancelled before it ran.
    Cancelled,
}

/// Files of a batch while they are built.
#[derive(Debug)]
pub struct OutputFiles {
    dialect: Dialect,
    max_bytes: usize,
    /// Lines that succeeded. In Anthropic's API, all lines.
    pub answers: Vec<u8>,
    /// Lines that failed. Empty in Anthropic's API.
    pub errors: Vec<u8>,
}

impl OutputFiles {
    /// Empty files. Each may hold `max_bytes`, plus a reference to the job of every line that does
    /// not fit.
    pub fn new(dialect: Dialect, max_bytes: usize) -> Self {
        Self { dialect, max_bytes, answers: Vec::new(), errors: Vec::new() }
    }

    /// Adds the outcome of the line called `custom_id`, which the job `job_id` ran.
    pub fn add(&mut self, job_id: &str, custom_id: &str, outcome: &LineOutcome) {
        let is_answer = matches!(outcome, LineOutcome::Answered(result) if (200..300).contains(&result.status));
        let line = self.line(job_id, custom_id, outcome);
        let goes_to_answers = is_answer || self.dialect == Dialect::Anthropic;
        let file = if goes_to_answers { &self.answers } else { &self.errors };
        if file.len() + line.len() <= self.max_bytes {
            let file = if goes_to_answers { &mut self.answers } else { &mut self.errors };
            file.extend_from_slice(&line);
            return;
        }
        let message =
            format!("The file is full. The answer of this line is at /v1/jobs/{job_id}/result for seven days.");
        let line = self.line(job_id, custom_id, &LineOutcome::Failed(message));
        let file = if self.dialect == Dialect::Anthropic { &mut self.answers } else { &mut self.errors };
        file.extend_from_slice(&line);
    }

    fn line(&self, job_id: &str, custom_id: &str, outcome: &LineOutcome) -> Vec<u8> {
        let custom_id = Value::from(custom_id).to_string();
        let mut line = match self.dialect {
            Dialect::Anthropic => format!(r#"{{"custom_id":{custom_id},"result":"#).into_bytes(),
            _ => format!(r#"{{"id":"batch_req_{}","custom_id":{custom_id},"#, job_id.replace('-', "")).into_bytes(),
        };
        match self.dialect {
            Dialect::Anthropic => anthropic(&mut line, outcome),
            _ => openai(&mut line, job_id, outcome),
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

/// OpenAI API reference, "The request output object".
fn openai(line: &mut Vec<u8>, job_id: &str, outcome: &LineOutcome) {
    let (code, message) = match outcome {
        LineOutcome::Answered(result) => {
            let status = result.status;
            let head = format!(r#""response":{{"status_code":{status},"request_id":"{job_id}","body":"#);
            line.extend_from_slice(head.as_bytes());
            line.extend_from_slice(&in_one_line(&result.body));
            return line.extend_from_slice(br#"},"error":null"#);
        }
        LineOutcome::Failed(message) => ("batch_request_failed", message.as_str()),
        LineOutcome::Expired => {
            ("batch_expired", "This request could not be executed before the completion window expired.")
        }
        LineOutcome::Cancelled => ("batch_cancelled", "The batch was cancelled before this request was executed."),
    };
    let error = json!({ "code": code, "message": message });
    line.extend_from_slice(format!(r#""response":null,"error":{error}"#).as_bytes());
}

/// Anthropic API reference, "Retrieve Message Batch results".
fn anthropic(line: &mut Vec<u8>, outcome: &LineOutcome) {
    let (head, body): (&[u8], Bytes) = match outcome {
        LineOutcome::Answered(result) if (200..300).contains(&result.status) => {
            (br#"{"type":"succeeded","message":"#, in_one_line(&result.body))
        }
        LineOutcome::Answered(result) => (br#"{"type":"errored","error":"#, in_one_line(&result.body)),
        LineOutcome::Failed(message) => {
            let error = json!({ "type": "error", "error": { "type": "api_error", "message": message } });
            (br#"{"type":"errored","error":"#, error.to_string().into())
        }
        LineOutcome::Expired => return line.extend_from_slice(br#"{"type":"expired"}"#),
        LineOutcome::Cancelled => return line.extend_from_slice(br#"{"type":"canceled"}"#),
    };
    line.extend_from_slice(head);
    line.extend_from_slice(&body);
    line.push(b'}');
}

/// Formats a body for a line: unchanged if it is JSON without line breaks, without line breaks if
/// it has some, and as a string if it is not JSON.
fn in_one_line(body: &Bytes) -> Bytes {
    let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
    match serde_json::from_slice::<Value>(body) {
        _ if is_json && !body.contains(&b'\n') => body.clone(),
        Ok(value) => value.to_string().into(),
        Err(_) => Value::from(String::from_utf8_lossy(body)).to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stored_headers::StoredHeaders;

    fn answer(status: u16, body: &str) -> LineOutcome {
        LineOutcome::Answered(StoredResult {
            status,
            headers: StoredHeaders::default(),
            body: Bytes::from(body.to_owned()),
        })
    }

    fn read(file: &[u8]) -> Vec<Value> {
        let text = String::from_utf8(file.to_vec()).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn openai_has_answers_and_errors_in_two_files() {
        let mut files = OutputFiles::new(Dialect::OpenAi, MAX_FILE_BYTES);
        files.add("1-2", "a", &answer(200, "{\n  \"x\": 1}"));
        files.add("1-3", "b", &answer(404, r#"{"error":{}}"#));
        files.add("1-4", "c", &LineOutcome::Expired);
        let response = json!({ "status_code": 200, "request_id": "1-2", "body": { "x": 1 } });
        let line = json!({ "id": "batch_req_12", "custom_id": "a", "response": response, "error": null });
        assert_eq!(read(&files.answers), [line]);
        let errors = read(&files.errors);
        assert_eq!((&errors[0]["response"]["status_code"], &errors[0]["error"]), (&json!(404), &Value::Null));
        assert_eq!((&errors[1]["response"], &errors[1]["error"]["code"]), (&Value::Null, &json!("batch_expired")));
    }

    #[test]
    fn anthropic_has_all_outcomes_in_one_file() {
        let mut files = OutputFiles::new(Dialect::Anthropic, MAX_FILE_BYTES);
        let error = r#"{"type":"error","error":{"type":"not_found_error"}}"#;
        for outcome in [
            answer(200, "{}"),
            answer(404, error),
            LineOutcome::Failed("no".into()),
            LineOutcome::Expired,
            LineOutcome::Cancelled,
        ] {
            files.add("1", "a", &outcome);
        }
        let results: Vec<Value> = read(&files.answers).into_iter().map(|line| line["result"].clone()).collect();
        assert_eq!(results[0], json!({ "type": "succeeded", "message": {} }));
        assert_eq!(results[1]["error"]["error"]["type"], "not_found_error");
        assert_eq!(results[2]["error"]["error"], json!({ "type": "api_error", "message": "no" }));
        assert_eq!(results[3..], [json!({ "type": "expired" }), json!({ "type": "canceled" })]);
        assert!(files.errors.is_empty());
    }

    #[test]
    fn an_answer_that_does_not_fit_is_replaced_by_a_reference() {
        let long = format!("\"{}\"", "x".repeat(500));
        let mut files = OutputFiles::new(Dialect::OpenAi, 1_000);
        for custom_id in ["a", "b", "c"] {
            files.add("1", custom_id, &answer(200, &long));
        }
        let errors = read(&files.errors);
        assert_eq!((read(&files.answers).len(), errors.len()), (1, 2));
        assert!(errors[0]["error"]["message"].as_str().is_some_and(|message| message.contains("/v1/jobs/1/result")));
    }

    proptest! {
        #[test]
        fn every_line_is_one_line_of_json(body: Vec<u8>, custom_id in "\\PC{1,20}", status in 100..600_u16) {
            for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
                let mut files = OutputFiles::new(dialect, MAX_FILE_BYTES);
                let outcome = LineOutcome::Answered(StoredResult { status, headers: StoredHeaders::default(), body: body.clone().into() });
                files.add("1", &custom_id, &outcome);
                let lines = [read(&files.answers), read(&files.errors)].concat();
                prop_assert_eq!(lines.len(), 1);
                prop_assert_eq!(lines[0]["custom_id"].as_str(), Some(custom_id.as_str()));
            }
        }
    }
}
