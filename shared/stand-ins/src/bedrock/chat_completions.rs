//! InvokeModel requests in the format of OpenAI chat completions.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{body_schema, output_members::AnswerCount, problem::Problem, prompt::Prompt};

#[derive(Debug, Deserialize)]
struct Request {
    messages: Option<Vec<Message>>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    temperature: Option<f64>,
    stop: Option<Value>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
    #[serde(default)]
    tool_calls: Vec<ToolCall>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Map<String, Value>>),
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    function: Function,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: String,
}

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Parses and checks the body of an InvokeModel call.
pub(super) fn parse(body: &[u8]) -> Result<Prompt, Problem> {
    let body = body_schema::object(body)?;
    let answers = AnswerCount::read(&body);
    let request: Request = serde_json::from_value(Value::Object(body)).map_err(|_| {
        body_schema::invalid_member("messages", "the value does not match the schema of chat completions")
    })?;
    let messages = request.messages.as_deref().unwrap_or_default();
    let max_tokens = check(&request, messages)?;
    let mut prompt = Prompt { max_tokens, answers, stop_sequences: stops(request.stop.as_ref()), ..Prompt::default() };
    prompt.single_tool = request.parallel_tool_calls == Some(false);
    prompt.schema = request.response_format.as_ref().and_then(schema);
    read_tools(&mut prompt, request.tools.as_deref().unwrap_or_default(), request.tool_choice.as_ref());
    for message in messages {
        prompt.add_message(&message.role);
        read_content(&mut prompt, message.content.as_ref());
        for call in &message.tool_calls {
            // Parsed first, so that a call counts the same as in formats whose input is JSON
            // instead of text.
            let input = serde_json::from_str(&call.function.arguments).unwrap_or(Value::Null);
            prompt.add_tool_use(&call.function.name, &input);
        }
    }
    prompt.question = question(messages);
    Ok(prompt)
}

fn check(request: &Request, messages: &[Message]) -> Result<Option<u64>, Problem> {
    if request.messages.is_none() {
        return Err(body_schema::missing_member("messages"));
    }
    if messages.is_empty() {
        return Err(body_schema::invalid_member("messages", "expected minimum item count: 1, found: 0"));
    }
    if let Some(at) = messages.iter().position(|message| !ROLES.contains(&message.role.as_str())) {
        return Err(body_schema::invalid_member(&format!("messages/{at}/role"), "the value is not a valid enum value"));
    }
    if request.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        return Err(body_schema::invalid_member("temperature", "the value is not between 0 and 2"));
    }
    let Some(max_tokens) = request.max_completion_tokens.or(request.max_tokens) else { return Ok(None) };
    match u64::try_from(max_tokens) {
        Ok(max_tokens) if max_tokens > 0 => Ok(Some(max_tokens)),
        _ => Err(body_schema::invalid_member("max_tokens", "the value is not greater than or equal to 1")),
    }
}

fn stops(stop: Option<&Value>) -> Vec<String> {
    match stop {
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => stops.iter().filter_map(|stop| stop.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

fn schema(format: &Value) -> Option<Value> {
    match format["type"].as_str()? {
        "json_schema" => Some(format["json_schema"]["schema"].clone()),
        "json_object" => Some(Value::Object(Map::from_iter([("type".to_owned(), "object".into())]))),
        _ => None,
    }
}

fn read_tools(prompt: &mut Prompt, tools: &[Value], choice: Option<&Value>) {
    for tool in tools {
        prompt.tools.extend(tool["function"]["name"].as_str().map(str::to_owned));
        prompt.add_json(tool);
    }
    match choice {
        Some(Value::String(choice)) if choice == "none" => prompt.tools.clear(),
        Some(Value::String(choice)) if choice == "required" => prompt.forced_tool = prompt.tools.first().cloned(),
        Some(choice) => prompt.forced_tool = choice["function"]["name"].as_str().map(str::to_owned),
        None => {}
    }
}

fn read_content(prompt: &mut Prompt, content: Option<&Content>) {
    match content {
        None => {}
        Some(Content::Text(text)) => prompt.add_text(text),
        Some(Content::Parts(parts)) => parts.iter().for_each(|part| match part.get("image_url") {
            Some(image) => prompt.add_image(image["url"].as_str().unwrap_or_default()),
            None => prompt.add_text(part.get("text").and_then(Value::as_str).unwrap_or_default()),
        }),
    }
}

/// Returns the text of the last message if it is a user message.
fn question(messages: &[Message]) -> String {
    match messages.last().map(|message| (message.role.as_str(), &message.content)) {
        Some(("user", Some(Content::Text(text)))) => text.clone(),
        Some(("user", Some(Content::Parts(parts)))) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}
