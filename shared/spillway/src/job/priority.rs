//! Which of a tenant's jobs comes first.

use serde::{Deserialize, Serialize};

use super::{Job, Status};

const MINUTE_MS: u64 = 60_000;

/// How urgent a job is among those of its tenant. It is a head start in time and not a rank, so that nothing waits for ever:
/// a job is overtaken only by what comes in less than the difference later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// An hour ahead of normal ones.
    High,
    /// In the order of their arrival.
    #[default]
    Normal,
    /// Six hours behind normal ones.
    Low,
}

impl Priority {
    /// The priority of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::High, Self::Normal, Self::Low].into_iter().find(|priority| priority.name() == name)
    }

    /// Its name in the API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// How far it is behind the most urgent one, in milliseconds.
    pub fn behind_ms(self) -> u64 {
        match self {
            Self::High => 0,
            Self::Normal => 60 * MINUTE_MS,
            Self::Low => 7 * 60 * MINUTE_MS,
        }
    }
}

impl Job {
    /// Its place among the waiting jobs of its tenant: the lowest is next. In milliseconds, but of no clock.
    pub fn place_ms(&self) -> u64 {
        self.created_ms.saturating_add(self.priority.behind_ms())
    }

    /// Whether jobs of other priorities may go first.
    pub fn can_be_overtaken(&self) -> bool {
        self.status == Status::Queued && self.priority != Priority::High
    }
}

/// The earliest start of a job with `ahead` others before it whose tenant may send so many requests a minute, in
/// milliseconds since 1970. It is an estimate: what else the tenant sends, and what the models can take, is not in it.
pub fn earliest_start_ms(ready_ms: u64, ahead: u64, requests_per_minute: Option<u64>, now_ms: u64) -> u64 {
    let queue_ms = requests_per_minute.map_or(0, |limit| ahead.saturating_mul(MINUTE_MS) / limit.max(1));
    ready_ms.max(now_ms.saturating_add(queue_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_lead_back() {
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            assert_eq!(Priority::of_name(priority.name()), Some(priority));
            assert_eq!(serde_json::to_value(priority).expect("a name"), priority.name());
        }
        assert_eq!(Priority::of_name("urgent"), None);
    }

    #[test]
    fn a_start_is_estimated_from_the_limit_that_is_known() {
        assert_eq!(earliest_start_ms(5_000, 10, None, 1_000), 5_000);
        assert_eq!(earliest_start_ms(5_000, 10, Some(60), 1_000), 11_000);
        assert_eq!(earliest_start_ms(5_000, 1, Some(60), 1_000), 5_000);
        assert_eq!(earliest_start_ms(0, u64::MAX, Some(1), 1_000), u64::MAX, "no overflow");
    }

    proptest! {
        #[test]
        fn nothing_is_overtaken_for_ever(created_ms in 0..u64::MAX / 2, later_ms in 0..1_000_000_000_u64) {
            let place = |priority: Priority, at_ms: u64| at_ms + priority.behind_ms();
            let high = place(Priority::High, created_ms + later_ms);
            let low = place(Priority::Low, created_ms);
            prop_assert_eq!(high < low, later_ms < Priority::Low.behind_ms());
        }
    }
}
