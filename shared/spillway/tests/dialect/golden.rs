//! Exchanges as files: the caller's request, the request to the model, its reply, and the answer.
//!
//! Each folder of `golden/` is an exchange with an API: `request.json` becomes `sent.json`,
//! `reply.json` becomes `answer.json`, and the events of `events.jsonl` become `stream.sse` or
//! `stream.frames`. Each line of `stream.frames` has the headers and the payload of a frame.
//! `SPILLWAY_GOLDEN=write` rewrites the expected files. Read them before you commit them.

use std::fs;
use std::path::{Path, PathBuf};

use aws_smithy_eventstream::frame::read_message_from;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use spillway::{
    chat::{Answer, Format, NativeReply, Output, StreamEvent},
    dialect::{AnswerContext, Api, Echo},
    stored_headers::StoredHeaders,
    units::UnixMs,
    usage::Usage,
};

/// The exchanges: the folder, the API, and the format of the model's own bodies, if they are sent.
pub const EXCHANGES: [(&str, Api, Option<Format>); 7] = [
    ("chat_completions", Api::ChatCompletions, None),
    ("chat_completions_with_tools", Api::ChatCompletions, None),
    ("embeddings", Api::Embeddings, Some(Format::TitanEmbed)),
    ("messages", Api::Messages, None),
    ("messages_of_claude", Api::Messages, Some(Format::Messages)),
    ("converse", Api::Converse, None),
    ("invoke", Api::Invoke, Some(Format::Messages)),
];

/// The folder of an exchange.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialect/golden").join(name)
}

fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails unless the file contains `found`.
fn check(path: &Path, found: &str) {
    if std::env::var("SPILLWAY_GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::write(path, found).expect("a file that can be written");
    }
    let expected = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(found, expected, "{}", path.display());
}

fn check_json(path: &Path, found: &Value) {
    check(path, &(serde_json::to_string_pretty(found).expect("JSON") + "\n"));
}

fn echo_and_sent(api: Api, format: Option<Format>, request: &Value) -> (Echo, Value) {
    let draft = api.read(request.to_string().as_bytes(), Some("model"), true).expect("a valid request");
    let (request, echo) = draft.request(format, &HeaderMap::new()).expect("a valid request");
    let bodies = request.input.bodies();
    let sent = if let [body] = bodies { Value::Object(body.clone()) } else { json!(bodies) };
    (echo, json!({ "stream": request.stream, "ignored": request.ignored, "sent": sent }))
}

fn context(echo: Echo) -> AnswerContext {
    AnswerContext {
        request_id: "r1".into(),
        model: "model".into(),
        created_at: UnixMs::from_ms(1_700_000_000_000),
        echo,
    }
}

/// The model's reply as the broker passes it on: Converse's, or replies in the model's own format.
fn reply(format: Option<Format>, body: Value) -> Answer {
    if format.is_none() {
        let usage = body.get("usage").map(Usage::from_converse);
        return Answer { output: Output::Converse(body), usage };
    }
    let bodies = if let Value::Array(bodies) = body { bodies } else { vec![body] };
    let replies =
        bodies.iter().map(|body| NativeReply { headers: StoredHeaders::default(), body: body.to_string().into() });
    let usage = Usage { input_tokens: 12, output_tokens: 0, ..Usage::default() };
    Answer { output: Output::Native(replies.collect()), usage: Some(usage) }
}

fn event(format: Option<Format>, line: &str) -> StreamEvent {
    if format.is_some() {
        return StreamEvent::Native(Bytes::from(line.to_owned()));
    }
    event_from_line(&serde_json::from_str(line).expect("an event"))
}

/// Reads an event of ConverseStream from a line of a file.
pub fn event_from_line(line: &Value) -> StreamEvent {
    let name = line.get("event").and_then(Value::as_str).unwrap_or_default().to_owned();
    StreamEvent::Converse { name, payload: line.get("payload").cloned().unwrap_or_default() }
}

/// Frames of an event stream as text, with a line for each frame.
fn frames(mut bytes: &[u8]) -> String {
    let mut lines = String::new();
    while !bytes.is_empty() {
        let frame = read_message_from(&mut bytes).expect("a frame");
        for header in frame.headers() {
            let value = header.value().as_string().expect("a string").as_str().to_owned();
            lines += &format!("{}={value} ", header.name().as_str());
        }
        lines += &String::from_utf8_lossy(frame.payload());
        lines += "\n";
    }
    lines
}

#[test]
fn every_exchange_matches_its_files() {
    for (name, api, format) in EXCHANGES {
        let folder = folder(name);
        let (echo, sent) = echo_and_sent(api, format, &json_file(&folder.join("request.json")));
        check_json(&folder.join("sent.json"), &sent);
        let answer = api.answer(&context(echo.clone()), &reply(format, json_file(&folder.join("reply.json"))));
        check_json(&folder.join("answer.json"), &serde_json::from_slice(&answer.body).expect("JSON"));
        if api == Api::Embeddings {
            continue;
        }
        let mut encoder = api.stream(context(echo));
        let mut bytes = Vec::new();
        let events = fs::read_to_string(folder.join("events.jsonl")).expect("events");
        events.lines().for_each(|line| bytes.extend(encoder.event(&event(format, line))));
        bytes.extend(encoder.finish());
        match api.dialect().stream_content_type() {
            "text/event-stream" => check(&folder.join("stream.sse"), &String::from_utf8(bytes).expect("text")),
            _ => check(&folder.join("stream.frames"), &frames(&bytes)),
        }
    }
}

#[test]
fn every_folder_is_an_exchange() {
    let mut found: Vec<String> = fs::read_dir(folder("")).expect("the folder").map(file_name).collect();
    let mut named: Vec<String> = EXCHANGES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    found.sort();
    named.sort();
    assert_eq!(found, named);
}

fn file_name(entry: std::io::Result<fs::DirEntry>) -> String {
    entry.expect("an entry").file_name().into_string().expect("a name")
}
