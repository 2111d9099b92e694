//! Responses of Amazon Nova: the members of Converse in a body of InvokeModel, with other names for
//! cached tokens.

use serde_json::{Map, Value, json};

use super::{CallMetadata, converse};
use crate::bedrock::{event_stream::Event, model::Answer};

/// Returns the complete body.
pub(super) fn body(answer: &Answer, metadata: &CallMetadata) -> Value {
    json!({
        "output": { "message": { "role": "assistant", "content": converse::content(answer) } },
        "stopReason": answer.stop_reason,
        "usage": usage(answer, metadata),
    })
}

/// Returns all events of a stream except the last. Each event is an object with one member, which
/// has the name of the Converse event.
pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let chunk = |event: Event| {
        let model_event = Map::from_iter([(event.name.to_owned(), event.payload)]);
        Event::chunk(&Value::Object(model_event)).with_tokens(event.tokens)
    };
    converse::events(answer).into_iter().map(chunk).collect()
}

/// Returns the last chunk of a stream.
pub(super) fn last_chunk(answer: &Answer, metadata: &CallMetadata) -> Value {
    json!({ "metadata": { "usage": usage(answer, metadata), "metrics": {}, "trace": {} } })
}

fn usage(answer: &Answer, metadata: &CallMetadata) -> Value {
    json!({
        "inputTokens": metadata.input.input_tokens,
        "outputTokens": answer.output_tokens,
        "totalTokens": metadata.total_tokens(answer),
        "cacheReadInputTokenCount": metadata.input.cache_read_tokens,
        "cacheWriteInputTokenCount": metadata.input.cache_write_tokens,
    })
}
