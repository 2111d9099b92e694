//! Requests of Converse and ConverseStream.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    document,
    guardrail::GuardrailReference,
    output_members::{self, AnswerCount},
    problem::Problem,
    prompt::{Prompt, parse_caller},
    thinking,
    tokens::{IMAGE_TOKENS, PAGE_TOKENS},
};

/// A request body; also the `input.converse` of CountTokens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    messages: Option<Vec<Message>>,
    system: Option<Vec<Block>>,
    inference_config: Option<InferenceConfig>,
    tool_config: Option<ToolConfig>,
    request_metadata: Option<BTreeMap<String, String>>,
    service_tier: Option<ServiceTier>,
    performance_config: Option<PerformanceConfig>,
    guardrail_config: Option<GuardrailConfig>,
    project_identifier: Option<String>,
    #[serde(default)]
    additional_model_request_fields: Value,
    #[serde(default)]
    output_config: Value,
}

type Block = Map<String, Value>;

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Vec<Block>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InferenceConfig {
    max_tokens: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    stop_sequences: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig {
    tools: Vec<Block>,
    tool_choice: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct ServiceTier {
    r#type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GuardrailConfig {
    guardrail_identifier: Option<String>,
    guardrail_version: Option<String>,
    trace: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PerformanceConfig {
    latency: Option<String>,
}

/// Parses and checks the body of a Converse call.
pub(super) fn parse(body: &[u8]) -> Result<Prompt, Problem> {
    let request = serde_json::from_slice(body).map_err(|error| Problem::unreadable(&error))?;
    prompt(request)
}

/// Checks a request as Bedrock does and converts it to a prompt.
pub(super) fn prompt(request: Request) -> Result<Prompt, Problem> {
    let messages = request.messages.unwrap_or_default();
    check_messages(&messages, request.tool_config.is_some())?;
    let mut prompt = Prompt::default();
    read_inference(&mut prompt, request.inference_config.unwrap_or_default())?;
    if let Some(config) = &request.tool_config {
        read_tools(&mut prompt, config)?;
    }
    for block in request.system.iter().flatten() {
        read_block(&mut prompt, block);
    }
    for message in &messages {
        prompt.add_message(&message.role);
        message.content.iter().for_each(|block| read_block(&mut prompt, block));
    }
    prompt.question = question(&messages);
    read_additional_fields(&mut prompt, &request.additional_model_request_fields)?;
    read_output(&mut prompt, &request.output_config)?;
    prompt.guardrail = request.guardrail_config.map(guardrail_reference);
    prompt.caller = request.request_metadata.as_ref().map(parse_caller).transpose()?.unwrap_or_default();
    prompt.caller.project = request.project_identifier;
    prompt.service_tier = request.service_tier.map(|tier| tier.r#type);
    prompt.latency = request.performance_config.and_then(|config| config.latency);
    if prompt.service_tier.as_deref().is_some_and(|tier| !is_service_tier(tier)) {
        return Err(constraint(
            "serviceTier.type",
            "Member must satisfy enum value set: [priority, default, flex, reserved]",
        ));
    }
    Ok(prompt)
}

/// Reads the fields that Converse does not have: fields of Claude, with the names of the Messages
/// format, and fields that decide how much a model generates. A limit among them replaces the limit
/// of `inferenceConfig`.
fn read_additional_fields(prompt: &mut Prompt, fields: &Value) -> Result<(), Problem> {
    prompt.thinking = thinking::parse(&fields["thinking"]).map_err(from_model)?;
    prompt.effort = fields["output_config"]["effort"].as_str().map(str::to_owned);
    prompt.schema = fields["output_config"]["format"].get("schema").cloned();
    prompt.single_tool = fields["tool_choice"]["disable_parallel_tool_use"] == true;
    prompt.max_tokens = output_members::largest_limit(fields).or(prompt.max_tokens);
    prompt.answers = AnswerCount::read_nested(fields);
    if let Some(system) = fields["system"].as_str() {
        prompt.add_text(system);
    }
    for part in ["system", "tools"].into_iter().filter_map(|name| fields[name].as_array()).flatten() {
        prompt.add_json(part);
        if let Some(point) = part.get("cache_control") {
            prompt.add_cache_point(point["ttl"].as_str());
        }
    }
    Ok(())
}

fn read_output(prompt: &mut Prompt, config: &Value) -> Result<(), Problem> {
    if let Some(effort) = config["effort"].as_str() {
        prompt.effort = Some(effort.to_owned());
    }
    if let Some(format) = config.get("textFormat").filter(|format| !format.is_null()) {
        let schema = format["structure"]["jsonSchema"]["schema"].as_str();
        let schema = schema.and_then(|schema| serde_json::from_str(schema).ok()).filter(Value::is_object);
        let member = "outputConfig.textFormat.structure.jsonSchema.schema";
        prompt.schema = Some(schema.ok_or_else(|| constraint(member, "Member must be a valid JSON schema"))?);
    }
    Ok(())
}

fn guardrail_reference(config: GuardrailConfig) -> GuardrailReference {
    GuardrailReference {
        identifier: config.guardrail_identifier.unwrap_or_default(),
        version: config.guardrail_version.unwrap_or_default(),
        has_trace: config.trace.is_some_and(|trace| trace.starts_with("enabled")),
    }
}

/// Creates the error with which Converse reports an error of the model.
pub(super) fn from_model(message: &str) -> Problem {
    Problem::invalid(format!("The model returned the following errors: {message}"))
}

/// Returns whether a service tier exists.
pub(super) fn is_service_tier(tier: &str) -> bool {
    ["priority", "default", "flex", "reserved"].contains(&tier)
}

fn constraint(member: &str, rule: &str) -> Problem {
    Problem::invalid(format!("1 validation error detected: Value at '{member}' failed to satisfy constraint: {rule}"))
}

fn check_messages(messages: &[Message], has_tools: bool) -> Result<(), Problem> {
    let Some(first) = messages.iter().find(|message| message.role != "system") else {
        return Err(constraint("messages", "Member must have length greater than or equal to 1"));
    };
    if let Some(at) = messages.iter().position(|m| !["user", "assistant", "system"].contains(&m.role.as_str())) {
        let member = format!("messages.{}.member.role", at + 1);
        return Err(constraint(&member, "Member must satisfy enum value set: [user, assistant, system]"));
    }
    if first.role != "user" {
        return Err(Problem::invalid(
            "A conversation must start with a user message. Try again with a conversation that starts with a user \
             message.",
        ));
    }
    let speakers: Vec<&str> = messages.iter().map(|m| m.role.as_str()).filter(|role| *role != "system").collect();
    if speakers.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Problem::invalid(
            "A conversation must alternate between user and assistant roles. Make sure the conversation alternates \
             between user and assistant roles and try again.",
        ));
    }
    for (at, message) in messages.iter().enumerate() {
        check_content(at, message, has_tools)?;
    }
    Ok(())
}

fn check_content(at: usize, message: &Message, has_tools: bool) -> Result<(), Problem> {
    if message.content.is_empty() {
        return Err(Problem::invalid(format!(
            "The content field in the Message object at messages.{at} is empty. Add a ContentBlock object to the \
             content field and try again."
        )));
    }
    for (index, block) in message.content.iter().enumerate() {
        if block.get("text").is_some_and(|text| text.as_str().is_none_or(|text| text.trim().is_empty())) {
            return Err(Problem::invalid(format!(
                "The text field in the ContentBlock object at messages.{at}.content.{index} is blank. Add text to \
                 the text field, and try again."
            )));
        }
        if !has_tools && (block.contains_key("toolUse") || block.contains_key("toolResult")) {
            return Err(Problem::invalid(
                "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
            ));
        }
        if let Some(thinking_text) = block.get("reasoningContent").and_then(|reasoning| reasoning.get("reasoningText"))
            && thinking_text["signature"].as_str().is_some_and(|signature| {
                signature != thinking::signature(thinking_text["text"].as_str().unwrap_or_default())
            })
        {
            let path = format!("messages.{at}.content.{index}");
            return Err(from_model(&format!("{path}: Invalid `signature` in `thinking` block")));
        }
        if block.len() != 1 {
            let member = format!("messages.{}.member.content.{}.member", at + 1, index + 1);
            return Err(constraint(&member, "Exactly one member of the union must be set"));
        }
    }
    Ok(())
}

fn read_inference(prompt: &mut Prompt, config: InferenceConfig) -> Result<(), Problem> {
    if let Some(max_tokens) = config.max_tokens {
        let valid = u64::try_from(max_tokens).ok().filter(|max_tokens| *max_tokens >= 1);
        let rule = "Member must have value greater than or equal to 1";
        prompt.max_tokens = Some(valid.ok_or_else(|| constraint("inferenceConfig.maxTokens", rule))?);
    }
    for (member, value) in [("temperature", config.temperature), ("topP", config.top_p)] {
        if value.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
            let member = format!("inferenceConfig.{member}");
            return Err(constraint(&member, "Member must have value between 0 and 1"));
        }
    }
    prompt.temperature = config.temperature;
    prompt.stop_sequences = config.stop_sequences.unwrap_or_default();
    if prompt.stop_sequences.len() > 2_500 {
        return Err(constraint("inferenceConfig.stopSequences", "Member must have length less than or equal to 2500"));
    }
    Ok(())
}

fn read_tools(prompt: &mut Prompt, config: &ToolConfig) -> Result<(), Problem> {
    if config.tools.is_empty() {
        return Err(constraint("toolConfig.tools", "Member must have length greater than or equal to 1"));
    }
    for tool in &config.tools {
        if let Some(point) = tool.get("cachePoint") {
            prompt.add_cache_point(point["ttl"].as_str());
            continue;
        }
        prompt.add_json(&Value::Object(tool.clone()));
        prompt.tools.extend(tool.get("toolSpec").and_then(|spec| spec["name"].as_str()).map(str::to_owned));
    }
    let choice = config.tool_choice.as_ref();
    if let Some(name) = choice.and_then(|choice| choice["tool"]["name"].as_str()) {
        if !prompt.tools.iter().any(|tool| tool == name) {
            return Err(Problem::invalid("The tool named in toolConfig.toolChoice is not in toolConfig.tools."));
        }
        prompt.forced_tool = Some(name.to_owned());
    } else if choice.is_some_and(|choice| choice.get("any").is_some()) {
        prompt.forced_tool = prompt.tools.first().cloned();
    }
    Ok(())
}

fn read_block(prompt: &mut Prompt, block: &Block) {
    let Some((kind, value)) = block.iter().next() else { return };
    match (kind.as_str(), value) {
        ("text", Value::String(text)) => prompt.add_text(text),
        ("guardContent", content) => match &content["text"]["text"] {
            Value::String(text) => prompt.add_marked_text(text),
            _ => prompt.add_fixed(IMAGE_TOKENS, block),
        },
        ("cachePoint", point) => prompt.add_cache_point(point["ttl"].as_str()),
        ("image", _) => prompt.add_fixed(IMAGE_TOKENS, block),
        ("document", Value::Object(document)) => document::add(prompt, document),
        ("video" | "audio", _) => prompt.add_fixed(PAGE_TOKENS, block),
        ("toolUse", call) => prompt.add_tool_use(call["name"].as_str().unwrap_or_default(), &call["input"]),
        ("toolResult", result) => {
            let contents = result["content"].as_array().into_iter().flatten().filter_map(Value::as_object);
            contents.for_each(|block| read_block(prompt, block));
        }
        ("json", value) => prompt.add_json(value),
        (_, value) => prompt.add_json(value),
    }
}

fn question(messages: &[Message]) -> String {
    let last = messages.iter().rev().find(|message| message.role == "user");
    let blocks = last.into_iter().flat_map(|message| &message.content);
    let text = |block: &'_ Block| {
        let text = block.get("text").or_else(|| block.get("guardContent")?.get("text")?.get("text"));
        text.and_then(Value::as_str).map(str::to_owned)
    };
    let texts: Vec<String> = blocks.filter_map(text).collect();
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bedrock::tokens;

    fn parsed(body: Value) -> Result<Prompt, Problem> {
        parse(body.to_string().as_bytes())
    }

    fn hello() -> Value {
        json!([{"role": "user", "content": [{"text": "hello"}]}])
    }

    #[test]
    fn a_single_text_has_the_tokens_of_a_sized_prompt() {
        for wanted in [20, 21, 1_000] {
            let text = tokens::sized_prompt(wanted, 7);
            let body = json!({"messages": [{"role": "user", "content": [{"text": text}]}]});
            assert_eq!(parsed(body).unwrap().input_tokens(), wanted);
        }
    }

    #[test]
    fn every_part_of_a_request_is_counted() {
        let body = json!({
            "system": [{"text": "abcd"}],
            "toolConfig": {"tools": [{"toolSpec": {"name": "t"}}]},
            "messages": [
                {"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "AAAA"}}}]},
                {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "t", "input": {}}}]},
                {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"text": "12345"}]}}]},
            ],
        });
        let tool = tokens::json_tokens(&json!({"toolSpec": {"name": "t"}}));
        assert_eq!(parsed(body).unwrap().input_tokens(), 1 + tool + (4 + 1_500) + (4 + 6) + (4 + 2));
    }

    #[test]
    fn invalid_requests_are_refused_as_on_bedrock() {
        let text = |text: &str| json!([{"text": text}]);
        for (body, expected) in [
            (json!({}), "'messages'"),
            (json!({"messages": []}), "'messages'"),
            (json!({"messages": [{"role": "assistant", "content": text("x")}]}), "must start with a user message"),
            (json!({"messages": [{"role": "robot", "content": text("x")}]}), "messages.1.member.role"),
            (json!({"messages": [{"role": "user", "content": []}]}), "messages.0 is empty"),
            (json!({"messages": [{"role": "user", "content": text(" ")}]}), "messages.0.content.0 is blank"),
            (
                json!({"messages": [{"role": "user", "content": text("x")}, {"role": "user", "content": text("y")}]}),
                "must alternate",
            ),
            (json!({"messages": hello(), "inferenceConfig": {"maxTokens": 0}}), "inferenceConfig.maxTokens"),
            (json!({"messages": hello(), "inferenceConfig": {"temperature": 1.5}}), "inferenceConfig.temperature"),
            (json!({"messages": hello(), "toolConfig": {"tools": []}}), "toolConfig.tools"),
            (json!({"messages": hello(), "requestMetadata": {"tenant": "a|b"}}), "requestMetadata"),
            (json!({"messages": hello(), "serviceTier": {"type": "golden"}}), "serviceTier"),
            (
                json!({"messages": [{"role": "user", "content": [{"toolResult": {"content": []}}]}]}),
                "toolConfig field must be defined",
            ),
        ] {
            let problem = parsed(body).unwrap_err();
            assert_eq!(problem.code, "ValidationException");
            assert!(problem.message.contains(expected), "{} does not name {expected}", problem.message);
        }
    }

    #[test]
    fn an_unreadable_body_is_refused_without_repeating_it() {
        for body in ["", "{", "[]x", r#"{"messages":"secret"}"#, r#"{"messages":[{"role":"user","content":"secret"}]}"#]
        {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code, "SerializationException");
            assert!(!problem.message.contains("secret"));
        }
    }
}
