//! A Converse request body under construction, for the dialects that are not Converse already.

use serde_json::{Map, Value, json};

use super::json::{Path, Read, echo, object_of};

/// The parts of a Converse request body; empty parts are left out of it.
#[derive(Debug, Default)]
pub struct Body {
    pub system: Vec<Value>,
    pub turns: Turns,
    pub inference: Map<String, Value>,
    pub tools: Vec<Value>,
    pub tool_choice: Option<Value>,
    pub output: Map<String, Value>,
    /// Parameters that only the model behind Converse knows.
    pub additional: Map<String, Value>,
    /// JSON pointers to members of the model's own answer that Converse should repeat.
    pub answer_paths: Vec<&'static str>,
}

impl Body {
    /// The body as JSON.
    pub fn into_json(self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("messages".to_owned(), Value::Array(self.turns.into_messages()));
        let mut put = |name: &str, value: Value, is_empty: bool| {
            if !is_empty {
                body.insert(name.to_owned(), value);
            }
        };
        let is_empty = self.system.is_empty();
        put("system", Value::Array(self.system), is_empty);
        let is_empty = self.inference.is_empty();
        put("inferenceConfig", Value::Object(self.inference), is_empty);
        let is_empty = self.tools.is_empty();
        let mut tools = object_of([("tools", Value::Array(self.tools))]);
        if let Some(choice) = self.tool_choice {
            tools["toolChoice"] = choice;
        }
        put("toolConfig", tools, is_empty);
        let is_empty = self.output.is_empty();
        put("outputConfig", Value::Object(self.output), is_empty);
        let is_empty = self.additional.is_empty();
        put("additionalModelRequestFields", Value::Object(self.additional), is_empty);
        put("additionalModelResponseFieldPaths", json!(self.answer_paths), self.answer_paths.is_empty());
        body
    }
}

/// Messages in Converse's order: neighbours of one role become one message, because Converse wants them to alternate.
#[derive(Debug, Default)]
pub struct Turns(Vec<(&'static str, Vec<Value>)>);

impl Turns {
    /// Adds what `role` said.
    pub fn push(&mut self, role: &'static str, content: Vec<Value>) {
        match self.0.last_mut() {
            Some((last, blocks)) if *last == role => blocks.extend(content),
            _ => self.0.push((role, content)),
        }
    }

    /// Adds a block to the last message, whoever said it.
    pub fn push_behind(&mut self, block: Value) {
        if let Some((_, blocks)) = self.0.last_mut() {
            blocks.push(block);
        }
    }

    /// Whether nobody has said anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a tool was called or answered; then Converse insists on tool definitions.
    pub fn use_tools(&self) -> bool {
        let of_tool = |block: &Value| block.get("toolUse").is_some() || block.get("toolResult").is_some();
        self.0.iter().any(|(_, blocks)| blocks.iter().any(of_tool))
    }

    fn into_messages(self) -> Vec<Value> {
        let message =
            |(role, content): (&str, _)| object_of([("role", role.into()), ("content", Value::Array(content))]);
        self.0.into_iter().map(message).collect()
    }
}

/// A text block; none for empty text, which Converse refuses and which says nothing.
pub fn text(text: String) -> Option<Value> {
    (!text.is_empty()).then(|| object_of([("text", text.into())]))
}

/// A tool definition; `schema` is the JSON schema of its input, by default one that takes nothing.
pub fn tool(name: String, description: Option<String>, schema: Option<Value>, strict: Option<bool>) -> Value {
    let schema = schema.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let mut spec = object_of([("name", name.into()), ("inputSchema", object_of([("json", schema)]))]);
    if let Some(description) = description.filter(|description| !description.is_empty()) {
        spec["description"] = Value::String(description);
    }
    if let Some(strict) = strict {
        spec["strict"] = Value::Bool(strict);
    }
    object_of([("toolSpec", spec)])
}

/// A cache point from Anthropic's `cache_control`, which OpenAI-style clients send as well.
pub fn cache_point(control: Value, at: &Path) -> Read<Value> {
    let mut point = json!({"type": "default"});
    let Value::Object(members) = &control else { return Err(at.mistyped("an object", &control)) };
    match members.get("type").and_then(Value::as_str) {
        Some("ephemeral") => {}
        _ => return Err(at.key("type").refuse(r#"expected "ephemeral""#)),
    }
    match members.get("ttl") {
        None | Some(Value::Null) => {}
        Some(Value::String(ttl)) if ttl == "5m" || ttl == "1h" => point["ttl"] = json!(ttl),
        Some(_) => return Err(at.key("ttl").refuse(r#"expected "5m" or "1h""#)),
    }
    Ok(json!({"cachePoint": point}))
}

/// `outputConfig.textFormat` that holds the answer to a JSON schema, which Converse takes as a string.
pub fn text_format(schema: &Value, name: Option<String>, description: Option<String>) -> Value {
    let mut definition = json!({"schema": schema.to_string()});
    if let Some(name) = name {
        definition["name"] = Value::String(name);
    }
    if let Some(description) = description {
        definition["description"] = Value::String(description);
    }
    json!({"type": "json_schema", "structure": {"jsonSchema": definition}})
}

/// `outputConfig.effort`.
pub fn effort(level: &str, at: &Path) -> Read<Value> {
    match level {
        "low" | "medium" | "high" | "xhigh" | "max" => Ok(json!(level)),
        other => Err(at.refuse(format_args!("{} is not one of low, medium, high, xhigh, max", echo(other)))),
    }
}
