//! Preferences of a caller, read once from the headers of its request.

use http::HeaderMap;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    idempotency::{IdempotencyKey, client_timeout},
    job::Priority,
    problem::{Kind, Problem},
    tenant::MAX_HOLD,
    units::Millis,
};

const DEADLINE: &str = "spillway-deadline";
const PRIORITY: &str = "spillway-priority";

/// How a caller wants its request to be treated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `Prefer: respond-async` (RFC 7240): a job will do for an answer.
    pub respond_async: bool,
    /// `Prefer: wait=N` (RFC 7240): how long to try for an answer first, in milliseconds.
    pub wait_ms: Option<u64>,
    /// Timeout that the client announces, in milliseconds.
    pub client_timeout_ms: Option<u64>,
    /// `Spillway-Deadline`: when it is too late to begin with a job, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// `Spillway-Priority` of a job.
    pub priority: Priority,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl Preferences {
    /// Reads the headers of a request that came at `now_ms`. Unknown preferences in `Prefer` are ignored (RFC 7240, section 2).
    ///
    /// # Errors
    /// Returns an error if `Spillway-Deadline`, `Spillway-Priority` or `Idempotency-Key` is malformed, or if the deadline has
    /// passed.
    pub fn read(headers: &HeaderMap, now_ms: u64) -> Result<Self, Problem> {
        let mut preferences = Self {
            client_timeout_ms: client_timeout(headers).map(Millis::as_ms),
            deadline_ms: value(headers, DEADLINE).map(|value| deadline(value, now_ms)).transpose()?,
            priority: value(headers, PRIORITY).map(priority).transpose()?.unwrap_or_default(),
            idempotency_key: IdempotencyKey::from_headers(headers)?,
            ..Self::default()
        };
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            preferences.add(preference.split(';').next().unwrap_or_default());
        }
        Ok(preferences)
    }

    /// Adds one preference of a `Prefer` header.
    fn add(&mut self, preference: &str) {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" => self.respond_async = true,
            "wait" => {
                self.wait_ms = value.trim().trim_matches('"').parse::<u64>().ok().map(|s| s.saturating_mul(1_000));
            }
            _ => {}
        }
    }

    /// When a job expires that may wait until `last_ms`, in milliseconds since 1970.
    pub fn expires_ms(&self, last_ms: u64) -> u64 {
        self.deadline_ms.map_or(last_ms, |deadline_ms| deadline_ms.min(last_ms))
    }

    /// How long a whole answer may wait in the queue while its caller stays connected, in milliseconds: as long as
    /// `Prefer: wait` says, but less than the client's own timeout, of which a tenth is left for the way back.
    pub fn patience_ms(&self) -> u64 {
        let max_ms = self.client_timeout_ms.map_or(MAX_HOLD.as_ms(), |timeout_ms| timeout_ms - timeout_ms / 10);
        self.wait_ms.unwrap_or(max_ms).min(max_ms)
    }
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
}

/// Seconds from now, or a time (RFC 3339).
fn deadline(value: &str, now_ms: u64) -> Result<u64, Problem> {
    let deadline_ms = match value.parse::<u64>() {
        Ok(seconds) => Some(now_ms.saturating_add(seconds.saturating_mul(1_000))),
        Err(_) => OffsetDateTime::parse(value, &Rfc3339)
            .ok()
            .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()),
    };
    match deadline_ms {
        Some(deadline_ms) if deadline_ms > now_ms => Ok(deadline_ms),
        Some(_) => Err(malformed(DEADLINE, "The deadline has passed. Leave it out or name a later one.")),
        None => Err(malformed(
            DEADLINE,
            "The deadline must be whole seconds from now or a time such as 2030-01-31T12:00:00Z.",
        )),
    }
}

fn priority(value: &str) -> Result<Priority, Problem> {
    Priority::parse(value).ok_or_else(|| malformed(PRIORITY, "The priority must be high, normal or low."))
}

fn malformed(header: &str, message: &str) -> Problem {
    Problem { param: Some(header.to_owned()), ..Problem::new(Kind::Invalid, message) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn read(pairs: &[(&'static str, &str)]) -> Result<Preferences, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        Preferences::read(&headers, NOW_MS)
    }

    fn prefer(values: &[&str]) -> (bool, Option<u64>) {
        let pairs: Vec<_> = values.iter().map(|value| ("prefer", *value)).collect();
        let preferences = read(&pairs).expect("preferences");
        (preferences.respond_async, preferences.wait_ms)
    }

    #[test]
    fn preferences_combine_over_several_headers() {
        assert_eq!(prefer(&["respond-async, wait=5"]), (true, Some(5_000)));
        assert_eq!(prefer(&["respond-async", "wait=5"]), (true, Some(5_000)));
        assert_eq!(prefer(&["Respond-Async; foo=bar", "wait=\"5\""]), (true, Some(5_000)));
    }

    #[test]
    fn unknown_preferences_are_ignored() {
        assert_eq!(prefer(&["return=minimal, wait=soon"]), (false, None));
        assert_eq!(read(&[]), Ok(Preferences::default()));
    }

    #[test]
    fn a_deadline_is_seconds_from_now_or_a_time() {
        let deadline_ms = |value| read(&[(DEADLINE, value)]).map(|preferences| preferences.deadline_ms);
        assert_eq!(deadline_ms("90"), Ok(Some(NOW_MS + 90_000)));
        assert_eq!(deadline_ms("2027-01-15T08:00:01.5Z"), Ok(Some(NOW_MS + 1_500)));
        assert_eq!(deadline_ms("2027-01-15T10:00:01+02:00"), Ok(Some(NOW_MS + 1_000)));
    }

    #[test]
    fn a_malformed_header_is_refused_by_name() {
        let long_key = "k".repeat(256);
        for (header, values) in [
            (DEADLINE, &["0", "2027-01-15T07:59:59Z", "soon", "-5", "1.5", "", "99999999999999999999"][..]),
            (PRIORITY, &["urgent", "", "High"][..]),
            ("Idempotency-Key", &["", "\"\"", "two words", &long_key][..]),
        ] {
            let name: &'static str = if header == "Idempotency-Key" { "idempotency-key" } else { header };
            for value in values {
                let refused = read(&[(name, value)]).expect_err(value);
                assert_eq!((refused.kind, refused.param.as_deref()), (Kind::Invalid, Some(header)), "{value}");
            }
        }
        assert_eq!(read(&[(PRIORITY, "high")]).expect("known").priority, Priority::High);
    }

    #[test]
    fn a_caller_waits_less_than_its_own_timeout() {
        let patience_ms = |wait_ms, client_timeout_ms| {
            Preferences { wait_ms, client_timeout_ms, ..Preferences::default() }.patience_ms()
        };
        assert_eq!(patience_ms(None, None), 50_000, "boto3 waits for 60 s and does not announce it");
        assert_eq!(patience_ms(None, Some(600_000)), 540_000);
        assert_eq!(patience_ms(Some(20_000), Some(600_000)), 20_000);
        assert_eq!(patience_ms(Some(90_000), None), 50_000);
        assert_eq!(patience_ms(None, Some(10_000)), 9_000);
    }

    proptest! {
        #[test]
        fn no_caller_waits_beyond_its_timeout(wait_ms: Option<u64>, timeout_ms: u64) {
            let preferences = Preferences { wait_ms, client_timeout_ms: Some(timeout_ms), ..Preferences::default() };
            prop_assert!(preferences.patience_ms() <= timeout_ms);
        }
    }
}
