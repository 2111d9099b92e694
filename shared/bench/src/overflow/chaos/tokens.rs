//! Counts of requests and tokens.

/// Requests and their tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokens {
    pub requests: u64,
    pub input: u64,
    pub output: u64,
}

impl Tokens {
    /// Returns the sum.
    pub fn plus(self, rhs: Self) -> Self {
        Self { requests: self.requests + rhs.requests, input: self.input + rhs.input, output: self.output + rhs.output }
    }

    /// Returns the difference; `None` if `rhs` is larger.
    pub fn minus(self, rhs: Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(rhs.requests)?,
            input: self.input.checked_sub(rhs.input)?,
            output: self.output.checked_sub(rhs.output)?,
        })
    }

    /// Whether no count is larger than in `rhs`.
    pub fn is_within(self, rhs: Self) -> bool {
        rhs.minus(self).is_some()
    }
}
