//! InvokeModel requests in Anthropic's Messages format.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{document, output_members::AnswerCount, problem::Problem, prompt::Prompt, thinking, tokens::IMAGE_TOKENS};

#[derive(Debug, Deserialize)]
struct Request {
    messages: Option<Vec<Message>>,
    system: Option<Content>,
    max_tokens: Option<i64>,
    temperature: Option<f64>,
    stop_sequences: Option<Vec<String>>,
    tools: Option<Vec<Block>>,
    tool_choice: Option<Value>,
    #[serde(default)]
    thinking: Value,
    #[serde(default)]
    output_config: Value,
    #[serde(flatten)]
    other_members: Map<String, Value>,
}

type Block = Map<String, Value>;

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

/// Parses and checks the body of an InvokeModel call.
pub(super) fn parse(body: &[u8]) -> Result<Prompt, Problem> {
    let request: Request = serde_json::from_slice(body).map_err(|error| Problem {
        message: format!("Malformed input request: {}", Problem::unreadable(&error).message),
        ..Problem::invalid("")
    })?;
    check(&request)?;
    let mut prompt = Prompt {
        max_tokens: request.max_tokens.and_then(|max_tokens| u64::try_from(max_tokens).ok()),
        answers: AnswerCount::read(&request.other_members),
        temperature: request.temperature,
        stop_sequences: request.stop_sequences.unwrap_or_default(),
        thinking: thinking::parse(&request.thinking).map_err(Problem::invalid)?,
        effort: request.output_config["effort"].as_str().map(str::to_owned),
        schema: request.output_config["format"].get("schema").cloned(),
        ..Prompt::default()
    };
    read_tools(&mut prompt, request.tools.unwrap_or_default(), request.tool_choice.as_ref());
    if let Some(system) = &request.system {
        read_content(&mut prompt, system);
    }
    let messages = request.messages.unwrap_or_default();
    for message in &messages {
        prompt.add_message(&message.role);
        read_content(&mut prompt, &message.content);
    }
    // Automatic caching: the whole prompt is a prefix.
    if let Some(point) = request.other_members.get("cache_control").filter(|point| !point.is_null()) {
        prompt.add_cache_point(point["ttl"].as_str());
    }
    check_thinking(&messages)?;
    prompt.question = question(&messages);
    Ok(prompt)
}

/// Checks that thinking blocks in the request have the signature of the model.
fn check_thinking(messages: &[Message]) -> Result<(), Problem> {
    for (at, message) in messages.iter().enumerate() {
        let Content::Blocks(blocks) = &message.content else { continue };
        for (index, block) in blocks.iter().enumerate() {
            if block.get("type").is_none_or(|kind| kind != "thinking") {
                continue;
            }
            let member = |name: &str| block.get(name).and_then(Value::as_str);
            let Some(signature) = member("signature") else {
                let path = format!("messages.{at}.content.{index}.thinking.signature");
                return Err(Problem::invalid(format!("{path}: Field required")));
            };
            if signature != thinking::signature(member("thinking").unwrap_or_default()) {
                let path = format!("messages.{at}.content.{index}");
                return Err(Problem::invalid(format!("{path}: Invalid `signature` in `thinking` block")));
            }
        }
    }
    Ok(())
}

fn check(request: &Request) -> Result<(), Problem> {
    if !request.other_members.get("anthropic_version").is_some_and(Value::is_string) {
        return Err(Problem::invalid("anthropic_version: Field required"));
    }
    // The path names the model, and the operation selects streaming. Bedrock refuses both in the
    // body.
    if let Some(name) = ["model", "stream"].iter().find(|name| request.other_members.contains_key(**name)) {
        return Err(Problem::invalid(format!("{name}: Extra inputs are not permitted")));
    }
    let Some(max_tokens) = request.max_tokens else {
        return Err(Problem::invalid("max_tokens: Field required"));
    };
    if max_tokens < 1 {
        return Err(Problem::invalid("max_tokens: Input should be greater than or equal to 1"));
    }
    if request.temperature.is_some_and(|temperature| !(0.0..=1.0).contains(&temperature)) {
        return Err(Problem::invalid("temperature: range: 0..1"));
    }
    let Some(first) = request.messages.as_ref().and_then(|messages| messages.first()) else {
        return Err(Problem::invalid("messages: at least one message is required"));
    };
    if let Some(at) = request.messages.iter().flatten().position(|m| !["user", "assistant"].contains(&m.role.as_str()))
    {
        return Err(Problem::invalid(format!("messages.{at}.role: Input should be 'user' or 'assistant'")));
    }
    if first.role != "user" {
        return Err(Problem::invalid("messages: first message must use the \"user\" role"));
    }
    Ok(())
}

fn read_tools(prompt: &mut Prompt, tools: Vec<Block>, choice: Option<&Value>) {
    for tool in tools {
        prompt.tools.extend(tool.get("name").and_then(Value::as_str).map(str::to_owned));
        let point = tool.get("cache_control").cloned();
        prompt.add_json(&Value::Object(tool));
        if let Some(point) = point {
            prompt.add_cache_point(point["ttl"].as_str());
        }
    }
    let single_tool = choice.and_then(|choice| choice["disable_parallel_tool_use"].as_bool());
    prompt.single_tool = single_tool == Some(true);
    prompt.forced_tool = match choice.and_then(|choice| choice["type"].as_str()) {
        Some("tool") => choice.and_then(|choice| choice["name"].as_str()).map(str::to_owned),
        Some("any") => prompt.tools.first().cloned(),
        _ => None,
    };
}

fn read_content(prompt: &mut Prompt, content: &Content) {
    match content {
        Content::Text(text) => prompt.add_text(text),
        Content::Blocks(blocks) => blocks.iter().for_each(|block| read_block(prompt, block)),
    }
}

fn read_block(prompt: &mut Prompt, block: &Block) {
    let member = |name: &str| block.get(name).unwrap_or(&Value::Null);
    match member("type").as_str().unwrap_or_default() {
        "text" => prompt.add_text(member("text").as_str().unwrap_or_default()),
        "image" => prompt.add_fixed(IMAGE_TOKENS, block),
        "document" => document::add(prompt, block),
        "tool_use" => prompt.add_tool_use(member("name").as_str().unwrap_or_default(), member("input")),
        "tool_result" => match member("content") {
            Value::String(text) => prompt.add_text(text),
            contents => {
                let blocks = contents.as_array().into_iter().flatten().filter_map(Value::as_object);
                blocks.for_each(|block| read_block(prompt, block));
            }
        },
        _ => prompt.add_json(&Value::Object(block.clone())),
    }
    if let Some(point) = block.get("cache_control").filter(|point| !point.is_null()) {
        prompt.add_cache_point(point["ttl"].as_str());
    }
}

fn question(messages: &[Message]) -> String {
    let last = messages.iter().rev().find(|message| message.role == "user");
    match last.map(|message| &message.content) {
        None => String::new(),
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Blocks(blocks)) => {
            let texts: Vec<&str> =
                blocks.iter().filter_map(|block| block.get("text").and_then(Value::as_str)).collect();
            texts.join("\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: Value) -> Result<Prompt, Problem> {
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn a_text_has_the_same_token_count_as_in_converse() {
        let prompt = parsed(json!({
            "anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "system": "abcd",
            "messages": [{"role": "user", "content": "hello"}],
        }))
        .unwrap();
        assert_eq!((prompt.input_tokens(), prompt.max_tokens), (1 + 4 + 2, Some(9)));
        assert_eq!(prompt.question, "hello");
    }

    #[test]
    fn invalid_requests_are_refused_as_on_bedrock() {
        let hello = json!([{"role": "user", "content": "hello"}]);
        let version = "2026-10-21";
        for (body, expected) in [
            (json!({"max_tokens": 1, "messages": hello}), "anthropic_version: Field required"),
            (json!({"anthropic_version": version, "messages": hello}), "max_tokens: Field required"),
            (json!({"anthropic_version": version, "max_tokens": 0, "messages": hello}), "max_tokens: Input"),
            (json!({"anthropic_version": version, "max_tokens": 1, "messages": []}), "at least one message"),
            (
                json!({"anthropic_version": version, "max_tokens": 1, "messages": hello, "stream": true}),
                "stream: Extra inputs",
            ),
            (
                json!({"anthropic_version": version, "max_tokens": 1, "messages": [{"role": "assistant", "content": "x"}]}),
                "first message",
            ),
            (json!([]), "Malformed input request"),
        ] {
            let problem = parsed(body).unwrap_err();
            assert_eq!(problem.code, "ValidationException");
            assert!(problem.message.contains(expected), "{} does not say {expected}", problem.message);
        }
    }
}
