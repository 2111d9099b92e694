//! Builds Converse request bodies for the other dialects.

use serde_json::{Map, Number, Value, json};

use super::json::{Ignored, Path, Read, object_of, sanitized};

/// Parts of a Converse request body. The JSON omits empty parts.
#[derive(Debug, Default)]
pub struct ConverseBody {
    pub system: Vec<Value>,
    pub conversation: Conversation,
    pub inference: Map<String, Value>,
    pub tools: Vec<Value>,
    pub tool_choice: Option<Value>,
    pub output: Map<String, Value>,
    /// Parameters of the model that Converse does not define.
    pub additional: Map<String, Value>,
    /// JSON pointers to members of the model's own answer that Converse adds to its reply.
    pub answer_paths: Vec<&'static str>,
}

impl ConverseBody {
    /// Fills `inferenceConfig`.
    pub fn set_inference(
        &mut self,
        max_tokens: Option<u64>,
        temperature: Option<Number>,
        top_p: Option<Number>,
        stop_sequences: Option<Vec<String>>,
    ) {
        put(&mut self.inference, "maxTokens", max_tokens);
        put(&mut self.inference, "temperature", temperature);
        put(&mut self.inference, "topP", top_p);
        put(&mut self.inference, "stopSequences", stop_sequences.filter(|sequences| !sequences.is_empty()));
    }

    /// Fills `outputConfig`.
    pub fn set_output(&mut self, text_format: Option<Value>, effort: Option<Value>) {
        put(&mut self.output, "textFormat", text_format);
        put(&mut self.output, "effort", effort);
    }

    /// Applies the caller's choice of a tool. Call it when the tools and the conversation
    /// are complete.
    pub fn choose_tool(&mut self, choice: Option<ToolChoice>, ignored: &mut Ignored) -> Read<()> {
        let at = Path::Root.key("tool_choice");
        self.tool_choice = match choice {
            None => None,
            // With tool calls in the history, Converse requires the definitions, and it cannot
            // forbid the use of tools.
            Some(ToolChoice::None) if self.conversation.uses_tools() => {
                ignored.note(&at);
                None
            }
            Some(ToolChoice::None) => {
                self.tools.clear();
                None
            }
            Some(ToolChoice::Auto) => (!self.tools.is_empty()).then(|| json!({"auto": {}})),
            Some(_) if self.tools.is_empty() => return Err(at.error("there are no tools to choose from")),
            Some(ToolChoice::Any) => Some(json!({"any": {}})),
            Some(ToolChoice::Named(name)) => Some(json!({"tool": {"name": name}})),
        };
        Ok(())
    }

    /// Returns the body as JSON.
    pub fn into_json(self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("messages".to_owned(), Value::Array(self.conversation.into_messages()));
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

/// The caller's choice of a tool for the model to call.
#[derive(Debug)]
pub enum ToolChoice {
    Auto,
    None,
    Any,
    Named(String),
}

/// Messages in which the roles alternate, as Converse requires: consecutive messages of one role
/// are merged.
#[derive(Debug, Default)]
pub struct Conversation(Vec<(&'static str, Vec<Value>)>);

impl Conversation {
    /// Adds a message of `role`.
    pub fn push(&mut self, role: &'static str, content: Vec<Value>) {
        match self.0.last_mut() {
            Some((last, blocks)) if *last == role => blocks.extend(content),
            _ => self.0.push((role, content)),
        }
    }

    /// Adds a block to the last message.
    pub fn push_to_last(&mut self, block: Value) {
        if let Some((_, blocks)) = self.0.last_mut() {
            blocks.push(block);
        }
    }

    /// Returns whether there are no messages.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a message has a tool call or a tool result. If so, Converse requires tool
    /// definitions.
    pub fn uses_tools(&self) -> bool {
        let is_about_tool = |block: &Value| block.get("toolUse").is_some() || block.get("toolResult").is_some();
        self.0.iter().any(|(_, blocks)| blocks.iter().any(is_about_tool))
    }

    fn into_messages(self) -> Vec<Value> {
        let message =
            |(role, content): (&str, _)| object_of([("role", role.into()), ("content", Value::Array(content))]);
        self.0.into_iter().map(message).collect()
    }
}

/// Adds a member to `members`, if it has a value.
pub fn put(members: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        members.insert(name.to_owned(), value.into());
    }
}

/// Returns a text block; `None` for empty text, which Converse rejects.
pub fn text(text: String) -> Option<Value> {
    (!text.is_empty()).then(|| object_of([("text", text.into())]))
}

/// Returns a tool definition. `schema` is the JSON schema of the input; without it the tool takes
/// no input.
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

/// Reads Anthropic's `cache_control` as a cache point. OpenAI-style clients send it too.
pub fn cache_point(control: Value, at: &Path) -> Read<Value> {
    let mut point = json!({"type": "default"});
    let Value::Object(members) = &control else { return Err(at.mistyped("an object", &control)) };
    match members.get("type").and_then(Value::as_str) {
        Some("ephemeral") => {}
        _ => return Err(at.key("type").error(r#"expected "ephemeral""#)),
    }
    match members.get("ttl") {
        None | Some(Value::Null) => {}
        Some(Value::String(ttl)) if ttl == "5m" || ttl == "1h" => point["ttl"] = json!(ttl),
        Some(_) => return Err(at.key("ttl").error(r#"expected "5m" or "1h""#)),
    }
    Ok(json!({"cachePoint": point}))
}

/// Returns `outputConfig.textFormat` with a JSON schema, which Converse takes as a string.
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

/// Reads a level of effort as `outputConfig.effort`.
pub fn effort(level: &str, at: &Path) -> Read<Value> {
    match level {
        "low" | "medium" | "high" | "xhigh" | "max" => Ok(json!(level)),
        unknown => Err(at.error(format_args!("{} is not one of low, medium, high, xhigh, max", sanitized(unknown)))),
    }
}
