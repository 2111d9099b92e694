//! Order of the jobs of a tenant.

use serde::{Deserialize, Serialize};

use super::{Job, JobStatus};
use crate::units::{Millis, UnixMs};

const MINUTE: Millis = Millis::from_s(60);

/// Priority of a job among the jobs of its tenant.
///
/// A priority is a head start and not a rank, so every job gets its turn: only jobs that arrive
/// within the head start can overtake it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// One hour ahead of `Normal`.
    High,
    /// In the order of arrival.
    #[default]
    Normal,
    /// Six hours behind `Normal`.
    Low,
}

impl Priority {
    /// Returns the priority called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::High, Self::Normal, Self::Low].into_iter().find(|priority| priority.name() == name)
    }

    /// Name in the API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// How far this priority is behind `High`.
    pub fn lag(self) -> Millis {
        match self {
            Self::High => Millis::ZERO,
            Self::Normal => MINUTE * 60,
            Self::Low => MINUTE * 60 * 7,
        }
    }
}

impl Job {
    /// Time of arrival plus the lag of the priority. The waiting job of a tenant with the earliest
    /// effective arrival is next.
    pub fn effective_arrival(&self) -> UnixMs {
        self.created_at + self.priority.lag()
    }

    /// Whether jobs of a higher priority may go first.
    pub fn can_be_overtaken(&self) -> bool {
        self.status == JobStatus::Queued && self.priority != Priority::High
    }
}

/// Estimates the earliest start of a job with `ahead` jobs before it, whose tenant may send
/// `requests_per_minute`. The estimate leaves out other requests of the tenant and the capacity of
/// the models.
pub fn estimated_start(ready_at: UnixMs, ahead: u64, requests_per_minute: Option<u64>, now: UnixMs) -> UnixMs {
    let queueing = requests_per_minute.map_or(Millis::ZERO, |limit| MINUTE * ahead / limit.max(1));
    ready_at.max(now + queueing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_parsed_back() {
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            assert_eq!(Priority::parse(priority.name()), Some(priority));
            assert_eq!(serde_json::to_value(priority).expect("a name"), priority.name());
        }
        assert_eq!(Priority::parse("urgent"), None);
    }

    #[test]
    fn a_start_is_estimated_from_the_limit_on_requests() {
        let start = |ready_ms, ahead, limit| {
            estimated_start(UnixMs::from_ms(ready_ms), ahead, limit, UnixMs::from_ms(1_000)).as_ms()
        };
        assert_eq!(start(5_000, 10, None), 5_000);
        assert_eq!(start(5_000, 10, Some(60)), 11_000);
        assert_eq!(start(5_000, 1, Some(60)), 5_000);
        assert_eq!(start(0, u64::MAX, Some(1)), u64::MAX, "no overflow");
    }

    proptest! {
        #[test]
        fn no_job_is_overtaken_forever(created_ms in 0..u64::MAX / 2, later_ms in 0..1_000_000_000_u64) {
            let arrival = |priority: Priority, at_ms: u64| UnixMs::from_ms(at_ms) + priority.lag();
            let high = arrival(Priority::High, created_ms + later_ms);
            let low = arrival(Priority::Low, created_ms);
            prop_assert_eq!(high < low, Millis::from_ms(later_ms) < Priority::Low.lag());
        }
    }
}
