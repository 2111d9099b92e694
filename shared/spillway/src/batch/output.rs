//! What is written of the ends of lines: OpenAI's output and error file, Anthropic's results.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::{dialect::Dialect, job::StoredResult};

/// The most bytes of one file: it is put together in memory. An answer that does not fit is named instead, and is still to
/// be had from its job.
pub const LARGEST_FILE: usize = 64 * 1024 * 1024;

/// How a line ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With this answer, good or bad.
    Answered(StoredResult),
    /// Without one: why.
    Failed(String),
    /// It found no room in time.
    Expired,
    /// It was taken back before it ran.
    Cancelled,
}

/// The files of a batch as they are put together.
#[derive(Debug)]
pub struct Files {
    dialect: Dialect,
    largest: usize,
    /// The lines that were answered; in Anthropic's API all.
    pub answers: Vec<u8>,
    /// The others.
    pub errors: Vec<u8>,
}

impl Files {
    /// No lines yet, of at most `largest` bytes a file beyond what it takes to name every line.
    pub fn new(dialect: Dialect, largest: usize) -> Self {
        Self { dialect, largest, answers: Vec::new(), errors: Vec::new() }
    }

    /// Adds the end of the line called `custom_id`, which was done by the job `job_id`.
    pub fn add(&mut self, job_id: &str, custom_id: &str, ending: &Ending) {
        let is_answer = matches!(ending, Ending::Answered(result) if (200..300).contains(&result.status));
        let line = self.line(job_id, custom_id, ending);
        let goes_to_answers = is_answer || self.dialect == Dialect::Anthropic;
        let file = if goes_to_answers { &self.answers } else { &self.errors };
        if file.len() + line.len() <= self.largest {
            let file = if goes_to_answers { &mut self.answers } else { &mut self.errors };
            file.extend_from_slice(&line);
            return;
        }
        let told = format!("The file is full. The answer of this line is at /v1/jobs/{job_id}/result for seven days.");
        let line = self.line(job_id, custom_id, &Ending::Failed(told));
        let file = if self.dialect == Dialect::Anthropic { &mut self.answers } else { &mut self.errors };
        file.extend_from_slice(&line);
    }

    fn line(&self, job_id: &str, custom_id: &str, ending: &Ending) -> Vec<u8> {
        let custom_id = Value::from(custom_id).to_string();
        let mut line = match self.dialect {
            Dialect::Anthropic => format!(r#"{{"custom_id":{custom_id},"result":"#).into_bytes(),
            _ => format!(r#"{{"id":"batch_req_{}","custom_id":{custom_id},"#, job_id.replace('-', "")).into_bytes(),
        };
        match self.dialect {
            Dialect::Anthropic => anthropic(&mut line, ending),
            _ => openai(&mut line, job_id, ending),
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

/// OpenAI API reference, "The request output object".
fn openai(line: &mut Vec<u8>, job_id: &str, ending: &Ending) {
    let (code, message) = match ending {
        Ending::Answered(result) => {
            let status = result.status;
            let head = format!(r#""response":{{"status_code":{status},"request_id":"{job_id}","body":"#);
            line.extend_from_slice(head.as_bytes());
            line.extend_from_slice(&in_one_line(&result.body));
            return line.extend_from_slice(br#"},"error":null"#);
        }
        Ending::Failed(told) => ("batch_request_failed", told.as_str()),
        Ending::Expired => {
            ("batch_expired", "This request could not be executed before the completion window expired.")
        }
        Ending::Cancelled => ("batch_cancelled", "The batch was cancelled before this request was executed."),
    };
    let error = json!({ "code": code, "message": message });
    line.extend_from_slice(format!(r#""response":null,"error":{error}"#).as_bytes());
}

/// Anthropic API reference, "Retrieve Message Batch results".
fn anthropic(line: &mut Vec<u8>, ending: &Ending) {
    let (head, body): (&[u8], Bytes) = match ending {
        Ending::Answered(result) if (200..300).contains(&result.status) => {
            (br#"{"type":"succeeded","message":"#, in_one_line(&result.body))
        }
        Ending::Answered(result) => (br#"{"type":"errored","error":"#, in_one_line(&result.body)),
        Ending::Failed(told) => {
            let error = json!({ "type": "error", "error": { "type": "api_error", "message": told } });
            (br#"{"type":"errored","error":"#, error.to_string().into())
        }
        Ending::Expired => return line.extend_from_slice(br#"{"type":"expired"}"#),
        Ending::Cancelled => return line.extend_from_slice(br#"{"type":"canceled"}"#),
    };
    line.extend_from_slice(head);
    line.extend_from_slice(&body);
    line.push(b'}');
}

/// A body as it can stand in a line: as it is, unless it has line breaks; as a string, if it is no JSON.
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

    fn answer(status: u16, body: &str) -> Ending {
        Ending::Answered(StoredResult { status, headers: Vec::new(), body: Bytes::from(body.to_owned()) })
    }

    fn read(file: &[u8]) -> Vec<Value> {
        let text = String::from_utf8(file.to_vec()).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn openai_has_answers_and_other_ends_in_two_files() {
        let mut files = Files::new(Dialect::OpenAi, LARGEST_FILE);
        files.add("1-2", "a", &answer(200, "{\n  \"x\": 1}"));
        files.add("1-3", "b", &answer(404, r#"{"error":{}}"#));
        files.add("1-4", "c", &Ending::Expired);
        let response = json!({ "status_code": 200, "request_id": "1-2", "body": { "x": 1 } });
        let line = json!({ "id": "batch_req_12", "custom_id": "a", "response": response, "error": null });
        assert_eq!(read(&files.answers), [line]);
        let errors = read(&files.errors);
        assert_eq!((&errors[0]["response"]["status_code"], &errors[0]["error"]), (&json!(404), &Value::Null));
        assert_eq!((&errors[1]["response"], &errors[1]["error"]["code"]), (&Value::Null, &json!("batch_expired")));
    }

    #[test]
    fn anthropic_has_all_ends_in_one_file() {
        let mut files = Files::new(Dialect::Anthropic, LARGEST_FILE);
        let error = r#"{"type":"error","error":{"type":"not_found_error"}}"#;
        for ending in
            [answer(200, "{}"), answer(404, error), Ending::Failed("no".into()), Ending::Expired, Ending::Cancelled]
        {
            files.add("1", "a", &ending);
        }
        let results: Vec<Value> = read(&files.answers).into_iter().map(|line| line["result"].clone()).collect();
        assert_eq!(results[0], json!({ "type": "succeeded", "message": {} }));
        assert_eq!(results[1]["error"]["error"]["type"], "not_found_error");
        assert_eq!(results[2]["error"]["error"], json!({ "type": "api_error", "message": "no" }));
        assert_eq!(results[3..], [json!({ "type": "expired" }), json!({ "type": "canceled" })]);
        assert!(files.errors.is_empty());
    }

    #[test]
    fn an_answer_that_does_not_fit_is_named_in_its_place() {
        let long = format!("\"{}\"", "x".repeat(500));
        let mut files = Files::new(Dialect::OpenAi, 1_000);
        for custom_id in ["a", "b", "c"] {
            files.add("1", custom_id, &answer(200, &long));
        }
        let errors = read(&files.errors);
        assert_eq!((read(&files.answers).len(), errors.len()), (1, 2));
        assert!(errors[0]["error"]["message"].as_str().is_some_and(|told| told.contains("/v1/jobs/1/result")));
    }

    proptest! {
        #[test]
        fn every_line_is_one_line_of_json(body: Vec<u8>, custom_id in "\\PC{1,20}", status in 100..600_u16) {
            for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
                let mut files = Files::new(dialect, LARGEST_FILE);
                let ending = Ending::Answered(StoredResult { status, headers: Vec::new(), body: body.clone().into() });
                files.add("1", &custom_id, &ending);
                let lines = [read(&files.answers), read(&files.errors)].concat();
                prop_assert_eq!(lines.len(), 1);
                prop_assert_eq!(lines[0]["custom_id"].as_str(), Some(custom_id.as_str()));
            }
        }
    }
}
