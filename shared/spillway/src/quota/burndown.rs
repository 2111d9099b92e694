//! Burndown: the number of quota tokens that an output token takes.

use crate::usage::Usage;

/// Returns the final quota tokens of `usage`: input + cache writes + output × burndown. Cache reads
/// are free (Amazon Bedrock User Guide, "How tokens are counted in Amazon Bedrock").
pub fn quota_tokens(usage: &Usage, burndown: u64) -> u64 {
    usage
        .input_tokens
        .saturating_add(usage.cache_write_input_tokens)
        .saturating_add(usage.output_tokens.saturating_mul(burndown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_the_quota_guide_holds() {
        let usage = |output_tokens| Usage {
            input_tokens: 1_500,
            output_tokens,
            cache_read_input_tokens: 500,
            ..Usage::default()
        };
        assert_eq!(quota_tokens(&usage(300), 5), 3_000);
        assert_eq!(quota_tokens(&usage(1_000), 5), 6_500);
        assert_eq!(quota_tokens(&usage(4_096), 5), 21_980);
    }
}
