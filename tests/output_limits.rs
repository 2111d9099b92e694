//! A model never generates more than the broker has reserved, whatever members its body has.

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};
use spillway::quota::Observation;
use tokio::task::JoinSet;

use crate::support::{
    Deployment,
    answer::{Answer, deployment, pool},
    key,
};

const CLAUDE: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
const NOVA: &str = "amazon.nova-lite-v1:0";
const LLAMA: &str = "us.meta.llama4-scout-17b-instruct-v1:0";
const GPT_OSS: &str = "openai.gpt-oss-120b-1:0";

/// A model whose format of bodies the broker does not know. The simulator reads Anthropic's.
const UNKNOWN: &str = "sim.model";

/// Output cap of a request that sets none.
const DEFAULT_MAX_TOKENS: u64 = 30;

/// Output cap that is reserved for a model whose format is not known.
const MAX_OUTPUT_TOKENS: u64 = 10_000;

const PROMPT: &str = "hi [[output_tokens=9000]]";

/// A route and a body that asks a model for 9,000 tokens.
#[derive(Debug, Clone)]
struct Ask {
    path: String,
    model_id: &'static str,
    body: Value,
}

/// Returns a request to each route and in each format of InvokeModel, without an output limit.
fn asks() -> Vec<Ask> {
    let chat = json!({ "messages": [{ "role": "user", "content": PROMPT }] });
    let blocks = json!({ "messages": [{ "role": "user", "content": [{ "text": PROMPT }] }] });
    let mut claude = chat.clone();
    claude["anthropic_version"] = json!("bedrock-2023-05-31");
    let named = |mut body: Value| {
        body["model"] = json!("m");
        body
    };
    let ask = |path: &str, model_id, body: &Value| Ask { path: path.to_owned(), model_id, body: body.clone() };
    vec![
        ask("/model/m/invoke", CLAUDE, &claude),
        ask("/model/m/invoke", NOVA, &blocks),
        ask("/model/m/invoke", LLAMA, &json!({ "prompt": PROMPT })),
        ask("/model/m/invoke", GPT_OSS, &chat),
        ask("/model/m/invoke-with-response-stream", GPT_OSS, &chat),
        ask("/model/m/invoke", UNKNOWN, &claude),
        ask("/model/m/converse", UNKNOWN, &blocks),
        ask("/model/m/converse-stream", UNKNOWN, &blocks),
        ask("/v1/messages", CLAUDE, &named(chat.clone())),
        ask("/v1/messages", UNKNOWN, &named(chat.clone())),
        ask("/v1/chat/completions", UNKNOWN, &named(chat.clone())),
        ask("/v1/responses", UNKNOWN, &json!({ "model": "m", "input": PROMPT })),
    ]
}

async fn start(fields: &str, model_id: &str) -> Deployment {
    let fields = format!("default_max_tokens = {DEFAULT_MAX_TOKENS}\n{fields}");
    let pool =
        pool("only", "on_demand", model_id, "").replace("input = 1.0, output = 2.0", "input = 0.15, output = 0.6");
    let maximum = format!("max_output_tokens = {MAX_OUTPUT_TOKENS}\ntimeout_ms");
    Deployment::start(&deployment(&fields, &pool).replace("timeout_ms", &maximum)).await
}

impl Deployment {
    /// Sends 300 concurrent requests. Returns how many were answered with 200, and how many with
    /// 400.
    async fn storm(&self, ask: &Ask) -> (usize, usize) {
        let mut requests = JoinSet::new();
        for _ in 0..300 {
            requests.spawn(Answer::to(self.post(&ask.path, "t", &ask.body)));
        }
        let statuses: Vec<u16> = requests.join_all().await.into_iter().map(|answer| answer.status).collect();
        let count = |status: u16| statuses.iter().filter(|answered| **answered == status).count();
        (count(200), count(400))
    }

    /// Returns calls, input and output tokens by the simulator's account.
    async fn account_of_simulator(&self) -> [u64; 3] {
        let total = self.simulator().await["total"].clone();
        ["requests", "input_tokens", "output_tokens"].map(|name| total[name].as_u64().expect("a count"))
    }
}

/// Sets members of the body, each named by a JSON pointer. Missing objects are added.
fn with(ask: &Ask, members: &[(String, Value)]) -> Ask {
    let mut ask = ask.clone();
    for (path, value) in members {
        let mut place = &mut ask.body;
        for name in path.split('/').skip(1) {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[name];
        }
        *place = value.clone();
    }
    ask
}

fn first(path: &str, model_id: &str) -> Ask {
    asks().into_iter().find(|ask| ask.path == path && ask.model_id == model_id).expect("a request")
}

/// Requests that ask for more output than their limit says.
fn attacks() -> Vec<(&'static str, Ask)> {
    let attack = |path: &str, model_id, members: &[(&str, u64)]| {
        let members: Vec<_> = members.iter().map(|(place, value)| ((*place).to_owned(), json!(value))).collect();
        with(&first(path, model_id), &members)
    };
    let invoke = "/model/m/invoke";
    let converse = "/model/m/converse";
    let nested = "/additionalModelRequestFields/a/b/max_tokens";
    vec![
        ("two limits", attack(invoke, GPT_OSS, &[("/max_tokens", 1), ("/max_completion_tokens", 9_000)])),
        (
            "two limits of Nova",
            attack(invoke, NOVA, &[("/inferenceConfig/maxTokens", 1), ("/inferenceConfig/max_new_tokens", 9_000)]),
        ),
        ("16 answers", attack(invoke, GPT_OSS, &[("/max_tokens", 50), ("/n", 16)])),
        ("the best of 20 answers", attack(invoke, GPT_OSS, &[("/max_tokens", 50), ("/best_of", 20)])),
        ("a nested limit", attack(converse, UNKNOWN, &[("/inferenceConfig/maxTokens", 1), (nested, 9_000)])),
        (
            "16 answers of Converse",
            attack(converse, UNKNOWN, &[("/inferenceConfig/maxTokens", 50), ("/additionalModelRequestFields/n", 16)]),
        ),
    ]
}

#[tokio::test]
async fn a_storm_of_bodies_that_ask_for_more_than_their_limit_stays_within_every_limit() {
    let mut over = Vec::new();
    for (name, ask) in attacks() {
        let budget = start("limits = { microusd_per_month = 100_000 }", ask.model_id).await;
        let (admitted, refused) = budget.storm(&ask).await;
        let [calls, input, output] = budget.account_of_simulator().await;
        let microusd = (15 * input + 60 * output) / 100;
        if microusd > 100_000 || (calls, refused) != (0, 300) {
            over.push(format!("{name}: {microusd} micro-USD of 100,000; {admitted} admitted, {calls} calls"));
        }
        let tokens = start("limits = { tokens_per_minute = 20_000 }", ask.model_id).await;
        let (admitted, refused) = tokens.storm(&ask).await;
        let [calls, input, output] = tokens.account_of_simulator().await;
        if input + output > 20_000 || (calls, refused) != (0, 300) {
            over.push(format!("{name}: {} tokens of 20,000; {admitted} admitted, {calls} calls", input + output));
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

#[tokio::test]
async fn a_storm_of_bodies_with_one_limit_stays_within_the_budget() {
    let ask = with(&first("/model/m/invoke", GPT_OSS), &[("/max_completion_tokens".to_owned(), json!(9_000))]);
    let deployment = start("limits = { microusd_per_month = 100_000 }", GPT_OSS).await;
    let (admitted, _) = deployment.storm(&ask).await;
    let [calls, input, output] = deployment.account_of_simulator().await;
    let microusd = (15 * input + 60 * output) / 100;
    assert!(microusd <= 100_000, "{microusd} micro-USD");
    assert_eq!((admitted as u64, calls), (18, 18), "what fits is admitted");
}

/// Members that a model could read as an output limit, or as a number of answers.
const NAMES: [&str; 20] = [
    "max_tokens",
    "maxTokens",
    "MAX-TOKENS",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "max_gen_len",
    "max_length",
    "max_tokens_to_sample",
    "maxTokenCount",
    "n",
    "best_of",
    "num_generations",
    "num_return_sequences",
    "numResults",
    "num_results",
    "num_beams",
    "candidate_count",
    "numberOfImages",
    "budget_tokens",
];

const PLACES: [&str; 9] = [
    "",
    "",
    "/inferenceConfig",
    "/textGenerationConfig",
    "/parameters",
    "/thinking",
    "/additionalModelRequestFields",
    "/additionalModelRequestFields/inferenceConfig",
    "/additionalModelRequestFields/a/b/c",
];

fn members() -> impl Strategy<Value = Vec<(String, Value)>> {
    let value = prop_oneof![
        6 => prop::sample::select(vec![1_u64, 2, 5, 16, 9_000]).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!("9000")),
        1 => Just(json!(5.0)),
        1 => Just(json!(true)),
        1 => Just(json!([9_000])),
    ];
    let member = (prop::sample::select(&PLACES[..]), prop::sample::select(&NAMES[..]), value)
        .prop_map(|(place, name, value)| (format!("{place}/{name}"), value));
    prop::collection::vec(member, 0..4)
}

/// Returns the smallest number among the output limits of `value`.
fn smallest_limit(value: &Value) -> Option<u64> {
    match value {
        Value::Object(members) => {
            let own = members.iter().filter(|(name, _)| name.to_lowercase().starts_with("max"));
            let own = own.filter_map(|(_, value)| value.as_u64());
            own.chain(members.values().filter_map(smallest_limit)).min()
        }
        Value::Array(elements) => elements.iter().filter_map(smallest_limit).min(),
        _ => None,
    }
}

/// Sends `ask`. Fails unless the broker refuses it by the name of a member before any call, or the
/// model generates no more than is reserved for it. Returns whether the broker refused it.
async fn check(deployment: &Deployment, ask: &Ask) -> bool {
    let [calls_before, _, output_before] = deployment.account_of_simulator().await;
    let answer = Answer::to(deployment.post(&ask.path, "t", &ask.body)).await;
    let [calls, _, output] = deployment.account_of_simulator().await;
    if calls == calls_before {
        let names = NAMES.iter().map(|name| format!("{name}: "));
        let unknown = PLACES.iter().map(|place| format!("\"{}: is unknown", place.trim_start_matches('/')));
        let is_named = names.chain(unknown).any(|start| answer.text().contains(&start));
        assert!(answer.status == 400 && is_named, "{}: {} to {ask:?}", answer.status, answer.text());
        return true;
    }
    let set = answer.header("x-spillway-max-tokens").parse().ok();
    let is_unknown = ask.model_id == UNKNOWN && ask.path.contains("invoke");
    let reserved = if is_unknown { Some(MAX_OUTPUT_TOKENS) } else { set.or(smallest_limit(&ask.body)) };
    let output = output - output_before;
    let is_within = output == 0 || Some(output) <= reserved;
    assert!(is_within, "{output} tokens for a reservation of {reserved:?}: {ask:?}");
    false
}

#[tokio::test]
async fn a_body_is_refused_by_name_or_its_output_is_at_most_what_is_reserved() {
    let mut runner = TestRunner::new(Config::default());
    let cases = runner.config().cases.div_ceil(8);
    let mut counts = (0, 0);
    for ask in asks() {
        let deployment = start("limits = { in_flight = 10 }", ask.model_id).await;
        for _ in 0..cases {
            let members = members().new_tree(&mut runner).expect("members").current();
            match check(&deployment, &with(&ask, &members)).await {
                true => counts.0 += 1,
                false => counts.1 += 1,
            }
        }
    }
    assert!(counts.0 > 0 && counts.1 > 0, "refused and answered: {counts:?}");
}

#[tokio::test]
async fn a_limit_above_the_output_of_the_model_is_refused_in_each_format() {
    for ask in asks() {
        let above = json!(MAX_OUTPUT_TOKENS + 1);
        let path = match (ask.path.as_str(), ask.model_id) {
            ("/v1/responses", _) => "/max_output_tokens",
            (path, _) if path.contains("converse") => "/inferenceConfig/maxTokens",
            (_, NOVA) => "/inferenceConfig/maxTokens",
            (_, LLAMA) => "/max_gen_len",
            _ => "/max_tokens",
        };
        let deployment = start("limits = { in_flight = 10 }", ask.model_id).await;
        let ask = with(&ask, &[(path.to_owned(), above)]);
        let answer = Answer::to(deployment.post(&ask.path, "t", &ask.body)).await;
        assert_eq!(answer.status, 400, "{}: {ask:?}", answer.text());
        assert!(answer.text().contains("supports at most 10000"), "{}", answer.text());
        assert_eq!(deployment.account_of_simulator().await[0], 0, "a model was called");
    }
}

#[tokio::test]
async fn a_cap_that_the_broker_lowers_is_lowered_under_each_name() {
    let fields = "right_sizing = \"send\"\nlimits = { in_flight = 10 }";
    let both = [("/max_tokens".to_owned(), json!(5_000)), ("/max_completion_tokens".to_owned(), json!(5_000))];
    let ask = with(&first("/model/m/invoke", GPT_OSS), &both);
    let deployment = start(fields, GPT_OSS).await;
    deployment.advance_to_noon();
    let observation = Observation { output_tokens: 20, estimated_input_tokens: 30, measured_input_tokens: 30 };
    let other_process = deployment.another_app().await;
    for _ in 0..112 {
        other_process.histories.add("t", "m", observation).await.expect("the ledger");
    }
    let answer = Answer::to(deployment.post(&ask.path, "t", &ask.body)).await;
    let sent: u64 = answer.header("x-spillway-max-tokens").parse().expect("the cap that was sent");
    assert!((20..=24).contains(&sent), "{sent}");
    assert_eq!(deployment.account_of_simulator().await[2], sent);
}

#[tokio::test]
async fn parameters_of_tools_may_have_any_name() {
    let properties = json!({ "n": { "type": "integer", "default": 5 }, "max_tokens": { "type": "integer", "maximum": 9 },
        "name": { "type": "string", "maxLength": 9 } });
    let schema = json!({ "type": "object", "properties": properties, "examples": [{ "n": 7, "max_tokens": 7 }] });
    let function = json!({ "name": "f", "parameters": schema });
    let input = json!({ "n": 3, "max_tokens": 4 });
    for ask in asks() {
        let tools = match ask.path.as_str() {
            "/v1/messages" => json!([{ "name": "f", "input_schema": schema }]),
            "/v1/responses" => json!([{ "type": "function", "name": "f", "parameters": schema }]),
            _ if ask.model_id == CLAUDE => json!([{ "name": "f", "input_schema": schema }]),
            _ => json!([{ "type": "function", "function": function }]),
        };
        let spec = json!({ "tools": [{ "toolSpec": { "name": "f", "inputSchema": { "json": schema } } }] });
        let is_converse = ask.path.contains("converse") || ask.model_id == NOVA;
        let mut members =
            vec![if is_converse { ("/toolConfig".to_owned(), spec) } else { ("/tools".to_owned(), tools) }];
        if ask.path.contains("converse") {
            let used = json!([{ "toolUse": { "toolUseId": "1", "name": "f", "input": input } }]);
            let result = json!([{ "toolResult": { "toolUseId": "1", "content": [{ "json": input }] } }]);
            members.push((
                "/messages".to_owned(),
                json!([
                    { "role": "user", "content": [{ "text": PROMPT }] },
                    { "role": "assistant", "content": used },
                    { "role": "user", "content": result },
                ]),
            ));
            let fields = json!({ "tools": [{ "name": "g", "input_schema": schema }] });
            members.push(("/additionalModelRequestFields".to_owned(), fields));
            members.push(("/requestMetadata".to_owned(), json!({ "n": "3", "max_tokens": "4" })));
        }
        // Llama's bodies have no tools.
        if ask.model_id == LLAMA {
            continue;
        }
        let deployment = start("limits = { in_flight = 10 }", ask.model_id).await;
        assert!(!check(&deployment, &with(&ask, &members)).await, "{ask:?}");
    }
}

#[tokio::test]
async fn jobs_and_lines_of_batches_are_refused_as_calls_are() {
    let deployment = start("limits = { in_flight = 10 }", GPT_OSS).await;
    for (name, ask) in attacks().into_iter().filter(|(_, ask)| ask.model_id == GPT_OSS) {
        let request = deployment.post(&ask.path, "t", &ask.body).header("prefer", "respond-async");
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
    }
    let params = json!({ "model": "m", "max_tokens": 5, "n": 16, "messages": [{ "role": "user", "content": PROMPT }] });
    let batch = json!({ "requests": [{ "custom_id": "1", "params": params }] });
    let request = deployment.http.post(format!("{}/v1/messages/batches", deployment.world.url)).bearer_auth(key("t"));
    let answer = Answer::to(request.json(&batch)).await;
    let is_refused = answer.status == 400 && answer.text().contains("n: ");
    assert!(is_refused || answer.status == 200, "{}", answer.text());
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(deployment.account_of_simulator().await[0], 0, "a model was called");
}
