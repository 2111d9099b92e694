//! The `response` object.

use serde_json::{Value, json};

use super::echo::no_reasoning;
use super::item;
use crate::dialect::Context;
use crate::dialect::reply;
use crate::usage::Usage;

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its status, which is also that of its last item.
    pub status: &'static str,
    /// Why it is incomplete, if it is.
    pub reason: Option<&'static str>,
}

/// What a background response is before its turn comes.
pub const QUEUED: End = End { status: "queued", reason: None };

/// What a response is before it ends.
pub const UNDER_WAY: End = End { status: "in_progress", reason: None };

/// What a response is that nothing cut short.
pub const COMPLETED: End = End { status: "completed", reason: None };

/// The response to a Converse reply.
pub fn answer(context: &Context, body: &Value, used: &Usage) -> Value {
    let end = end(reply::stop_reason(body));
    let items = item::items(body);
    let last = items.len().saturating_sub(1);
    let render = |(index, item): (usize, &item::Item)| {
        let status = if index == last { end.status } else { COMPLETED.status };
        let echo = &context.echo.response;
        item.render(&item.id(&context.request_id, index, echo), status, echo)
    };
    response(context, end, items.iter().enumerate().map(render).collect(), Some(used))
}

/// A response with these items.
pub fn response(context: &Context, end: End, output: Vec<Value>, used: Option<&Usage>) -> Value {
    let mut response = json!({
        "id": format!("resp_{}", context.request_id),
        "object": "response",
        "created_at": context.created_s,
        "completed_at": null,
        "status": end.status,
        "background": false,
        "error": null,
        "incomplete_details": end.reason.map(|reason| json!({"reason": reason})),
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

/// How a response ends that stopped for this reason.
pub fn end(stop_reason: &str) -> End {
    let incomplete = |reason| End { status: "incomplete", reason: Some(reason) };
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => incomplete("max_output_tokens"),
        "guardrail_intervened" | "content_filtered" => incomplete("content_filter"),
        _ => COMPLETED,
    }
}

/// OpenAI counts cached tokens within the input, Converse beside it.
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
