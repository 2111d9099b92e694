//! Preferences of a caller, read once from the headers of its request.

use http::HeaderMap;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    idempotency::{IdempotencyKey, client_timeout},
    job::Priority,
    problem::{Kind, Problem},
    tenant::MAX_HOLD,
    units::{Millis, UnixMs},
};

const DEADLINE: &str = "spillway-deadline";
const PRIORITY: &str = "spillway-priority";
const EXPLAIN: &str = "spillway-explain";

/// How a caller wants its request to be treated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `Prefer: respond-async` (RFC 7240): the caller accepts a job instead of an answer.
    pub respond_async: bool,
    /// `Prefer: wait=N` (RFC 7240): how long the caller waits for an answer.
    pub wait: Option<Millis>,
    /// Timeout that the client announces.
    pub client_timeout: Option<Millis>,
    /// `Spillway-Deadline`: time by which a job must start.
    pub deadline: Option<UnixMs>,
    /// `Spillway-Priority` of a job.
    pub priority: Priority,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl Preferences {
    /// Reads the headers of a request that arrived at `now`. Unknown preferences in `Prefer` are
    /// ignored (RFC 7240, section 2).
    ///
    /// # Errors
    /// Returns an error if `Spillway-Deadline`, `Spillway-Priority`, `Spillway-Explain` or
    /// `Idempotency-Key` is malformed, or if the deadline has passed.
    pub fn read(headers: &HeaderMap, now: UnixMs) -> Result<Self, Problem> {
        if value(headers, EXPLAIN).is_some_and(|value| !matches!(value, "true" | "false")) {
            return Err(malformed(EXPLAIN, "The value must be true or false."));
        }
        let mut preferences = Self {
            client_timeout: client_timeout(headers),
            deadline: value(headers, DEADLINE).map(|value| deadline(value, now)).transpose()?,
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
                self.wait = value.trim().trim_matches('"').parse().ok().map(Millis::from_s);
            }
            _ => {}
        }
    }

    /// Returns the time when a job expires that may wait until `last`.
    pub fn expires_at(&self, last: UnixMs) -> UnixMs {
        self.deadline.map_or(last, |deadline| deadline.min(last))
    }

    /// Returns how long the job of a connected caller may wait for room, if the caller reads the
    /// answer as a whole: as long as `Prefer: wait` says, but at most nine tenths of the client's
    /// timeout. The last tenth is left for the answer to arrive.
    pub fn patience(&self) -> Millis {
        self.patience_or(MAX_HOLD)
    }

    /// Returns how long the job of a connected caller may wait for room, if the caller reads a
    /// stream. Keep-alives hold its connection open beyond the client's timeout, and a front may
    /// hide that the caller has left. So the timeout bounds the wait here too, if the client
    /// announces one. AWS SDKs do not.
    pub fn stream_patience(&self) -> Millis {
        self.patience_or(Millis::MAX)
    }

    fn patience_or(&self, unannounced: Millis) -> Millis {
        let max = self.client_timeout.map_or(unannounced, |timeout| timeout - timeout / 10);
        self.wait.unwrap_or(max).min(max)
    }
}

/// Whether the response says which pools did not take the request, and why
/// (`Spillway-Explain: true`).
pub fn asks_for_reasons(headers: &HeaderMap) -> bool {
    value(headers, EXPLAIN) == Some("true")
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
}

/// Seconds from now, or a time (RFC 3339).
fn deadline(value: &str, now: UnixMs) -> Result<UnixMs, Problem> {
    let deadline = match value.parse() {
        Ok(seconds) => Some(now + Millis::from_s(seconds)),
        Err(_) => OffsetDateTime::parse(value, &Rfc3339)
            .ok()
            .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok())
            .map(UnixMs::from_ms),
    };
    match deadline {
        Some(deadline) if deadline > now => Ok(deadline),
        Some(_) => Err(malformed(DEADLINE, "The deadline has passed. Leave it out or send a later one.")),
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

    const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);

    fn read(pairs: &[(&'static str, &str)]) -> Result<Preferences, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        Preferences::read(&headers, NOW)
    }

    /// `respond-async` and `wait` of a request with these `Prefer` headers.
    fn prefer(values: &[&str]) -> (bool, Option<Millis>) {
        let pairs: Vec<_> = values.iter().map(|value| ("prefer", *value)).collect();
        let preferences = read(&pairs).expect("preferences");
        (preferences.respond_async, preferences.wait)
    }

    #[test]
    fn preferences_combine_over_several_headers() {
        let expected = (true, Some(Millis::from_s(5)));
        assert_eq!(prefer(&["respond-async, wait=5"]), expected);
        assert_eq!(prefer(&["respond-async", "wait=5"]), expected);
        assert_eq!(prefer(&["Respond-Async; foo=bar", "wait=\"5\""]), expected);
    }

    #[test]
    fn unknown_preferences_are_ignored() {
        assert_eq!(prefer(&["return=minimal, wait=soon"]), (false, None));
        assert_eq!(read(&[]), Ok(Preferences::default()));
    }

    #[test]
    fn a_deadline_is_seconds_from_now_or_a_time() {
        let deadline = |value| read(&[(DEADLINE, value)]).map(|preferences| preferences.deadline);
        assert_eq!(deadline("90"), Ok(Some(NOW + Millis::from_s(90))));
        assert_eq!(deadline("2027-01-15T08:00:01.5Z"), Ok(Some(NOW + Millis::from_ms(1_500))));
        assert_eq!(deadline("2027-01-15T10:00:01+02:00"), Ok(Some(NOW + Millis::from_s(1))));
    }

    #[test]
    fn a_malformed_header_is_refused_by_name() {
        let long_key = "k".repeat(256);
        for (header, values) in [
            (DEADLINE, &["0", "2027-01-15T07:59:59Z", "soon", "-5", "1.5", "", "99999999999999999999"][..]),
            (PRIORITY, &["urgent", "", "High"][..]),
            (EXPLAIN, &["yes", "", "1"][..]),
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

    /// The patience of a caller, in seconds.
    fn patience_s(wait_s: Option<u64>, timeout_s: Option<u64>) -> u64 {
        let (wait, client_timeout) = (wait_s.map(Millis::from_s), timeout_s.map(Millis::from_s));
        Preferences { wait, client_timeout, ..Preferences::default() }.patience().as_ms() / 1_000
    }

    #[test]
    fn a_caller_waits_less_than_its_own_timeout() {
        assert_eq!(patience_s(None, None), 50, "boto3 waits for 60 s and does not announce it");
        assert_eq!(patience_s(None, Some(600)), 540);
        assert_eq!(patience_s(Some(20), Some(600)), 20);
        assert_eq!(patience_s(Some(90), None), 50);
        assert_eq!(patience_s(None, Some(10)), 9);
    }

    #[test]
    fn the_reader_of_a_stream_waits_less_than_the_timeout_that_it_announces() {
        let patience = |wait_s: Option<u64>, timeout_s: Option<u64>| {
            let (wait, client_timeout) = (wait_s.map(Millis::from_s), timeout_s.map(Millis::from_s));
            Preferences { wait, client_timeout, ..Preferences::default() }.stream_patience()
        };
        assert_eq!(patience(None, None), Millis::MAX, "keep-alives hold the connection of an AWS SDK");
        assert_eq!(patience(None, Some(600)), Millis::from_s(540));
        assert_eq!(patience(Some(90), None), Millis::from_s(90));
        assert_eq!(patience(Some(90), Some(60)), Millis::from_s(54));
    }

    proptest! {
        #[test]
        fn no_caller_waits_beyond_its_timeout(wait_ms: Option<u64>, timeout_ms: u64) {
            let (wait, timeout) = (wait_ms.map(Millis::from_ms), Millis::from_ms(timeout_ms));
            let preferences = Preferences { wait, client_timeout: Some(timeout), ..Preferences::default() };
            prop_assert!(preferences.patience() <= timeout);
        }
    }
}
