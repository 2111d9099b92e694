//! Answers of Amazon Nova: Converse's, but in the body of InvokeModel and with other names of cached tokens.

use serde_json::{Map, Value, json};

use super::{Receipt, converse};
use crate::bedrock::{engine::Answer, events::Event};

pub(super) fn body(answer: &Answer, receipt: &Receipt) -> Value {
    json!({
        "output": { "message": { "role": "assistant", "content": converse::content(answer) } },
        "stopReason": answer.stop_reason,
        "usage": usage(answer, receipt),
    })
}

/// Every event of a stream is an object of one member, named as Converse names the event.
pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let chunk = |event: Event| {
        let model_event = Map::from_iter([(event.name.to_owned(), event.payload)]);
        Event::chunk(&Value::Object(model_event)).carrying(event.tokens)
    };
    converse::events(answer).into_iter().map(chunk).collect()
}

pub(super) fn last(answer: &Answer, receipt: &Receipt) -> Value {
    json!({ "metadata": { "usage": usage(answer, receipt), "metrics": {}, "trace": {} } })
}

fn usage(answer: &Answer, receipt: &Receipt) -> Value {
    json!({
        "inputTokens": receipt.input.input_tokens,
        "outputTokens": answer.output_tokens,
        "totalTokens": receipt.total_tokens(answer),
        "cacheReadInputTokenCount": receipt.input.cache_read_tokens,
        "cacheWriteInputTokenCount": receipt.input.cache_write_tokens,
    })
}
