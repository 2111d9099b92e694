//! The `response` object, and the parameters of the request that it repeats.

use serde_json::{Map, Value, json};

use super::item::{self, OutputItem};
use crate::{
    dialect::{
        AnswerContext,
        json::{self, Path, Read},
        reply,
    },
    usage::Usage,
};

/// Members of a request that its response repeats unchanged.
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

/// Maximum number of JSON values and member names in what a response repeats, which is kept twice.
/// Hundreds of tools fit.
const MAX_REPEATED_VALUES: usize = 50_000;

/// Status of a response, and of its last item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseStatus {
    /// Status in OpenAI's API.
    pub name: &'static str,
    /// Reason why the response is incomplete.
    pub incomplete_reason: Option<&'static str>,
}

impl ResponseStatus {
    /// Creates a status without a reason.
    pub const fn new(name: &'static str) -> Self {
        Self { name, incomplete_reason: None }
    }

    /// Returns the status of a response whose model stopped for this reason.
    pub fn from_stop_reason(stop_reason: &str) -> Self {
        let incomplete = |reason| Self { name: "incomplete", incomplete_reason: Some(reason) };
        match stop_reason {
            "max_tokens" | "model_context_window_exceeded" => incomplete("max_output_tokens"),
            "guardrail_intervened" | "content_filtered" => incomplete("content_filter"),
            _ => COMPLETED,
        }
    }
}

/// Status of a background response that waits in the queue.
pub const QUEUED: ResponseStatus = ResponseStatus::new("queued");

/// Status of a response before it ends.
pub const IN_PROGRESS: ResponseStatus = ResponseStatus::new("in_progress");

/// Status of a response that the model completed.
pub const COMPLETED: ResponseStatus = ResponseStatus::new("completed");

/// Renders a Converse reply as a response.
pub fn answer(context: &AnswerContext, body: &Value, used: &Usage) -> Value {
    let status = ResponseStatus::from_stop_reason(reply::stop_reason(body));
    let items = item::items(body);
    let last = items.len().saturating_sub(1);
    let render = |(index, item): (usize, &OutputItem)| {
        let status = if index == last { status } else { COMPLETED };
        let echo = &context.echo.response;
        item.render(&item.id(&context.request_id, index, echo), status.name, echo)
    };
    response(context, status, items.iter().enumerate().map(render).collect(), Some(used))
}

/// Renders a response with the items `output`.
pub fn response(context: &AnswerContext, status: ResponseStatus, output: Vec<Value>, used: Option<&Usage>) -> Value {
    let mut response = json!({
        "id": format!("resp_{}", context.request_id),
        "object": "response",
        "created_at": context.created_at.as_s(),
        "completed_at": null,
        "status": status.name,
        "background": false,
        "error": null,
        "incomplete_details": status.incomplete_reason.map(|reason| json!({"reason": reason})),
        "instructions": null,
        "max_output_tokens": null,
        "max_tool_calls": null,
        "metadata": {},
        "model": context.model,
        "output": output,
        "parallel_tool_calls": true,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "previous_response_id": null,
        "prompt_cache_key": null,
        "reasoning": no_reasoning(),
        "safety_identifier": null,
        "service_tier": "default",
        "store": false,
        "temperature": 1,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1,
        "truncation": "disabled",
        "usage": used.map(usage),
        "user": null,
    });
    for (name, value) in &context.echo.response.members {
        response[name] = value.clone();
    }
    response
}

/// Renders the usage. OpenAI counts cached tokens within the input, Converse beside it.
fn usage(usage: &Usage) -> Value {
    let input = usage.all_input_tokens();
    json!({
        "input_tokens": input,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": input.saturating_add(usage.output_tokens),
    })
}

/// Parameters of a request that its response repeats, or that shape its items.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResponseEcho {
    /// Members of the response that come from the request.
    pub members: Map<String, Value>,
    /// Tools whose name or input differs between the model and the caller.
    pub tools: Vec<ToolAlias>,
    /// Whether reasoning is also sent in a form that the caller can send back
    /// (`include: ["reasoning.encrypted_content"]`).
    pub has_encrypted_reasoning: bool,
    /// Whether the response runs in the background (`background`). If so, it is also stored.
    pub background: bool,
    /// Whether reasoning is a summary (`reasoning.summary`) instead of content.
    pub has_summary: bool,
}

/// A tool that the caller does not define as a plain function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolAlias {
    /// Model's name for the tool.
    pub model_name: String,
    /// Caller's name for the tool.
    pub name: String,
    /// Caller's namespace for the tool.
    pub namespace: Option<String>,
    /// Whether the input is free text (`custom`) instead of arguments.
    pub is_custom: bool,
}

impl ResponseEcho {
    /// Copies the members of the request `body` that its response repeats. They have a bound of
    /// their total size.
    pub fn from_request(body: &Map<String, Value>) -> Read<Self> {
        let mut members = Map::new();
        let mut values = 0;
        for name in REPEATED.into_iter().chain(["text", "reasoning"]) {
            values += body.get(name).map_or(0, json::count);
            if values > MAX_REPEATED_VALUES {
                let at = Path::Root.key(name);
                let text = "a response repeats such members, so they may have at most";
                return Err(at.error(format_args!("{text} {MAX_REPEATED_VALUES} JSON values and member names in all")));
            }
        }
        for name in REPEATED {
            if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
                members.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(tools) = members.get_mut("tools").and_then(Value::as_array_mut) {
            tools.iter_mut().for_each(complete_function);
        }
        for (name, base) in [("text", json!({"format": {"type": "text"}})), ("reasoning", no_reasoning())] {
            let requested = body.get(name).and_then(Value::as_object).into_iter().flatten();
            let requested = requested.filter(|(_, value)| !value.is_null());
            let mut repeated = base;
            requested.for_each(|(name, value)| repeated[name] = value.clone());
            members.insert(name.to_owned(), repeated);
        }
        Ok(Self { members, ..Self::default() })
    }

    /// Returns the alias of the tool that the model calls `model_name`, if it has one.
    pub fn tool(&self, model_name: &str) -> Option<&ToolAlias> {
        self.tools.iter().find(|tool| tool.model_name == model_name)
    }

    /// Returns whether the tool that the model calls `model_name` takes free text.
    pub fn is_custom(&self, model_name: &str) -> bool {
        self.tool(model_name).is_some_and(|tool| tool.is_custom)
    }
}

/// Returns `reasoning` without effort and summary.
fn no_reasoning() -> Value {
    json!({"effort": null, "summary": null})
}

/// Adds the members of a function that the caller left out: OpenAI's response has all of
/// them.
fn complete_function(tool: &mut Value) {
    if let Some(members) = tool.as_object_mut()
        && members.get("type").and_then(Value::as_str) == Some("function")
    {
        for name in ["description", "parameters", "strict"] {
            members.entry(name).or_insert(Value::Null);
        }
    }
}
