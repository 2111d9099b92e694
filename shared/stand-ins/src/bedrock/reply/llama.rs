//! Answers of Meta Llama: one generation and its counts.

use serde_json::{Value, json};

use super::{Receipt, deltas};
use crate::bedrock::{engine::Answer, events::Event};

pub(super) fn body(answer: &Answer, receipt: &Receipt) -> Value {
    json!({
        "generation": answer.text(),
        "prompt_token_count": receipt.input.input_tokens,
        "generation_token_count": answer.output_tokens,
        "stop_reason": stop_reason(answer),
    })
}

/// The first chunk counts the prompt, every one the tokens generated until then.
pub(super) fn events(answer: &Answer, receipt: &Receipt) -> Vec<Event> {
    let mut generated = 0;
    let text = answer.text();
    let chunk = |(at, (piece, tokens)): (usize, (String, u64))| {
        generated += tokens;
        let chunk = json!({
            "generation": piece,
            "prompt_token_count": (at == 0).then_some(receipt.input.input_tokens),
            "generation_token_count": generated,
            "stop_reason": null,
        });
        Event::chunk(&chunk).carrying(tokens)
    };
    deltas(&text).enumerate().map(chunk).collect()
}

pub(super) fn last(answer: &Answer) -> Value {
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
