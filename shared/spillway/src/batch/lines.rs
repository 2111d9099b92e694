//! Lines of a batch: one JSON object each, with the fields of OpenAI's batch guide (`custom_id`,
//! `method`, `url`, `body`).

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::LineError;
use crate::dialect::{
    MAX_REQUEST_BYTES,
    json::{check_bounds, raw},
};

/// Maximum of lines in a batch, as in OpenAI's API (API reference, "Create batch").
pub const MAX_LINES: usize = 50_000;

/// Maximum of errors that are reported, so that they fit in a row.
const MAX_ERRORS: usize = 50;

/// Maximum length of a `custom_id`.
const MAX_CUSTOM_ID_BYTES: usize = 512;

/// One request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Name of the request in the batch.
    pub custom_id: String,
    /// Body of the request.
    pub body: Bytes,
}

/// Counts lines as [`parse_lines`] does, from chunks of the input.
#[derive(Debug, Default)]
pub struct LineCounter {
    lines: u64,
    is_in_line: bool,
}

impl LineCounter {
    /// Counts the lines that begin in `chunk`.
    pub fn read(&mut self, chunk: &[u8]) {
        for byte in chunk {
            if *byte == b'\n' {
                self.is_in_line = false;
            } else if !self.is_in_line && !byte.is_ascii_whitespace() {
                self.is_in_line = true;
                self.lines += 1;
            }
        }
    }

    /// Returns the number of lines that can become jobs. None of a larger file does.
    pub fn lines(&self) -> u64 {
        self.lines.min(u64::try_from(MAX_LINES).unwrap_or(u64::MAX))
    }
}

/// Parses all lines. Each must call `endpoint`. Empty lines are skipped. The bodies are parts of
/// `input` and are not copied.
///
/// # Errors
/// Returns an error for each invalid line, up to a maximum.
pub fn parse_lines(input: &Bytes, endpoint: &str) -> Result<Vec<Line>, Vec<LineError>> {
    let (mut lines, mut errors, mut custom_ids) = (Vec::new(), Vec::new(), HashSet::new());
    for (number, text) in (1_u64..).zip(input.split(|byte| *byte == b'\n')) {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let parsed =
            parse_line(input, text, endpoint).and_then(|line| match custom_ids.insert(line.custom_id.clone()) {
                true => Ok(line),
                false => Err(error("duplicate_custom_id", "custom_id", "An earlier line has the same custom_id.")),
            });
        match parsed {
            Ok(line) => lines.push(line),
            Err(error) => errors.push(LineError { line: Some(number), ..error }),
        }
        if errors.len() == MAX_ERRORS {
            break;
        }
    }
    let file_error = |code, message: String| vec![LineError { param: None, ..error(code, "", &message) }];
    match lines.len() {
        _ if !errors.is_empty() => Err(errors),
        0 => Err(file_error("empty_file", "The input file contains no requests.".to_owned())),
        count if count > MAX_LINES => Err(file_error(
            "too_many_tasks",
            format!("The input file contains {count} requests. A batch may have {MAX_LINES}."),
        )),
        _ => Ok(lines),
    }
}

/// Formats requests as the lines of a batch, which [`parse_lines`] can parse.
pub fn lines_from_requests<'a>(requests: impl IntoIterator<Item = (&'a str, &'a RawValue)>, endpoint: &str) -> Bytes {
    let mut lines = Vec::new();
    for (custom_id, body) in requests {
        let (custom_id, endpoint) = (Value::from(custom_id), Value::from(endpoint));
        let head = format!(r#"{{"custom_id":{custom_id},"method":"POST","url":{endpoint},"body":"#);
        lines.extend_from_slice(head.as_bytes());
        // In JSON, a line break is a blank: a string has it only as an escape.
        lines.extend(body.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        lines.extend_from_slice(b"}\n");
    }
    lines.into()
}

/// Parses the line `text`, which is a part of `input`.
fn parse_line(input: &Bytes, text: &[u8], endpoint: &str) -> Result<Line, LineError> {
    let invalid = |code, message: &str| LineError { param: None, ..error(code, "", message) };
    if text.len() > MAX_REQUEST_BYTES {
        let message = format!("This line is larger than {MAX_REQUEST_BYTES} bytes, the maximum of a request.");
        return Err(invalid("line_too_large", &message));
    }
    check_bounds(text).map_err(|excess| invalid("line_too_complex", &format!("This line {excess}.")))?;
    let line = raw::members(text).map_err(|_| invalid("invalid_json_line", "This line is not a JSON object."))?;
    let required = |name: &str| {
        let missing = || error("missing_required_parameter", name, &format!("The line has no {name}."));
        raw::member(&line, name).filter(|value| value.get() != "null").ok_or_else(missing)
    };
    let custom_id = raw::text(required("custom_id")?).filter(|id| (1..=MAX_CUSTOM_ID_BYTES).contains(&id.len()));
    let custom_id = custom_id.ok_or_else(|| {
        let message = format!("The custom_id must be a string of 1 to {MAX_CUSTOM_ID_BYTES} bytes.");
        error("invalid_custom_id", "custom_id", &message)
    })?;
    if raw::text(required("method")?).as_deref() != Some("POST") {
        return Err(error("invalid_method", "method", "The method must be POST."));
    }
    if raw::text(required("url")?).as_deref() != Some(endpoint) {
        let message = format!("The url must be the endpoint of the batch, {endpoint}.");
        return Err(error("url_mismatch", "url", &message));
    }
    let body = required("body")?.get().as_bytes();
    let members = raw::members(body).map_err(|_| error("invalid_body", "body", "The body must be an object."))?;
    if raw::member(&members, "stream").is_some_and(|stream| stream.get() == "true") {
        let message = "A batch cannot stream. Leave out stream, or set it to false.";
        return Err(error("invalid_body", "body.stream", message));
    }
    Ok(Line { custom_id, body: input.slice_ref(body) })
}

fn error(code: &str, param: &str, message: &str) -> LineError {
    LineError { code: code.to_owned(), line: None, message: message.to_owned(), param: Some(param.to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::dialect::json::MAX_VALUES;

    const CHAT: &str = "/v1/chat/completions";

    fn line(custom_id: &str) -> String {
        json!({ "custom_id": custom_id, "method": "POST", "url": CHAT, "body": { "z": 1, "a": 2.5 } }).to_string()
    }

    fn parse(input: &str) -> Result<Vec<Line>, Vec<LineError>> {
        parse_lines(&Bytes::copy_from_slice(input.as_bytes()), CHAT)
    }

    fn errors(input: &str) -> Vec<(String, Option<u64>, Option<String>)> {
        let errors = parse(input).expect_err(input);
        errors.into_iter().map(|error| (error.code, error.line, error.param)).collect()
    }

    proptest! {
        #[test]
        fn lines_are_counted_from_chunks_as_they_are_parsed(
            kinds in proptest::collection::vec(0..4_usize, 0..12), ends_with_newline: bool, chunk_bytes in 1..40_usize,
        ) {
            let kind = |(number, kind): (usize, usize)| match kind {
                0 => String::new(),
                1 => " \t\r".to_owned(),
                _ => line(&number.to_string()),
            };
            let mut input = kinds.into_iter().enumerate().map(kind).collect::<Vec<_>>().join("\n");
            if ends_with_newline {
                input.push('\n');
            }
            let mut counter = LineCounter::default();
            input.as_bytes().chunks(chunk_bytes).for_each(|chunk| counter.read(chunk));
            let parsed = parse_lines(&Bytes::from(input), CHAT).map_or(0, |lines| lines.len());
            prop_assert_eq!(counter.lines(), parsed as u64);
        }
    }

    #[test]
    fn a_line_is_at_most_as_large_as_a_request() {
        let padded = |bytes: usize| line("a") + &" ".repeat(bytes - line("a").len());
        assert!(parse(&padded(MAX_REQUEST_BYTES)).is_ok());
        let input = line("b") + "\n" + &padded(MAX_REQUEST_BYTES + 1);
        assert_eq!(errors(&input), [("line_too_large".to_owned(), Some(2), None)]);
    }

    #[test]
    fn a_line_that_exceeds_a_bound_of_json_is_reported_by_its_number() {
        let with = |metadata: String| line("b").replacen("\"z\"", &format!("\"metadata\":{metadata},\"z\""), 1);
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        for metadata in ["[".repeat(64) + &"]".repeat(64), many] {
            let input = format!("{}\n{}\n{}", line("a"), with(metadata), line("c"));
            assert_eq!(errors(&input), [("line_too_complex".to_owned(), Some(2), None)]);
        }
    }

    #[test]
    fn lines_are_parsed_in_order_with_their_bodies_unchanged() {
        let input = format!("{}\r\n\n{}\n", line("a"), line("b"));
        let lines = parse(&input).expect("two lines");
        assert_eq!(lines.iter().map(|line| line.custom_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(lines[0].body, r#"{"z":1,"a":2.5}"#);
        assert_eq!(parse(&line("a")).map(|lines| lines.len()), Ok(1), "the last newline may be missing");
    }

    #[test]
    fn every_invalid_line_is_reported_with_its_number_and_field() {
        let valid = line("a");
        let input = [
            &valid,
            "{",
            &valid,
            &valid.replace("POST", "GET"),
            &valid.replace(CHAT, "/v1/embeddings"),
            &valid.replace(":\"a\"", ":7"),
            &valid.replace("\"z\"", "\"stream\":true,\"z\""),
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
        assert_eq!(errors(&"x\n".repeat(1_000)).len(), MAX_ERRORS);
    }

    #[test]
    fn a_batch_has_a_maximum_of_lines() {
        let input: String = (0..=MAX_LINES).map(|number| line(&number.to_string()) + "\n").collect();
        assert_eq!(errors(&input), [("too_many_tasks".to_owned(), None, None)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_or_errors(input: Vec<u8>) {
            let _ = parse_lines(&input.into(), CHAT);
        }

        #[test]
        fn any_damaged_line_is_parsed_or_rejected(at in 0..80_usize, with in "\\PC{0,3}") {
            let valid = line("a");
            let at = (0..=at.min(valid.len())).rev().find(|at| valid.is_char_boundary(*at)).unwrap_or_default();
            let _ = parse(&format!("{}{with}{}", &valid[..at], &valid[at..]));
        }

        #[test]
        fn requests_survive_formatting_and_parsing(ids in proptest::collection::hash_set("\\PC{1,20}", 1..20)) {
            let body = RawValue::from_string("{\n \"text\":\r\n\"x\\n\"}".to_owned()).expect("JSON");
            let requests = ids.iter().map(|id| (id.as_str(), &*body));
            let lines = parse_lines(&lines_from_requests(requests, CHAT), CHAT).expect("lines");
            let parsed: Vec<_> = lines.iter().map(|line| line.custom_id.as_str()).collect();
            prop_assert_eq!(parsed, ids.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(&lines[0].body, &"{  \"text\":  \"x\\n\"}");
        }
    }
}
