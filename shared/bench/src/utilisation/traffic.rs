//! Traffic: the arrival and the size of each request.

use std::path::Path;

use fastrand::Rng;
use spillway_command::replay::trace::rows;

const MINUTE_MS: u64 = 60_000;

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Time since the start, in milliseconds.
    pub at_ms: u64,
    /// Input and output tokens.
    pub tokens: u64,
}

/// Requests, sorted by arrival.
pub struct Traffic {
    pub arrivals: Vec<Arrival>,
}

impl Traffic {
    /// Reads the requests of all tenants and models of a trace.
    pub fn from_trace(trace: &Path) -> anyhow::Result<Self> {
        let rows = rows::read_file(trace, usize::MAX)?;
        let arrival = |row: &rows::Row| Arrival { at_ms: row.arrival_ms, tokens: row.input_tokens + row.output_tokens };
        Ok(Self { arrivals: rows.iter().map(arrival).collect() })
    }

    /// Generates traffic for a pool with `limit` tokens per minute. The demand of
    /// each minute is drawn between 0.2 and 1.4 times the limit. One request in 300 is larger than
    /// a sixth of the limit.
    pub fn generated(limit: u64, minutes: u64, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut arrivals = Vec::new();
        for minute in 0..minutes {
            let demand = (limit as f64 * (0.2 + 1.2 * rng.f64())) as u64;
            let mut tokens_left = demand;
            while tokens_left > 0 {
                let size = if rng.u32(0..300) == 0 { limit / 6 + 1..=limit / 2 } else { limit / 250..=limit / 40 };
                let tokens = rng.u64(size);
                let at_ms = minute * MINUTE_MS + rng.u64(0..MINUTE_MS);
                arrivals.push(Arrival { at_ms, tokens });
                tokens_left = tokens_left.saturating_sub(tokens);
            }
        }
        arrivals.sort_by_key(|arrival| arrival.at_ms);
        Self { arrivals }
    }

    /// Returns the length in milliseconds, in whole minutes.
    pub fn length_ms(&self) -> u64 {
        let end_ms = self.arrivals.last().map_or(0, |arrival| arrival.at_ms + 1);
        end_ms.next_multiple_of(MINUTE_MS)
    }

    /// Describes the traffic in a sentence.
    pub fn description(&self, limit: u64) -> String {
        let tokens: u64 = self.arrivals.iter().map(|arrival| arrival.tokens).sum();
        format!(
            "{} requests with {tokens} tokens in {} minutes, on a pool with {limit} tokens per minute",
            self.arrivals.len(),
            self.length_ms() / MINUTE_MS
        )
    }
}
