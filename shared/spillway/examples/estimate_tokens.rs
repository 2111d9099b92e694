//! Estimates the tokens of texts as the broker does, for `tests/tokenizers`.
//!
//! Reads a JSON string from each line, and prints the input tokens of a request with that message
//! for each tokenizer in the arguments.

use std::io::{BufRead, Write};

use anyhow::Context;
use serde_json::{Value, json};
use spillway::quota::{Tokenizer, estimate_input};

fn main() -> anyhow::Result<()> {
    let tokenizers = tokenizers().context("arguments must be names of tokenizers, such as claude3")?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?).context("a line must be a JSON string")?;
        let body = json!({ "messages": [{ "content": [{ "text": text }] }] });
        let body = body.as_object().context("the body must be an object")?;
        let estimates: Vec<u64> = tokenizers.iter().map(|tokenizer| estimate_input(body, *tokenizer).tokens).collect();
        writeln!(out, "{}", json!(estimates))?;
    }
    Ok(())
}

fn tokenizers() -> serde_json::Result<Vec<Tokenizer>> {
    std::env::args().skip(1).map(|name| serde_json::from_value(Value::String(name))).collect()
}
