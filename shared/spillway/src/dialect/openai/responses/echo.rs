//! What a response needs of its request.

use serde_json::{Map, Value, json};

use crate::dialect::json::{Path, Read};

/// Members of a request that its response repeats as they are.
const REPEATED: [&str; 11] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
    "user",
];

/// What a response repeats of its request, and how it tells its items.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResponseEcho {
    /// Members of the response that the request decides.
    pub members: Map<String, Value>,
    /// The tools that the model knows in another way than the caller.
    pub tools: Vec<KnownTool>,
    /// Whether reasoning is told in a form that can be sent back (`include: ["reasoning.encrypted_content"]`).
    pub seals_reasoning: bool,
    /// Whether it is answered in the background (`background`): then it is stored as well.
    pub background: bool,
    /// Whether reasoning is told as a summary (`reasoning.summary`), and not as content.
    pub summarizes: bool,
}

/// A tool that is no plain function to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTool {
    /// What the model calls it.
    pub model_name: String,
    /// What the caller calls it.
    pub name: String,
    /// The namespace that the caller has it in.
    pub namespace: Option<String>,
    /// Whether its input is free text (`custom`) instead of arguments.
    pub is_custom: bool,
}

impl ResponseEcho {
    /// What `body` asks to be repeated.
    pub fn of(body: &Map<String, Value>) -> Self {
        let mut members = Map::new();
        for name in REPEATED {
            if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
                members.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(tools) = members.get_mut("tools").and_then(Value::as_array_mut) {
            tools.iter_mut().for_each(complete_function);
        }
        for (name, base) in [("text", json!({"format": {"type": "text"}})), ("reasoning", no_reasoning())] {
            let asked = body.get(name).and_then(Value::as_object).into_iter().flatten();
            let asked = asked.filter(|(_, value)| !value.is_null());
            let mut members_of = base;
            asked.for_each(|(name, value)| members_of[name] = value.clone());
            members.insert(name.to_owned(), members_of);
        }
        Self { members, ..Self::default() }
    }

    /// The tool that the model calls `model_name`, if the caller knows it in another way.
    pub fn tool(&self, model_name: &str) -> Option<&KnownTool> {
        self.tools.iter().find(|tool| tool.model_name == model_name)
    }

    /// Whether the tool that the model calls `model_name` takes free text.
    pub fn is_custom(&self, model_name: &str) -> bool {
        self.tool(model_name).is_some_and(|tool| tool.is_custom)
    }
}

/// Neither effort nor summary.
pub fn no_reasoning() -> Value {
    json!({"effort": null, "summary": null})
}

/// OpenAI names all members of a function, those that were not sent as well.
fn complete_function(tool: &mut Value) {
    if let Some(members) = tool.as_object_mut()
        && members.get("type").and_then(Value::as_str) == Some("function")
    {
        for name in ["description", "parameters", "strict"] {
            members.entry(name).or_insert(Value::Null);
        }
    }
}

/// The tool's name to the model, which knows no namespaces.
pub fn model_name(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}__{name}"))
}

/// Whether reasoning is to be summarized: `auto`, `concise` and `detailed` are one to Bedrock.
pub fn summary(value: Value, at: &Path) -> Read<bool> {
    match value.as_str() {
        Some("auto" | "concise" | "detailed") => Ok(true),
        _ => Err(at.refuse("expected auto, concise or detailed")),
    }
}
