//! Responses of Meta Llama: the generated text and its token counts.

use serde_json::{Value, json};

use super::{CallMetadata, deltas};
use crate::bedrock::{event_stream::Event, model::Answer};

/// Returns the complete body.
pub(super) fn body(answer: &Answer, metadata: &CallMetadata) -> Value {
    json!({
        "generation": answer.text(),
        "prompt_token_count": metadata.input.input_tokens,
        "generation_token_count": answer.output_tokens,
        "stop_reason": stop_reason(answer),
    })
}

/// Returns all events of a stream except the last. The first chunk has the prompt tokens, and each
/// chunk has the tokens generated so far.
pub(super) fn events(answer: &Answer, metadata: &CallMetadata) -> Vec<Event> {
    let mut generated = 0;
    let text = answer.text();
    let chunk = |(at, (fragment, tokens)): (usize, (String, u64))| {
        generated += tokens;
        let chunk = json!({
            "generation": fragment,
            "prompt_token_count": (at == 0).then_some(metadata.input.input_tokens),
            "generation_token_count": generated,
            "stop_reason": null,
        });
        Event::chunk(&chunk).with_tokens(tokens)
    };
    deltas(&text).enumerate().map(chunk).collect()
}

/// Returns the last chunk of a stream.
pub(super) fn last_chunk(answer: &Answer) -> Value {
    json!({
        "generation": "",
        "prompt_token_count": null,
        "generation_token_count": answer.output_tokens,
        "stop_reason": stop_reason(answer),
    })
}

fn stop_reason(answer: &Answer) -> &'static str {
    if answer.stop_reason == "max_tokens" { "length" } else { "stop" }
}
