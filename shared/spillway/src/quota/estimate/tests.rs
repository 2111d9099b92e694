use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::DeflateEncoder};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ALL: [Tokenizer; 10] = [
    Tokenizer::Claude3,
    Tokenizer::Claude47,
    Tokenizer::Llama3,
    Tokenizer::Mistral32k,
    Tokenizer::MistralTekken,
    Tokenizer::Deepseek,
    Tokenizer::Qwen3,
    Tokenizer::GptOss,
    Tokenizer::Amazon,
    Tokenizer::Unknown,
];

fn body_tokens(body: &Value, tokenizer: Tokenizer) -> u64 {
    estimate(body, tokenizer).tokens
}

fn estimate(body: &Value, tokenizer: Tokenizer) -> InputEstimate {
    estimate_input(body.as_object().expect("an object"), tokenizer)
}

/// Returns the tokens of `text` alone.
fn text_tokens(text: &str, tokenizer: Tokenizer) -> u64 {
    weights::millitokens(&scan::features(text), tokenizer).div_ceil(1_000)
}

/// Fails unless the repeated `text` is estimated at one token for `chars_per_token` characters, or
/// at up to half as many tokens more.
fn check(text: &str, tokenizer: Tokenizer, chars_per_token: f64) {
    let text = text.repeat(50);
    let (tokens, min) = (text_tokens(&text, tokenizer) as f64, text.chars().count() as f64 / chars_per_token);
    assert!(
        (min..=min * 1.5).contains(&tokens),
        "{tokenizer:?}: {tokens} tokens, at least {min} expected: {}",
        &text[..40]
    );
}

const CHINESE: &str = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。";
const ENGLISH: &str = "All human beings are born free and equal in dignity and rights. They are endowed with reason. ";
const RANDOM: &str = "kH9vQ2xZ7bWm4TfL1sYp8RnC3jDg6EaU5oKi0tGhVqXwBzMdJrNySePcAlFu2+/9";

#[test]
fn chinese_is_estimated_at_one_token_per_character() {
    check(CHINESE, Tokenizer::Claude3, 1.0);
}

#[test]
fn english_is_estimated_at_one_token_per_five_characters_and_more_for_claude_4_7() {
    check(ENGLISH, Tokenizer::Llama3, 5.2);
    check(ENGLISH, Tokenizer::Claude3, 5.0);
    check(ENGLISH, Tokenizer::Claude47, 4.0);
}

#[test]
fn base64_and_hexadecimal_text_cost_more_than_words() {
    check(RANDOM, Tokenizer::Llama3, 1.6);
    check(RANDOM, Tokenizer::Claude47, 1.2);
    check("8f14e45fceea167a5a36dedd4bea2543\n", Tokenizer::Llama3, 1.8);
}

#[test]
fn a_long_name_does_not_count_as_base64() {
    for name in
        ["get_the_longest_name_of_2_modules", "shared/spillway/src/quota/estimate2", "AwsSdkDynamoDbClientBuilder2"]
    {
        assert_eq!(scan::features(name)[Feature::Base64Character as usize], 0, "{name}");
    }
}

#[test]
fn an_unknown_model_has_the_highest_estimate() {
    let body = json!({
        "messages": [{ "role": "user", "content": [{ "text": format!("{ENGLISH}{CHINESE}{RANDOM}") }, { "image": {} }] }],
        "toolConfig": { "tools": [{ "toolSpec": { "name": "t" } }], "toolChoice": { "any": {} } },
    });
    let unknown = body_tokens(&body, Tokenizer::Unknown);
    assert!(ALL.iter().all(|tokenizer| body_tokens(&body, *tokenizer) <= unknown));
}

#[test]
fn a_tool_costs_its_schema_and_for_claude_also_a_system_prompt() {
    let plain = json!({ "messages": [{ "content": [{ "text": "Hello" }] }] });
    let tools = json!([{ "toolSpec": { "name": "weather", "inputSchema": { "json": { "type": "object" } } } }]);
    let with = |choice: &Value, tokenizer| {
        let config = json!({ "tools": tools, "toolChoice": choice });
        body_tokens(&json!({ "messages": plain["messages"], "toolConfig": config }), tokenizer)
            - body_tokens(&plain, tokenizer)
    };
    let schema = with(&json!({ "auto": {} }), Tokenizer::Qwen3);
    assert!((15..40).contains(&schema), "{schema}");
    let [auto, forced] = [json!({ "auto": {} }), json!({ "any": {} })].map(|choice| with(&choice, Tokenizer::Claude3));
    assert_eq!(forced - auto, 589 - 530);
    assert!(auto > 530);
}

#[test]
fn an_image_has_a_fixed_cost_and_sound_costs_by_its_length() {
    assert_eq!(block_tokens(json!({ "image": { "source": { "bytes": RANDOM } } })), 4_784);
    assert_eq!(block_tokens(json!({ "audio": { "source": { "bytes": "A".repeat(120_000) } } })), 10_000);
    assert_eq!(block_tokens(json!({ "audio": { "source": { "bytes": "A" } } })), 3_000);
    let elsewhere = json!({ "video": { "source": { "s3Location": { "uri": "s3://b/k" } } } });
    assert_eq!(block_tokens(elsewhere), 1_000_000);
}

/// Returns the tokens that `block` adds to a message.
fn block_tokens(block: Value) -> u64 {
    let tokens = |block| body_tokens(&json!({ "messages": [{ "content": [block] }] }), Tokenizer::Claude47);
    tokens(block) - tokens(json!({}))
}

#[test]
fn a_text_costs_at_least_the_same_wherever_it_stands() {
    let text = ENGLISH.repeat(200);
    let base64 = STANDARD.encode(&text);
    let plain = block_tokens(json!({ "text": text }));
    for block in [
        json!({ "type": "document", "source": { "type": "text", "media_type": "text/plain", "data": text } }),
        json!({ "type": "document", "source": { "type": "content", "content": [{ "type": "text", "text": text }] } }),
        json!({ "type": "document", "source": { "type": "base64", "media_type": "text/plain", "data": base64 } }),
        json!({ "type": "search_result", "source": "s", "title": "t", "content": [{ "type": "text", "text": text }] }),
        json!({ "type": "tool_result", "content": [{ "type": "text", "text": text }] }),
        json!({ "type": "new_block", "text": text }),
        json!({ "document": { "format": "txt", "name": "d", "source": { "bytes": base64 } } }),
        json!({ "document": { "format": "csv", "name": "d", "source": { "bytes": base64 } } }),
        json!({ "document": { "format": "doc", "name": "d", "source": { "bytes": base64 } } }),
        json!({ "document": { "name": "d", "source": { "text": text } } }),
        json!({ "document": { "name": "d", "source": { "content": [{ "text": text }] } } }),
        json!({ "document": { "name": "d", "context": text, "source": { "bytes": "" } } }),
        json!({ "guardContent": { "text": { "text": text, "qualifiers": ["query"] } } }),
        json!({ "reasoningContent": { "reasoningText": { "text": text } } }),
        json!({ "searchResult": { "source": "s", "title": "t", "content": [{ "text": text }] } }),
        json!({ "toolResult": { "toolUseId": "1", "content": [{ "json": { "text": text } }] } }),
        json!({ "newBlock": { "text": text } }),
    ] {
        let tokens = block_tokens(block.clone());
        assert!(tokens >= plain, "{tokens} < {plain}: {}", &block.to_string()[..60]);
        assert!(tokens <= plain + plain / 20, "{tokens} > {plain}: {}", &block.to_string()[..60]);
    }
}

#[test]
fn all_members_of_a_body_cost_tokens_but_its_settings() {
    let text = ENGLISH.repeat(100);
    let with = |name: &str, value: Value| body_tokens(&json!({ "messages": [], name: value }), Tokenizer::Claude47);
    let plain = with("system", json!(text));
    let tools = json!([{ "name": "t", "description": text, "input_schema": {} }]);
    let schema = json!({ "type": "json_schema", "schema": { "description": text } });
    for (name, value) in [
        ("system", json!([{ "text": text }])),
        ("tools", tools.clone()),
        ("toolConfig", json!({ "tools": tools })),
        ("additionalModelRequestFields", json!({ "system": text })),
        ("additionalModelRequestFields", json!({ "tools": tools })),
        ("additionalModelRequestFields", json!({ "output_config": { "format": schema } })),
        ("promptVariables", json!({ "a": { "text": text } })),
        ("outputConfig", json!({ "textFormat": { "structure": { "jsonSchema": { "schema": text } } } })),
        ("output_config", json!({ "format": schema })),
        ("response_format", schema),
        ("a_new_member", json!([[text]])),
    ] {
        let tokens = with(name, value);
        assert!(tokens >= plain, "{name}: {tokens} < {plain}");
    }
    for name in ["requestMetadata", "stop_sequences", "temperature", "inferenceConfig"] {
        assert_eq!(with(name, json!(text)), with("stop", json!(1)), "{name}");
    }
}

#[test]
fn an_echoed_answer_costs_its_text() {
    let answer = json!({ "role": "assistant", "content": ENGLISH });
    let mut echoed = answer.clone();
    for name in ["audio", "refusal", "image", "document"] {
        echoed[name] = Value::Null;
    }
    assert_eq!(block_tokens(echoed), block_tokens(answer) + 4);
}

#[test]
fn a_pdf_costs_by_its_pages_and_the_most_if_they_cannot_be_counted() {
    let pages: String = (3..103).map(|number| format!("{number} 0 obj\n<</Type/Page>>\nendobj\n")).collect();
    let kids: String = (3..103).map(|number| format!("{number} 0 R ")).collect();
    let tree = format!("%PDF-1.4\n1 0 obj\n<</Pages 2 0 R>>\nendobj\n2 0 obj\n<</Kids[{kids}]>>\nendobj\n{pages}");
    let tokens = |file: &str| {
        let anthropic = json!({ "type": "base64", "media_type": "application/pdf", "data": STANDARD.encode(file) });
        let tokens = block_tokens(json!({ "type": "document", "source": anthropic }));
        let converse = json!({ "format": "pdf", "source": { "bytes": STANDARD.encode(file) } });
        assert_eq!(block_tokens(json!({ "document": converse })), tokens);
        tokens
    };
    assert_eq!(tokens(&tree), 100 * (3_000 + 4_784));
    assert_eq!(tokens("%PDF-1.4 encrypted"), 1_000_000);
}

#[test]
fn a_document_of_word_costs_the_text_of_its_parts() {
    let text = ENGLISH.repeat(500);
    let xml = format!("<w:document><w:t xml:space=\"preserve\">{text}</w:t></w:document>");
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(xml.as_bytes()).expect("no I/O");
    let part = encoder.finish().expect("no I/O");
    let header = [b"PK\x03\x04\x14\0\0\0\x08\0", [0; 16].as_slice(), b"\x08\0\0\0part.xml"].concat();
    let file = STANDARD.encode([header, part, b"PK\x01\x02".to_vec()].concat());
    assert!(file.len() * 50 < text.len(), "{}", file.len());
    let tokens = block_tokens(json!({ "document": { "format": "docx", "source": { "bytes": file } } }));
    let plain = block_tokens(json!({ "text": text }));
    assert!((plain..plain + 10).contains(&tokens), "{tokens} and {plain}");
}

#[test]
fn the_longest_cache_point_of_a_body_is_found_wherever_it_stands() {
    let (five, hour) = (json!({ "type": "default" }), json!({ "type": "ephemeral", "ttl": "1h" }));
    let block = |point: &Value| json!({ "messages": [{ "content": [{ "type": "text", "text": "t", "cache_control": point }] }] });
    for (body, expected) in [
        (json!({ "messages": [{ "content": [{ "text": "cache_control cachePoint" }] }] }), CacheWrites::Nothing),
        (block(&Value::Null), CacheWrites::Nothing),
        (block(&five), CacheWrites::FiveMinutes),
        (block(&hour), CacheWrites::OneHour),
        (block(&json!({ "ttl": "a new time" })), CacheWrites::OneHour),
        (json!({ "cache_control": five }), CacheWrites::FiveMinutes),
        (json!({ "system": [{ "text": "s" }, { "cachePoint": hour }] }), CacheWrites::OneHour),
        (json!({ "toolConfig": { "tools": [{ "toolSpec": {} }, { "cachePoint": five }] } }), CacheWrites::FiveMinutes),
        (json!({ "tools": [{ "name": "t", "cache_control": hour }] }), CacheWrites::OneHour),
        (json!({ "additionalModelRequestFields": { "tools": [{ "cache_control": hour }] } }), CacheWrites::OneHour),
        (json!({ "additionalModelRequestFields": { "cache_control": hour } }), CacheWrites::OneHour),
        (json!({ "messages": [{ "content": [{ "type": "image", "cache_control": hour }] }] }), CacheWrites::OneHour),
        (json!({ "messages": [{ "content": [{ "type": "document", "cache_control": hour }] }] }), CacheWrites::OneHour),
        (json!({ "messages": [{ "content": [{ "type": "new", "cache_control": hour }] }] }), CacheWrites::OneHour),
        (
            json!({ "messages": [{ "content": [{ "toolResult": { "content": [{ "cachePoint": hour }] } }] }] }),
            CacheWrites::OneHour,
        ),
        (
            json!({ "messages": [{ "content": [{ "toolUse": { "input": { "cachePoint": hour } } }] }] }),
            CacheWrites::Nothing,
        ),
    ] {
        assert_eq!(estimate(&body, Tokenizer::Claude3).cache_writes, expected, "{body}");
    }
}

#[test]
fn an_empty_body_has_an_estimate_above_zero() {
    assert!(ALL.iter().all(|tokenizer| body_tokens(&json!({}), *tokenizer) > 0));
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("messages"),
        Just("system"),
        Just("toolConfig"),
        Just("tools"),
        Just("toolChoice"),
        Just("content"),
        Just("text"),
        Just("image"),
        Just("document"),
        Just("input"),
        Just("json"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// Maximum by which additional text may lower the estimate: it can change the language of the words
/// before it, or extend the last word.
const MAX_REJUDGED_TOKENS: u64 = 40;

proptest! {
    #[test]
    fn any_json_has_an_estimate(
        value in any_json(),
        part in prop::sample::select(vec!["messages", "system", "toolConfig"]),
    ) {
        for tokenizer in ALL {
            let tokens = body_tokens(&json!({ part: value }), tokenizer);
            prop_assert!(tokens > 0);
        }
    }

    #[test]
    fn additional_text_lowers_the_estimate_by_a_bounded_amount(
        text in "(\\PC{0,8}|[a-zA-Z0-9 .,_+/=-]{0,40}|the |é){0,12}",
        more in "\\PC{0,40}",
    ) {
        for tokenizer in ALL {
            let (less, all) = (text_tokens(&text, tokenizer), text_tokens(&format!("{text}{more}"), tokenizer));
            prop_assert!(all + MAX_REJUDGED_TOKENS >= less, "{tokenizer:?}: {less} -> {all}");
        }
    }
}
