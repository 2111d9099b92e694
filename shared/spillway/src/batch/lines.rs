//! The lines of a batch: one JSON object each, as OpenAI's batch guide has them (`custom_id`, `method`, `url`, `body`).

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::LineError;

/// The most lines of one batch, as at OpenAI (API reference, "Create batch").
pub const MOST_LINES: usize = 50_000;

/// The most errors that are told: a row holds them.
const MOST_ERRORS: usize = 50;

/// The longest name of a line, in bytes.
const LONGEST_CUSTOM_ID: usize = 512;

/// A request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name that its batch gives it.
    pub custom_id: String,
    /// The body of the request.
    pub body: Bytes,
}

/// Reads all lines; each must ask `endpoint`. Empty ones do not count.
///
/// # Errors
/// What is wrong, line by line; of very many errors the first ones.
pub fn read(input: &[u8], endpoint: &str) -> Result<Vec<Line>, Vec<LineError>> {
    let (mut lines, mut errors, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (number, text) in (1_u64..).zip(input.split(|byte| *byte == b'\n')) {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let read = line(text, endpoint).and_then(|line| match seen.insert(line.custom_id.clone()) {
            true => Ok(line),
            false => {
                Err(error("duplicate_custom_id", "custom_id", "The custom_id of this line is that of an earlier one."))
            }
        });
        match read {
            Ok(line) => lines.push(line),
            Err(error) => errors.push(LineError { line: Some(number), ..error }),
        }
        if errors.len() == MOST_ERRORS {
            break;
        }
    }
    let whole = |code, told: String| vec![LineError { param: None, ..error(code, "", &told) }];
    match lines.len() {
        _ if !errors.is_empty() => Err(errors),
        0 => Err(whole("empty_file", "The input file holds no requests.".to_owned())),
        count if count > MOST_LINES => {
            Err(whole("too_many_tasks", format!("The input file holds {count} requests; a batch takes {MOST_LINES}.")))
        }
        _ => Ok(lines),
    }
}

/// The lines of which `read` makes these requests again.
pub fn of_requests<'a>(requests: impl IntoIterator<Item = (&'a str, &'a Value)>, endpoint: &str) -> Bytes {
    let mut lines = Vec::new();
    for (custom_id, body) in requests {
        let line = json!({ "custom_id": custom_id, "method": "POST", "url": endpoint, "body": body });
        lines.extend_from_slice(line.to_string().as_bytes());
        lines.push(b'\n');
    }
    lines.into()
}

fn line(text: &[u8], endpoint: &str) -> Result<Line, LineError> {
    let Ok(Value::Object(mut line)) = serde_json::from_slice(text) else {
        let told = "This line is not parseable as a JSON object.";
        return Err(LineError { param: None, ..error("invalid_json_line", "", told) });
    };
    let custom_id = take(&mut line, "custom_id")?;
    let custom_id = custom_id.as_str().filter(|id| (1..=LONGEST_CUSTOM_ID).contains(&id.len()));
    let custom_id = custom_id.ok_or_else(|| {
        let told = format!("The custom_id must be a string of 1 to {LONGEST_CUSTOM_ID} bytes.");
        error("invalid_custom_id", "custom_id", &told)
    })?;
    if take(&mut line, "method")?.as_str() != Some("POST") {
        return Err(error("invalid_method", "method", "The method must be POST."));
    }
    if take(&mut line, "url")?.as_str() != Some(endpoint) {
        let told = format!("The url must be the endpoint of the batch, {endpoint}.");
        return Err(error("url_mismatch", "url", &told));
    }
    let body = take(&mut line, "body")?;
    match body.get("stream") {
        _ if !body.is_object() => Err(error("invalid_body", "body", "The body must be an object.")),
        Some(Value::Bool(true)) => Err(error("invalid_body", "body.stream", "Nobody reads a stream in a batch.")),
        _ => Ok(Line { custom_id: custom_id.to_owned(), body: body.to_string().into() }),
    }
}

fn take(line: &mut Map<String, Value>, name: &str) -> Result<Value, LineError> {
    let missing = || error("missing_required_parameter", name, &format!("The line has no {name}."));
    line.remove(name).filter(|value| !value.is_null()).ok_or_else(missing)
}

fn error(code: &str, param: &str, message: &str) -> LineError {
    LineError { code: code.to_owned(), line: None, message: message.to_owned(), param: Some(param.to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    fn one(custom_id: &str) -> String {
        json!({ "custom_id": custom_id, "method": "POST", "url": CHAT, "body": { "z": 1, "a": 2.5 } }).to_string()
    }

    fn errors(input: &str) -> Vec<(String, Option<u64>, Option<String>)> {
        let errors = read(input.as_bytes(), CHAT).expect_err(input);
        errors.into_iter().map(|error| (error.code, error.line, error.param)).collect()
    }

    #[test]
    fn lines_are_read_in_order_with_their_bodies_as_they_are() {
        let input = format!("{}\r\n\n{}\n", one("a"), one("b"));
        let lines = read(input.as_bytes(), CHAT).expect("two lines");
        assert_eq!(lines.iter().map(|line| line.custom_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(lines[0].body, r#"{"z":1,"a":2.5}"#);
        assert_eq!(read(one("a").as_bytes(), CHAT).map(|lines| lines.len()), Ok(1), "the last newline may be missing");
    }

    #[test]
    fn every_bad_line_is_told_with_its_number_and_member() {
        let good = one("a");
        let input = [
            &good,
            "{",
            &good,
            &good.replace("POST", "GET"),
            &good.replace(CHAT, "/v1/embeddings"),
            &good.replace(":\"a\"", ":7"),
            &good.replace("\"z\"", "\"stream\":true,\"z\""),
            "{\"custom_id\":\"x\"}",
            "[]",
        ];
        let expected = [
            ("invalid_json_line", 2, None),
            ("duplicate_custom_id", 3, Some("custom_id")),
            ("invalid_method", 4, Some("method")),
            ("url_mismatch", 5, Some("url")),
            ("invalid_custom_id", 6, Some("custom_id")),
            ("invalid_body", 7, Some("body.stream")),
            ("missing_required_parameter", 8, Some("method")),
            ("invalid_json_line", 9, None),
        ];
        let expected = expected.map(|(code, line, param)| (code.to_owned(), Some(line), param.map(str::to_owned)));
        assert_eq!(errors(&input.join("\n")), expected);
        assert_eq!(errors("\n \n"), [("empty_file".to_owned(), None, None)]);
        assert_eq!(errors(&"x\n".repeat(1_000)).len(), MOST_ERRORS);
    }

    #[test]
    fn a_batch_has_an_end() {
        let input: String = (0..=MOST_LINES).map(|number| one(&number.to_string()) + "\n").collect();
        assert_eq!(errors(&input), [("too_many_tasks".to_owned(), None, None)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_or_errors(input: Vec<u8>) {
            let _ = read(&input, CHAT);
        }

        #[test]
        fn any_mutilated_line_is_read_or_refused(at in 0..80_usize, with in "\\PC{0,3}") {
            let good = one("a");
            let at = (0..=at.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap_or_default();
            let _ = read(format!("{}{with}{}", &good[..at], &good[at..]).as_bytes(), CHAT);
        }

        #[test]
        fn requests_come_back_as_they_were(ids in proptest::collection::hash_set("\\PC{1,20}", 1..20)) {
            let body = json!({ "text": "x" });
            let requests = ids.iter().map(|id| (id.as_str(), &body));
            let lines = read(&of_requests(requests, CHAT), CHAT).expect("lines");
            let read: Vec<_> = lines.iter().map(|line| line.custom_id.as_str()).collect();
            prop_assert_eq!(read, ids.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
