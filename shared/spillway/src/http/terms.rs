//! What a caller says about the job that its request may become: `Spillway-Deadline` and `Spillway-Priority`.

use http::HeaderMap;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    chat::{Kind, Problem},
    job::Priority,
};

const DEADLINE: &str = "spillway-deadline";
const PRIORITY: &str = "spillway-priority";

/// The terms of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// When it is too late to begin with it, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// How urgent it is.
    pub priority: Priority,
}

impl Terms {
    /// When it is too late to begin with a job that may wait until `last_ms`, in milliseconds since 1970.
    pub fn expires_ms(&self, last_ms: u64) -> u64 {
        self.deadline_ms.map_or(last_ms, |deadline_ms| deadline_ms.min(last_ms))
    }
}

/// Reads both headers at `now_ms`.
///
/// # Errors
/// One of them cannot be understood, or the deadline is over.
pub fn terms(headers: &HeaderMap, now_ms: u64) -> Result<Terms, Problem> {
    let deadline_ms = value(headers, DEADLINE).map(|value| deadline(value, now_ms)).transpose()?;
    let priority = value(headers, PRIORITY).map(priority).transpose()?.unwrap_or_default();
    Ok(Terms { deadline_ms, priority })
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
        Some(_) => Err(problem(DEADLINE, "The deadline is over; leave it out or name a later one.")),
        None => Err(problem(
            DEADLINE,
            "The deadline must be whole seconds from now or a time such as 2030-01-31T12:00:00Z.",
        )),
    }
}

fn priority(value: &str) -> Result<Priority, Problem> {
    let unknown = || problem(PRIORITY, "The priority must be high, normal or low.");
    Priority::of_name(value).ok_or_else(unknown)
}

fn problem(header: &str, told: &str) -> Problem {
    Problem { param: Some(header.to_owned()), ..Problem::new(Kind::Invalid, told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn read(pairs: &[(&'static str, &str)]) -> Result<Terms, Problem> {
        let pairs = pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        terms(&pairs.collect(), NOW_MS)
    }

    #[test]
    fn a_deadline_is_seconds_from_now_or_a_time() {
        let deadline_ms = |value| read(&[(DEADLINE, value)]).map(|terms| terms.deadline_ms);
        assert_eq!(deadline_ms("90"), Ok(Some(NOW_MS + 90_000)));
        assert_eq!(deadline_ms("2027-01-15T08:00:01.5Z"), Ok(Some(NOW_MS + 1_500)));
        assert_eq!(deadline_ms("2027-01-15T10:00:01+02:00"), Ok(Some(NOW_MS + 1_000)));
        assert_eq!(read(&[]), Ok(Terms::default()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for value in ["0", "2027-01-15T07:59:59Z", "soon", "-5", "1.5", "", "99999999999999999999"] {
            let refused = read(&[(DEADLINE, value)]).expect_err(value);
            assert_eq!((refused.kind, refused.param.as_deref()), (Kind::Invalid, Some(DEADLINE)), "{value}");
        }
        let refused = read(&[(PRIORITY, "urgent")]).expect_err("no such priority");
        assert_eq!(refused.param.as_deref(), Some(PRIORITY));
        assert_eq!(read(&[(PRIORITY, "high")]).expect("known").priority, Priority::High);
    }
}
