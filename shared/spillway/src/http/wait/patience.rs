//! How long a caller waits for a whole answer. Pure.

use crate::http::chat::MAX_HOLD_MS;

/// How long a whole answer may be waited for in the queue, in milliseconds: as long as the caller asks for (`Prefer: wait`),
/// but not so long that it gives up meanwhile. `clients_ms` is its own timeout, if it tells; a tenth of it is left for the way.
pub fn patience_ms(asked_ms: Option<u64>, clients_ms: Option<u64>) -> u64 {
    let most_ms = clients_ms.map_or(MAX_HOLD_MS, |clients_ms| clients_ms - clients_ms / 10);
    asked_ms.unwrap_or(most_ms).min(most_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_caller_waits_as_long_as_its_own_timeout_lets_it() {
        assert_eq!(patience_ms(None, None), 50_000, "boto3 does not tell that it waits for 60 s");
        assert_eq!(patience_ms(None, Some(600_000)), 540_000);
        assert_eq!(patience_ms(Some(20_000), Some(600_000)), 20_000);
        assert_eq!(patience_ms(Some(90_000), None), 50_000);
        assert_eq!(patience_ms(None, Some(10_000)), 9_000);
    }

    proptest! {
        #[test]
        fn nobody_is_held_beyond_its_timeout(asked_ms: Option<u64>, clients_ms: u64) {
            prop_assert!(patience_ms(asked_ms, Some(clients_ms)) <= clients_ms);
        }
    }
}
