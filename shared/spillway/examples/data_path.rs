//! Passes a body through a dialect `COUNT` times: `data_path DIRECTION DIALECT KILOBYTES COUNT`.
//!
//! `tests/copies.py` runs it under Valgrind, which counts the bytes that are copied.

#[allow(dead_code)]
#[path = "../benches/exchange/mod.rs"]
mod exchange;

use std::hint::black_box;

use anyhow::{Context, bail};
use exchange::{Answered, Asked, Streamed};
use spillway::dialect::Api;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [direction, dialect, kilobytes, count] = &arguments[..] else {
        bail!("expected DIRECTION DIALECT KILOBYTES COUNT");
    };
    let bytes = kilobytes.parse::<usize>().context("KILOBYTES must be a number")? * 1_000;
    let api = match dialect.as_str() {
        "openai" => Api::ChatCompletions,
        "messages" | "claude" => Api::Messages,
        "converse" => Api::Converse,
        _ => bail!("DIALECT must be openai, messages, claude or converse"),
    };
    let is_claude = dialect == "claude";
    let times = 0..count.parse::<usize>().context("COUNT must be a number")?;
    match direction.as_str() {
        "request" => {
            let asked = Asked::text(api, bytes);
            let asked = if is_claude { asked.for_claude() } else { asked };
            times.for_each(|_| {
                black_box(asked.send());
            });
        }
        "answer" => {
            let answered = if is_claude { Answered::of_claude(bytes) } else { Answered::text(api, bytes) };
            times.for_each(|_| {
                black_box(answered.render());
            });
        }
        "stream" => {
            let streamed = if is_claude { Streamed::of_claude() } else { Streamed::text(api) };
            times.for_each(|_| {
                black_box(streamed.encode());
            });
        }
        _ => bail!("DIRECTION must be request, answer or stream"),
    }
    Ok(())
}
