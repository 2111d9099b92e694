//! Generated bodies of every format.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::ZlibEncoder};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

/// A call, and whether it writes to the cache for an hour.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: &'static str,
    pub body: Value,
    pub is_hour: bool,
}

/// Models of the test, with their Bedrock ids.
pub const MODELS: [(&str, &str); 6] = [
    ("claude", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("nova", "amazon.nova-lite-v1:0"),
    ("llama", "meta.llama3-3-70b-instruct-v1:0"),
    ("gpt-oss", "openai.gpt-oss-120b-1:0"),
    ("titan", "amazon.titan-embed-text-v2:0"),
    ("cohere", "cohere.embed-multilingual-v3"),
];

const SNIPPETS: [&str; 8] = [
    "All human beings are born free and equal in dignity and rights. ",
    "fn add(left: u64, right: u64) -> u64 {\n    left.saturating_add(right)\n}\n",
    "{\"id\":1234,\"name\":\"Zoë\",\"tags\":[\"a\",\"b\"],\"price\":12.5},\n",
    "人人生而自由,在尊严和权利上一律平等。",
    "kH9vQ2xZ7bWm4TfL1sYp8RnC3jDg6EaU5oKi0tGhVqXwBzMdJrNySePcAlFu2+/9",
    "2026-11-30,4711,0.25,\"north\"\n",
    "مرحبا بالعالم، كيف حالك اليوم؟ ",
    "\"\\\t<&> 🎉 \u{1f680} ",
];

/// Texts of up to 15 KB. The simulator counts four bytes of any text as a token. Long runs of
/// blanks and Cyrillic prose are left out, because real tokenizers count fewer tokens there.
fn text() -> impl Strategy<Value = String> {
    let times = prop_oneof![4 => 1usize..8, 1 => 1usize..150];
    (select(&SNIPPETS), times).prop_map(|(snippet, times)| snippet.repeat(times))
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Returns a PDF with this number of pages, compressed or not.
fn pdf(pages: u32, is_compressed: bool) -> String {
    let objects: Vec<String> = (3..3 + pages).map(|page| format!("<</Type/Page/Parent 2 0 R/Dur {page}>>")).collect();
    let kids: String = (3..3 + pages).map(|page| format!("{page} 0 R ")).collect();
    let mut file = format!(
        "%PDF-1.5\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[{kids}]>>\nendobj\n"
    )
    .into_bytes();
    if is_compressed {
        let (mut index, mut content) = (String::new(), String::new());
        for (page, object) in (3..).zip(&objects) {
            index.push_str(&format!("{page} {} ", content.len()));
            content.push_str(object);
        }
        let first = index.len();
        file.extend(format!("1000 0 obj\n<</Type/ObjStm/N {pages}/First {first}/Filter/FlateDecode>>stream\n").bytes());
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(format!("{index}{content}").as_bytes()).expect("no I/O");
        file.extend(encoder.finish().expect("no I/O"));
        file.extend(b"\nendstream\nendobj\n");
    } else {
        for (page, object) in (3..).zip(&objects) {
            file.extend(format!("{page} 0 obj\n{object}\nendobj\n").bytes());
        }
    }
    base64(file)
}

fn point(ttl: Option<&'static str>) -> Value {
    ttl.map_or(json!({ "type": "default" }), |ttl| json!({ "type": "default", "ttl": ttl }))
}

fn tool(name: &str, description: String) -> Value {
    json!({ "name": name, "description": description, "input_schema": { "type": "object", "properties": {} } })
}

/// Generates content blocks of a user message for Converse.
fn converse_block(is_nova: bool) -> impl Strategy<Value = Value> {
    let document = |format: &'static str, source: Value| json!({ "document": { "format": format, "name": "doc", "source": source } });
    let documents = prop_oneof![
        (select(&["txt", "md", "csv", "html"]), text())
            .prop_map(move |(format, text)| document(format, json!({ "bytes": base64(text) }))),
        text().prop_map(move |text| document("txt", json!({ "text": text }))),
        vec(text(), 1..3).prop_map(move |texts| {
            let blocks: Vec<Value> = texts.into_iter().map(|text| json!({ "text": text })).collect();
            document("txt", json!({ "content": blocks }))
        }),
        (1u32..40, any::<bool>())
            .prop_map(move |(pages, is_packed)| document("pdf", json!({ "bytes": pdf(pages, is_packed) }))),
        vec(any::<u8>(), 10..2_000).prop_map(move |bytes| document("docx", json!({ "bytes": base64(bytes) }))),
    ];
    prop_oneof![
        6 => text().prop_map(|text| json!({ "text": text })),
        1 => Just(json!({ "image": { "format": "png", "source": { "bytes": "iVBORw0KGgo=" } } })),
        3 => documents,
        1 => Just(json!({ "video": { "format": "mp4", "source": { "bytes": base64("not much of a film") } } })),
        1 => text().prop_map(move |text| {
            if is_nova { json!({ "text": text }) } else { json!({ "guardContent": { "text": { "text": text } } }) }
        }),
    ]
}

/// A point that a body may have, and its time: the same for all points of a body.
fn ttl() -> impl Strategy<Value = Option<Option<&'static str>>> {
    option::of(select(&[None, Some("5m"), Some("1h")]))
}

/// Returns the messages of a tool call and its result.
fn tool_messages(result: &str) -> [Value; 2] {
    let call = json!({ "toolUseId": "id-1", "name": "t0", "input": { "query": result } });
    let contents = json!([{ "text": result }, { "json": { "rows": [result, 17, null] } }]);
    [
        json!({ "role": "assistant", "content": [{ "toolUse": call }] }),
        json!({ "role": "user", "content": [{ "toolResult": { "toolUseId": "id-1", "content": contents } }] }),
    ]
}

/// Generates bodies for Converse, and for Nova in its own format.
fn converse(is_nova: bool) -> impl Strategy<Value = (Value, bool)> {
    let prompt = (vec(converse_block(is_nova), 1..5), option::of(text()), vec(text(), 0..3), text());
    let additional = option::of((option::of(text()), vec(text(), 0..2)));
    (prompt, additional, option::of(text()), ttl(), 1u64..60).prop_map(
        move |((mut blocks, system, tools, result), additional, schema, ttl, max_tokens)| {
            // Nova keeps its cache for five minutes only.
            let ttl = if is_nova { ttl.map(|_| None) } else { ttl };
            let cache = ttl.map(|ttl| json!({ "cachePoint": point(ttl) }));
            let mut body = json!({ "inferenceConfig": { "maxTokens": max_tokens } });
            blocks.extend(cache.clone());
            let mut messages = vec![json!({ "role": "user", "content": blocks })];
            if !tools.is_empty() {
                let specs = tools.into_iter().enumerate().map(|(number, text)| {
                    let schema = json!({ "json": { "type": "object", "properties": {} } });
                    let name = format!("t{number}");
                    json!({ "toolSpec": { "name": name, "description": text, "inputSchema": schema } })
                });
                body["toolConfig"] = json!({ "tools": specs.chain(cache.clone()).collect::<Vec<_>>() });
                messages.extend(tool_messages(&result));
            }
            body["messages"] = json!(messages);
            if let Some(system) = system {
                let blocks: Vec<Value> = std::iter::once(json!({ "text": system })).chain(cache).collect();
                body["system"] = json!(blocks);
            }
            if !is_nova && let Some((system, tools)) = additional {
                let tools: Vec<Value> = tools.into_iter().map(|text| tool("extra", text)).collect();
                body["additionalModelRequestFields"] = json!({ "tools": tools });
                if let Some(system) = system {
                    body["additionalModelRequestFields"]["system"] = json!(system);
                }
            }
            if !is_nova && let Some(description) = schema {
                let schema = json!({ "type": "object", "description": description }).to_string();
                let structure = json!({ "jsonSchema": { "schema": schema, "name": "s" } });
                body["outputConfig"] = json!({ "textFormat": { "type": "json_schema", "structure": structure } });
            }
            (body, ttl == Some(Some("1h")))
        },
    )
}

/// Generates content blocks of a user message in Anthropic's format.
fn messages_block() -> impl Strategy<Value = Value> {
    let document = |source: Value| json!({ "type": "document", "source": source, "title": "A title" });
    let blocks = |text: String| json!([{ "type": "text", "text": text }]);
    let image = json!({ "type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo=" });
    prop_oneof![
        6 => text().prop_map(|text| json!({ "type": "text", "text": text })),
        1 => Just(json!({ "type": "image", "source": image })),
        2 => text().prop_map(move |text| {
            document(json!({ "type": "text", "media_type": "text/plain", "data": text }))
        }),
        2 => (1u32..40, any::<bool>()).prop_map(move |(pages, is_packed)| {
            document(json!({ "type": "base64", "media_type": "application/pdf", "data": pdf(pages, is_packed) }))
        }),
        1 => text().prop_map(move |text| document(json!({ "type": "content", "content": blocks(text) }))),
        1 => text().prop_map(move |text| {
            json!({ "type": "search_result", "source": "s", "title": "t", "content": blocks(text),
                "citations": { "enabled": true } })
        }),
    ]
}

/// Generates bodies in Anthropic's format.
fn messages() -> impl Strategy<Value = (Value, bool)> {
    let parts = (vec(messages_block(), 1..5), option::of(text()), vec(text(), 0..3), text());
    (parts, ttl(), any::<bool>(), 1u64..60).prop_map(
        |((mut blocks, system, tools, result), ttl, is_automatic, max_tokens)| {
            let mut body = json!({ "max_tokens": max_tokens });
            let cache = ttl.map(|ttl| {
                let point = json!({ "type": "ephemeral" });
                ttl.map_or(point, |ttl| json!({ "type": "ephemeral", "ttl": ttl }))
            });
            match &cache {
                Some(point) if is_automatic => body["cache_control"] = point.clone(),
                Some(point) => blocks[0]["cache_control"] = point.clone(),
                None => {}
            }
            let mut messages = vec![json!({ "role": "user", "content": blocks })];
            if !tools.is_empty() {
                let mut tools: Vec<Value> = tools.into_iter().map(|text| tool("t0", text)).collect();
                if let Some(point) = &cache {
                    tools[0]["cache_control"] = point.clone();
                }
                body["tools"] = json!(tools);
                let call = json!({ "type": "tool_use", "id": "toolu_1", "name": "t0", "input": { "query": result } });
                messages.push(json!({ "role": "assistant", "content": [call] }));
                let content = json!([{ "type": "text", "text": result }]);
                let result = json!({ "type": "tool_result", "tool_use_id": "toolu_1", "content": content });
                messages.push(json!({ "role": "user", "content": [result] }));
            }
            body["messages"] = json!(messages);
            if let Some(system) = system {
                body["system"] = json!([{ "type": "text", "text": system, "cache_control": cache }]);
            }
            (body, ttl == Some(Some("1h")))
        },
    )
}

/// Generates chat completions.
fn chat() -> impl Strategy<Value = Value> {
    (vec(text(), 1..4), option::of(text()), vec(text(), 0..3), any::<bool>(), 1u64..60).prop_map(
        |(texts, system, tools, has_image, max_tokens)| {
            let mut parts: Vec<Value> = texts.into_iter().map(|text| json!({ "type": "text", "text": text })).collect();
            if has_image {
                let image = json!({ "url": "data:image/png;base64,iVBORw0KGgo=" });
                parts.push(json!({ "type": "image_url", "image_url": image }));
            }
            let system = system.map(|system| json!({ "role": "system", "content": system }));
            let messages: Vec<Value> =
                system.into_iter().chain([json!({ "role": "user", "content": parts })]).collect();
            let mut body = json!({ "max_tokens": max_tokens, "messages": messages });
            if !tools.is_empty() {
                let function = |(number, text): (usize, String)| {
                    let parameters = json!({ "type": "object", "properties": {} });
                    let name = format!("t{number}");
                    json!({ "type": "function",
                        "function": { "name": name, "description": text, "parameters": parameters } })
                };
                body["tools"] = json!(tools.into_iter().enumerate().map(function).collect::<Vec<_>>());
            }
            body
        },
    )
}

fn with(mut body: Value, name: &str, value: &str) -> Value {
    body[name] = json!(value);
    body
}

/// Generates calls of every route with every format.
pub fn call() -> impl Strategy<Value = Call> {
    let plain = |path: &'static str, body: Value| Call { path, body, is_hour: false };
    let cached = |path: &'static str, (body, is_hour): (Value, bool)| Call { path, body, is_hour };
    let short = || "[a-z]{1,8}( [a-z]{1,8}){0,20}";
    prop_oneof![
        4 => converse(false).prop_map(move |body| cached("/model/claude/converse", body)),
        1 => converse(true).prop_map(move |body| cached("/model/nova/converse", body)),
        1 => converse(true).prop_map(move |body| cached("/model/nova/invoke", body)),
        4 => messages().prop_map(move |(body, is_hour)| {
            cached("/v1/messages", (with(body, "model", "claude"), is_hour))
        }),
        2 => messages().prop_map(move |(body, is_hour)| {
            cached("/model/claude/invoke", (with(body, "anthropic_version", "bedrock-2023-05-31"), is_hour))
        }),
        2 => (chat(), select(&["claude", "nova", "gpt-oss"]))
            .prop_map(move |(body, model)| plain("/v1/chat/completions", with(body, "model", model))),
        1 => chat().prop_map(move |body| plain("/model/gpt-oss/invoke", body)),
        1 => (text(), option::of(text()), 16u64..60).prop_map(move |(input, instructions, max_output_tokens)| {
            let body = json!({ "model": "gpt-oss", "input": input, "instructions": instructions,
                "max_output_tokens": max_output_tokens, "store": false });
            plain("/v1/responses", body)
        }),
        1 => (text(), 1u64..60).prop_map(move |(prompt, max_gen_len)| {
            plain("/model/llama/invoke", json!({ "prompt": prompt, "max_gen_len": max_gen_len }))
        }),
        1 => (vec(short(), 1..12), select(&["titan", "cohere"])).prop_map(move |(texts, model)| {
            plain("/v1/embeddings", json!({ "model": model, "input": texts }))
        }),
        1 => text().prop_map(move |text| plain("/model/titan/invoke", json!({ "inputText": text }))),
        1 => vec(short(), 1..96).prop_map(move |texts| {
            plain("/model/cohere/invoke", json!({ "texts": texts, "input_type": "search_document" }))
        }),
    ]
}
