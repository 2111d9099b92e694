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
    input_tokens(body.as_object().expect("an object"), tokenizer)
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
fn an_image_has_a_fixed_cost_and_a_document_costs_by_its_length() {
    let tokens = |block: Value| body_tokens(&json!({ "messages": [{ "content": [block] }] }), Tokenizer::Claude47);
    let empty = tokens(json!({}));
    assert_eq!(tokens(json!({ "image": { "source": { "bytes": RANDOM } } })) - empty, 4_784);
    let document = json!({ "document": { "source": { "bytes": "A".repeat(12_000) } } });
    assert_eq!(tokens(document) - empty, 1_000);
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
