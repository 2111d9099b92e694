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

fn of_body(body: &Value, tokenizer: Tokenizer) -> u64 {
    input_tokens(body.as_object().expect("an object"), tokenizer)
}

/// Returns the tokens of `text` alone.
fn of_text(text: &str, tokenizer: Tokenizer) -> u64 {
    weights::millitokens(&scan::features(text), tokenizer).div_ceil(1_000)
}

/// Fails unless the repeated `text` is estimated at one token per `per` characters, or up to a half
/// more.
fn check(text: &str, tokenizer: Tokenizer, per: f64) {
    let text = text.repeat(50);
    let (tokens, least) = (of_text(&text, tokenizer) as f64, text.chars().count() as f64 / per);
    assert!((least..=least * 1.5).contains(&tokens), "{tokenizer:?}: {tokens} tokens for {least}: {}", &text[..40]);
}

const CHINESE: &str = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。";
const ENGLISH: &str = "All human beings are born free and equal in dignity and rights. They are endowed with reason. ";
const RANDOM: &str = "kH9vQ2xZ7bWm4TfL1sYp8RnC3jDg6EaU5oKi0tGhVqXwBzMdJrNySePcAlFu2+/9";

#[test]
fn chinese_counts_about_one_token_a_character() {
    check(CHINESE, Tokenizer::Claude3, 1.0);
}

#[test]
fn english_counts_about_one_token_in_five_characters_and_a_third_more_since_claude_4_7() {
    check(ENGLISH, Tokenizer::Llama3, 5.2);
    check(ENGLISH, Tokenizer::Claude3, 5.0);
    check(ENGLISH, Tokenizer::Claude47, 4.0);
}

#[test]
fn base64_inside_text_counts_far_more_than_words() {
    check(RANDOM, Tokenizer::Llama3, 1.6);
    check(RANDOM, Tokenizer::Claude47, 1.2);
    check("8f14e45fceea167a5a36dedd4bea2543\n", Tokenizer::Llama3, 1.8);
}

#[test]
fn a_long_name_is_not_taken_for_base64() {
    for name in
        ["get_the_longest_name_of_2_modules", "shared/spillway/src/quota/estimate2", "AwsSdkDynamoDbClientBuilder2"]
    {
        assert_eq!(scan::features(name)[Feature::Base64Character as usize], 0, "{name}");
    }
}

#[test]
fn an_unknown_model_is_estimated_at_no_less_than_any_other() {
    let body = json!({
        "messages": [{ "role": "user", "content": [{ "text": format!("{ENGLISH}{CHINESE}{RANDOM}") }, { "image": {} }] }],
        "toolConfig": { "tools": [{ "toolSpec": { "name": "t" } }], "toolChoice": { "any": {} } },
    });
    let unknown = of_body(&body, Tokenizer::Unknown);
    assert!(ALL.iter().all(|tokenizer| of_body(&body, *tokenizer) <= unknown));
}

#[test]
fn a_tool_costs_its_schema_and_claude_a_system_prompt_that_depends_on_the_choice() {
    let plain = json!({ "messages": [{ "content": [{ "text": "Hello" }] }] });
    let tools = json!([{ "toolSpec": { "name": "weather", "inputSchema": { "json": { "type": "object" } } } }]);
    let with = |choice: &Value, tokenizer| {
        let config = json!({ "tools": tools, "toolChoice": choice });
        of_body(&json!({ "messages": plain["messages"], "toolConfig": config }), tokenizer) - of_body(&plain, tokenizer)
    };
    let schema = with(&json!({ "auto": {} }), Tokenizer::Qwen3);
    assert!((15..40).contains(&schema), "{schema}");
    let [free, bound] = [json!({ "auto": {} }), json!({ "any": {} })].map(|choice| with(&choice, Tokenizer::Claude3));
    assert_eq!(bound - free, 589 - 530);
    assert!(free > 530);
}

#[test]
fn images_and_documents_count_apart_from_their_bytes() {
    let of = |block: Value| of_body(&json!({ "messages": [{ "content": [block] }] }), Tokenizer::Claude47);
    let nothing = of(json!({}));
    assert_eq!(of(json!({ "image": { "source": { "bytes": RANDOM } } })) - nothing, 4_784);
    let document = json!({ "document": { "source": { "bytes": "A".repeat(12_000) } } });
    assert_eq!(of(document) - nothing, 1_000);
}

#[test]
fn nothing_to_say_still_costs_something() {
    assert!(ALL.iter().all(|tokenizer| of_body(&json!({}), *tokenizer) > 0));
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

/// Amount by which additional text may lower the estimate: it can make the words before it English,
/// or the last word a part of something else.
const REJUDGED_TOKENS: u64 = 40;

proptest! {
    #[test]
    fn any_json_has_an_estimate(
        value in any_json(),
        part in prop::sample::select(vec!["messages", "system", "toolConfig"]),
    ) {
        for tokenizer in ALL {
            let tokens = of_body(&json!({ part: value }), tokenizer);
            prop_assert!(tokens > 0);
        }
    }

    #[test]
    fn more_text_takes_off_at_most_what_it_rejudges(
        text in "(\\PC{0,8}|[a-zA-Z0-9 .,_+/=-]{0,40}|the |é){0,12}",
        more in "\\PC{0,40}",
    ) {
        for tokenizer in ALL {
            let (less, all) = (of_text(&text, tokenizer), of_text(&format!("{text}{more}"), tokenizer));
            prop_assert!(all + REJUDGED_TOKENS >= less, "{tokenizer:?}: {less} -> {all}");
        }
    }
}
