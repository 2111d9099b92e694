//! Bodies that cost much memory for their size.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

/// Size of a body: a little less than the maximum.
const BODY_BYTES: usize = 6_000_000;

/// The routes that take a body. Each has a body with `X` in the place of a fragment.
pub const ROUTES: [(&str, &str); 20] = [
    (
        "/v1/chat/completions",
        r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"metadata":X}"#,
    ),
    ("/v1/chat/completions", r#"{"model":"m","max_tokens":5,"messages":X}"#),
    ("/v1/responses", r#"{"model":"m","max_output_tokens":16,"input":"hi","metadata":X}"#),
    ("/v1/responses", r#"{"model":"m","max_output_tokens":16,"input":X}"#),
    ("/v1/embeddings", r#"{"model":"titan","input":"hi","user":X}"#),
    ("/v1/messages", r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"metadata":X}"#),
    ("/v1/messages", r#"{"model":"claude","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"metadata":X}"#),
    (
        "/model/m/converse",
        r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}],"additionalModelRequestFields":X}"#,
    ),
    ("/model/m/converse-stream", r#"{"messages":X}"#),
    ("/model/m/invoke", r#"{"prompt":X}"#),
    ("/model/claude/invoke-with-response-stream", r#"{"max_tokens":5,"messages":X}"#),
    ("/v1/messages/count_tokens", r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":X}"#),
    ("/model/m/count-tokens", r#"{"input":{"converse":{"messages":X}}}"#),
    ("/guardrail/g/version/1/apply", r#"{"source":"INPUT","content":X}"#),
    ("/v1/files", "X"),
    ("/v1/uploads", r#"{"filename":"f","bytes":1,"purpose":"batch","mime_type":"text/plain","more":X}"#),
    ("/v1/uploads/upload_1/parts", "X"),
    ("/v1/uploads/upload_1/complete", r#"{"part_ids":X}"#),
    ("/v1/batches", r#"{"input_file_id":"f","endpoint":"/v1/responses","completion_window":"24h","metadata":X}"#),
    ("/v1/messages/batches", r#"{"requests":[{"custom_id":"a","params":{"model":"m","max_tokens":5,"messages":X}}]}"#),
];

/// Arrays of these elements.
const ELEMENTS: [&str; 30] = [
    "[]",
    "[0]",
    "[[]]",
    "[[],[]]",
    "[\"\"]",
    "[0,0,0,0,0]",
    "{}",
    r#"{"":0}"#,
    r#"{"a":0}"#,
    r#"{"a":[]}"#,
    r#"{"a":{}}"#,
    r#"{"a":{"b":{}}}"#,
    r#"{"a":"b","c":"d"}"#,
    r#"{"a":0,"b":0,"c":0,"d":0}"#,
    "0",
    "-1",
    "1.5",
    "1e9",
    "18446744073709551615",
    "true",
    "null",
    r#""""#,
    r#""a""#,
    r#""\u0041""#,
    r#""\"""#,
    " \n\t[ 0 ] ",
    r#"{"role":"user","content":"a"}"#,
    r#"{"role":"user","content":[{"type":"text","text":"a"}]}"#,
    r#"{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"[]"}}]}"#,
    r#"{"name":"f","input_schema":{"type":"object","properties":{"a":{"type":"string"}}}}"#,
];

/// Strings of these characters.
const CHARACTERS: [&str; 5] = ["a", r"\u0041", r#"\""#, r"\n", "iVBORw0KGgo+"];

/// A fragment of JSON, or of what looks like JSON.
pub struct Shape {
    pub name: String,
    pub fragment: String,
}

/// All shapes.
pub fn all() -> Vec<Shape> {
    let arrays = ELEMENTS.map(|element| (format!("array of {element}"), array(element)));
    let strings = CHARACTERS.map(|text| (format!("string of {text}"), string(text)));
    let nested = |open: &str, close: &str, depth| array(&(open.repeat(depth) + &close.repeat(depth)));
    let members = |name: &dyn Fn(usize) -> String, count: usize| {
        let members: Vec<String> = (0..count).map(|index| format!("\"{}\":0", name(index))).collect();
        format!("{{{}}}", members.join(","))
    };
    let poison = array("[0]");
    let more = [
        ("arrays, 100 deep", nested("[", "]", 100)),
        ("arrays, 60 deep", nested("[", "]", 60)),
        ("objects, 100 deep", nested("{\"a\":", "}", 100).replace(":}", ":0}")),
        ("objects, 60 deep", nested("{\"\":", "}", 60).replace(":}", ":0}")),
        ("one array, 6 MB deep", "[".repeat(BODY_BYTES)),
        ("an object of many names", members(&|index| format!("{index}"), 500_000)),
        ("an object of one name", members(&|_| "a".to_owned(), BODY_BYTES / 6)),
        ("an array without an end", poison[..poison.len() - 1].to_owned()),
        ("words without an end", "a".repeat(BODY_BYTES)),
        ("JSON in a string", format!("\"{}\"", &poison[..])),
        ("the name that serde_json reserves", format!("{{\"$serde_json::private::RawValue\":\"{poison}\"}}")),
        ("the same name, escaped", format!("{{\"\\u0024serde_json::private::RawValue\":\"{poison}\"}}")),
        ("blanks", format!("[{}]", " ".repeat(BODY_BYTES))),
    ];
    let more = more.map(|(name, fragment)| (name.to_owned(), fragment));
    let shapes = arrays.into_iter().chain(strings).chain(more);
    shapes.map(|(name, fragment)| Shape { name, fragment }).collect()
}

/// Returns the body for `path` with `fragment` in it, and its content type.
pub fn body(path: &str, template: &str, fragment: &str) -> (Vec<u8>, &'static str) {
    if !path.ends_with("/files") && !path.ends_with("/parts") {
        return (template.replacen('X', fragment, 1).into_bytes(), "application/json");
    }
    let part = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{value}\r\n")
    };
    let parts = if path.ends_with("/files") {
        part("purpose", "batch") + &part("file", fragment)
    } else {
        part("data", fragment)
    };
    ((parts + "--b--\r\n").into_bytes(), "multipart/form-data; boundary=b")
}

/// Bodies within the bounds that take as much memory as they can.
pub fn allowed() -> Vec<(&'static str, String)> {
    let list = |element: &str, count: usize| format!("[{}]", vec![element; count].join(","));
    let text = |bytes: usize| "some words ".repeat(bytes / 11);
    let most = list(r#"{"a":"b","c":"d"}"#, 29_000);
    let call = |arguments: &str, count| {
        let arguments = serde_json::Value::from(arguments);
        let call = format!(r#"{{"id":"a","type":"function","function":{{"name":"f","arguments":{arguments}}}}}"#);
        let messages =
            format!(r#"[{{"role":"user","content":"hi"}},{{"role":"assistant","tool_calls":{}}}]"#, list(&call, count));
        let tools = r#"[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#;
        format!(r#"{{"model":"m","max_tokens":5,"messages":{messages},"tools":{tools}}}"#)
    };
    let request =
        r#"{"custom_id":"X","params":{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}}"#;
    let repeated = list(r#"{"a":"b","c":"d"}"#, 9_900);
    let requests: Vec<String> = (0..50_000).map(|index| request.replacen('X', &index.to_string(), 1)).collect();
    let user = |content: &str| format!(r#"[{{"role":"user","content":{content}}}]"#);
    let long = format!("\"{}\"", text(5_000_000));
    let file = "iVBORw0KGgo+".repeat(480_000);
    vec![
        (
            "/v1/chat/completions",
            format!(r#"{{"model":"m","messages":{}}}"#, list(r#"{"role":"user","content":"a"}"#, 29_000)),
        ),
        ("/v1/chat/completions", format!(r#"{{"model":"m","messages":{}}}"#, user(&long))),
        ("/v1/chat/completions", call(&format!(r#"{{"a":{}}}"#, list("[]", 49_000)), 1)),
        ("/v1/chat/completions", call(r#"{"a":{"b":1}}"#, 9_000)),
        (
            "/v1/chat/completions",
            format!(
                r#"{{"model":"m","messages":{},"tools":[{{"type":"function","function":{{"name":"f","parameters":{{"enum":{most}}}}}}}]}}"#,
                user(&long),
            ),
        ),
        (
            "/v1/responses",
            format!(r#"{{"model":"m","input":"hi","instructions":{long},"metadata":{{"a":{repeated}}}}}"#),
        ),
        (
            "/v1/responses",
            format!(
                r#"{{"model":"m","input":"hi","instructions":{long},"metadata":{{"a":{repeated}}},"stream":true}}"#
            ),
        ),
        ("/v1/embeddings", format!(r#"{{"model":"titan","input":{}}}"#, list(&format!("\"{}\"", text(2_900)), 100))),
        ("/v1/messages", format!(r#"{{"model":"m","max_tokens":5,"messages":{},"metadata":{most}}}"#, user(&long))),
        (
            "/v1/messages",
            format!(r#"{{"model":"claude","max_tokens":5,"messages":{},"metadata":{most}}}"#, user(&long)),
        ),
        (
            "/v1/messages",
            format!(
                r#"{{"model":"m","max_tokens":5,"messages":{}}}"#,
                user(&format!(
                    r#"[{{"type":"document","source":{{"type":"base64","media_type":"application/pdf","data":"{file}"}}}},{{"type":"text","text":"hi"}}]"#
                )),
            ),
        ),
        (
            "/model/m/converse",
            format!(
                r#"{{"messages":{},"additionalModelRequestFields":{{"a":{most}}}}}"#,
                user(&format!(r#"[{{"text":{long}}}]"#)),
            ),
        ),
        ("/model/m/converse-stream", format!(r#"{{"messages":{}}}"#, user(&list(r#"{"text":"a"}"#, 45_000)))),
        ("/model/m/invoke", format!(r#"{{"prompt":{long},"a":{most}}}"#)),
        ("/v1/messages/count_tokens", format!(r#"{{"model":"m","messages":{}}}"#, user(&long))),
        ("/v1/messages/batches", format!(r#"{{"requests":[{}]}}"#, requests.join(","))),
    ]
}

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("written");
    encoder.finish().expect("finished")
}

/// An array of `element`, of nearly [`BODY_BYTES`].
pub fn array(element: &str) -> String {
    let count = (BODY_BYTES - 200) / (element.len() + 1);
    let mut array = String::with_capacity(BODY_BYTES);
    array.push('[');
    (1..count).for_each(|_| array.extend([element, ","]));
    array + element + "]"
}

fn string(text: &str) -> String {
    format!("\"{}\"", text.repeat((BODY_BYTES - 200) / text.len()))
}
