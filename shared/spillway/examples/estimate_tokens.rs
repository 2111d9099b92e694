//! Estimates the tokens of texts as the broker does, for `tests/tokenizers`.
//!
//! Reads a JSON string from each line, and prints the input tokens of a request with that message
//! for each argument: the name of a tokenizer, or `--max` for the upper bound of all tokenizers.

use std::io::{BufRead, Write};

use anyhow::Context;
use serde_json::{Map, Value, json};
use spillway::quota::{Tokenizer, estimate_input};

fn main() -> anyhow::Result<()> {
    let columns = columns().context("arguments must be --max or names of tokenizers, such as claude3")?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?).context("a line must be a JSON string")?;
        let body = json!({ "messages": [{ "content": [{ "text": text }] }] });
        let body = body.as_object().context("the body must be an object")?;
        let estimates: Vec<u64> = columns.iter().map(|column| estimate(body, *column)).collect();
        writeln!(out, "{}", json!(estimates))?;
    }
    Ok(())
}

/// Returns the estimate for a tokenizer, or the upper bound without one.
fn estimate(body: &Map<String, Value>, tokenizer: Option<Tokenizer>) -> u64 {
    match tokenizer {
        Some(tokenizer) => estimate_input(body, tokenizer).tokens,
        None => estimate_input(body, Tokenizer::Unknown).max_tokens,
    }
}

fn columns() -> serde_json::Result<Vec<Option<Tokenizer>>> {
    let column = |argument: String| match argument.as_str() {
        "--max" => Ok(None),
        _ => serde_json::from_value(Value::String(argument)).map(Some),
    };
    std::env::args().skip(1).map(column).collect()
}
