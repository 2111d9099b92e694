//! The course of a batch: what each step leaves behind.

use super::{Batch, Counts, LineError, Status, ids::derived};
use crate::dialect::Dialect;

/// How long after `due_ms` a batch's message is taken for lost, in milliseconds.
pub const RESEND_AFTER_MS: u64 = 120_000;

/// How often a batch whose lines run is looked at without cause, in milliseconds: what counted its last line may not have
/// got to say so.
const LOOKED_AT_MS: u64 = 600_000;

impl Batch {
    /// The batch whose lines have been read.
    pub fn validated(&self, total: u64, now_ms: u64) -> Self {
        Self { status: Status::InProgress, in_progress_ms: Some(now_ms), total, ..self.clone() }.seen(now_ms)
    }

    /// The batch whose lines are no requests.
    pub fn refused(&self, errors: Vec<LineError>, now_ms: u64) -> Self {
        Self { status: Status::Failed, ended_ms: Some(now_ms), errors, ..self.seen(now_ms) }
    }

    /// The batch whose lines before `line` are jobs.
    pub fn expanded_to(&self, line: u64, now_ms: u64) -> Self {
        Self { expanded: line.max(self.expanded), ..self.seen(now_ms) }
    }

    /// The batch taken back; `None` if there is nothing left to take back.
    pub fn cancelling(&self, now_ms: u64) -> Option<Self> {
        let can_be = matches!(self.status, Status::Validating | Status::InProgress);
        can_be.then(|| Self { status: Status::Cancelling, cancelling_ms: Some(now_ms), ..self.clone() }.seen(now_ms))
    }

    /// The batch whose lines have all ended, as they did.
    pub fn finalizing(&self, counts: Counts, now_ms: u64) -> Self {
        let status = if self.status == Status::InProgress { Status::Finalizing } else { self.status };
        let finalizing_ms = (status == Status::Finalizing).then_some(now_ms);
        Self { status, counts, finalizing_ms, ..self.clone() }.seen(now_ms)
    }

    /// The batch at its end, with what holds its lines' ends.
    pub fn ended(&self, output_file: Option<String>, error_file: Option<String>, now_ms: u64) -> Self {
        let status = match self.status {
            Status::Cancelling => Status::Cancelled,
            _ if self.counts.expired > 0 => Status::Expired,
            _ => Status::Completed,
        };
        Self { status, output_file, error_file, ended_ms: Some(now_ms), ..self.seen(now_ms) }
    }

    /// The batch after its message was seen.
    pub fn seen(&self, now_ms: u64) -> Self {
        let next_ms = now_ms.saturating_add(LOOKED_AT_MS);
        let due_ms = match self.status {
            Status::InProgress if self.expires_ms > now_ms => next_ms.min(self.expires_ms),
            _ => now_ms,
        };
        Self { due_ms, resends: 0, ..self.clone() }
    }

    /// The batch whose lines before `line` have been called off if they had not begun; at the end of a round, that is 0.
    pub fn called_off_to(&self, line: u64, now_ms: u64) -> Self {
        Self { called_off: line % self.total.max(1), ..self.seen(now_ms) }
    }

    /// The batch whose end has been told.
    pub fn told(&self) -> Self {
        Self { is_told: true, ..self.clone() }
    }

    /// Whether anything is to be done about it.
    pub fn is_open(&self) -> bool {
        !self.status.is_final() || !self.is_told
    }

    /// Whether the batch's message has to be taken for lost.
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        self.is_open() && now_ms >= self.due_ms.saturating_add(RESEND_AFTER_MS)
    }

    /// The batch after its message was sent again: the time to the next one doubles, up to 64 minutes.
    pub fn resent(&self, now_ms: u64) -> Self {
        let resends = self.resends.saturating_add(1);
        let grace_ms = RESEND_AFTER_MS << resends.min(5);
        Self { resends, due_ms: now_ms.saturating_add(grace_ms - RESEND_AFTER_MS), ..self.clone() }
    }

    /// The id of the job that does a line: the same however often the line is made one.
    pub fn job_id(&self, line: u64) -> String {
        derived(&[self.id.as_bytes(), &self.created_ms.to_be_bytes(), &line.to_be_bytes()]).hyphenated().to_string()
    }

    /// The key in the bucket of what only this batch needs: its lines. Of two batches that claim one id at once, each has its own.
    pub fn input_key(&self) -> String {
        format!("{}/{}-{}-lines", self.tenant, self.id, self.fingerprint)
    }

    /// The name of a file of this batch, which `role` tells from its others.
    pub fn file_id(&self, role: &str) -> String {
        match self.dialect {
            Dialect::Anthropic => format!("{}-{role}", self.id),
            _ => super::Kind::File.id(derived(&[self.id.as_bytes(), role.as_bytes()])),
        }
    }

    /// The key in the bucket of one of its files.
    pub fn file_key(&self, file: &str) -> String {
        format!("{}/{file}", self.tenant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::Api;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn batch() -> Batch {
        Batch {
            id: "batch_1".into(),
            tenant: "t".into(),
            dialect: Dialect::OpenAi,
            api: Api::ChatCompletions,
            headers: Vec::new(),
            input_file: None,
            metadata: None,
            fingerprint: String::new(),
            created_ms: NOW_MS,
            expires_ms: NOW_MS + 3_600_000,
            output_kept_s: None,
            status: Status::Validating,
            in_progress_ms: None,
            finalizing_ms: None,
            cancelling_ms: None,
            ended_ms: None,
            total: 0,
            expanded: 0,
            counts: Counts::default(),
            errors: Vec::new(),
            output_file: None,
            error_file: None,
            called_off: 0,
            is_told: false,
            due_ms: NOW_MS,
            resends: 0,
            etag: String::new(),
        }
    }

    #[test]
    fn a_batch_ends_as_its_lines_and_its_tenant_say() {
        let running = batch().validated(2, NOW_MS);
        let one = Counts { completed: 1, expired: 1, ..Counts::default() };
        let both = Counts { completed: 2, ..Counts::default() };
        let end = |batch: &Batch, counts| batch.finalizing(counts, NOW_MS + 1).ended(None, None, NOW_MS + 2);
        assert_eq!(end(&running, both).status, Status::Completed);
        assert_eq!(end(&running, one).status, Status::Expired);
        let cancelling = running.cancelling(NOW_MS).expect("it runs");
        assert_eq!(end(&cancelling, one).status, Status::Cancelled);
        assert_eq!(cancelling.cancelling(NOW_MS), None);
        assert_eq!(running.finalizing(both, NOW_MS).cancelling(NOW_MS), None, "too late");
    }

    #[test]
    fn a_batch_is_looked_at_again_until_its_end_is_told() {
        let running = batch().validated(2, NOW_MS);
        assert_eq!(running.due_ms, NOW_MS + LOOKED_AT_MS);
        let last = running.seen(running.expires_ms - 1);
        assert_eq!(last.due_ms, running.expires_ms);
        assert!(last.is_overdue(running.expires_ms + RESEND_AFTER_MS));
        let resent = last.resent(NOW_MS);
        assert!(
            !resent.is_overdue(NOW_MS + 2 * RESEND_AFTER_MS - 1) && resent.is_overdue(NOW_MS + 2 * RESEND_AFTER_MS)
        );
        let refused = running.refused(Vec::new(), NOW_MS);
        assert!(refused.is_overdue(u64::MAX), "its end is to be told");
        assert!(!refused.told().is_overdue(u64::MAX));
    }

    proptest! {
        #[test]
        fn lines_have_jobs_of_their_own(one: u64, other: u64) {
            let batch = batch();
            prop_assert_eq!(batch.job_id(one) == batch.job_id(other), one == other);
        }
    }
}
