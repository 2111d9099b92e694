//! Transitions of a batch: the result of each step.

use super::{Batch, BatchStatus, LineCounts, LineError, ResourceKind, derive_uuid};
use crate::{
    dialect::Dialect,
    job::Redelivery,
    units::{Millis, UnixMs},
};

/// How often the sweep looks at a batch whose lines run. The process that counted the last line may
/// have died before it sent the batch's message.
const REVIEW_PERIOD: Millis = Millis::from_s(600);

impl Batch {
    /// The batch after its lines were parsed.
    pub fn validated(&self, total: u64, now: UnixMs) -> Self {
        Self { status: BatchStatus::InProgress, in_progress_at: Some(now), total, ..self.clone() }.handled(now)
    }

    /// The batch after its lines were rejected.
    pub fn rejected(&self, errors: Vec<LineError>, now: UnixMs) -> Self {
        Self { status: BatchStatus::Failed, ended_at: Some(now), errors, ..self.handled(now) }
    }

    /// The batch after the lines before `line` became jobs.
    pub fn expanded_to(&self, line: u64, now: UnixMs) -> Self {
        Self { expanded: line.max(self.expanded), ..self.handled(now) }
    }

    /// The batch after its tenant cancelled it. Returns `None` if it is too late.
    pub fn cancelling(&self, now: UnixMs) -> Option<Self> {
        let can_be_cancelled = matches!(self.status, BatchStatus::Validating | BatchStatus::InProgress);
        let cancelling = || Self { status: BatchStatus::Cancelling, cancelling_at: Some(now), ..self.clone() };
        can_be_cancelled.then(|| cancelling().handled(now))
    }

    /// The batch after its last line ended.
    pub fn finalizing(&self, counts: LineCounts, now: UnixMs) -> Self {
        let status = match self.status {
            BatchStatus::InProgress => BatchStatus::Finalizing,
            status => status,
        };
        let finalizing_at = (status == BatchStatus::Finalizing).then_some(now);
        Self { status, counts, finalizing_at, ..self.clone() }.handled(now)
    }

    /// The batch after its output was written.
    pub fn ended(&self, output_file: Option<String>, error_file: Option<String>, now: UnixMs) -> Self {
        let status = match self.status {
            BatchStatus::Cancelling => BatchStatus::Cancelled,
            _ if self.counts.expired > 0 => BatchStatus::Expired,
            _ => BatchStatus::Completed,
        };
        Self { status, output_file, error_file, ended_at: Some(now), ..self.handled(now) }
    }

    /// The batch after its message was handled.
    pub fn handled(&self, now: UnixMs) -> Self {
        let due_at = match self.status {
            BatchStatus::InProgress if self.expires_at > now => (now + REVIEW_PERIOD).min(self.expires_at),
            _ => now,
        };
        Self { redelivery: Redelivery::new(due_at), ..self.clone() }
    }

    /// The batch after the lines before `line` were ended unless they had started. At the end of a
    /// pass, `stopped` is 0 again.
    pub fn stopped_to(&self, line: u64, now: UnixMs) -> Self {
        Self { stopped: line % self.total.max(1), ..self.handled(now) }
    }

    /// The batch after its end was reported.
    pub fn reported(&self) -> Self {
        Self { is_reported: true, ..self.clone() }
    }

    /// Number of lines that will become jobs.
    pub fn coming_lines(&self) -> u64 {
        match self.status {
            BatchStatus::Validating => self.admitted_lines,
            BatchStatus::InProgress => self.total.saturating_sub(self.expanded),
            _ => 0,
        }
    }

    /// Whether the batch has work left: its lines, its output, or the report of its end.
    pub fn is_open(&self) -> bool {
        !self.status.is_final() || !self.is_reported
    }

    /// Whether the batch's message may be lost.
    pub fn is_overdue(&self, now: UnixMs) -> bool {
        self.is_open() && self.redelivery.is_overdue(now)
    }

    /// The batch after the sweep sent its message again.
    pub fn resent(&self, now: UnixMs) -> Self {
        Self { redelivery: self.redelivery.resent(now), ..self.clone() }
    }

    /// Id of the job that runs a line. It is the same each time the line is made a job.
    pub fn job_id(&self, line: u64) -> String {
        let created_ms = self.created_at.as_ms().to_be_bytes();
        derive_uuid(&[self.id.as_bytes(), &created_ms, &line.to_be_bytes()]).hyphenated().to_string()
    }

    /// Key of the batch's lines in the bucket, if they are one object. Two requests that claim the
    /// same id concurrently have different keys.
    pub fn input_key(&self) -> String {
        format!("{}/{}-{}-lines", self.tenant, self.id, self.fingerprint)
    }

    /// Keys of the batch's lines in the bucket, in order.
    pub fn input_keys(&self) -> Vec<String> {
        match self.input_parts {
            0 => vec![self.input_key()],
            parts => (0..parts).map(|part| format!("{}-{part}", self.input_key())).collect(),
        }
    }

    /// Id of a file of this batch. `role` distinguishes it from the batch's other files.
    pub fn file_id(&self, role: &str) -> String {
        match self.dialect {
            Dialect::Anthropic => format!("{}-{role}", self.id),
            _ => ResourceKind::File.id(derive_uuid(&[self.id.as_bytes(), role.as_bytes()])),
        }
    }

    /// Key of a file of this batch in the bucket.
    pub fn file_key(&self, file: &str) -> String {
        format!("{}/{file}", self.tenant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{dialect::Api, job::RESEND_AFTER, stored_headers::StoredHeaders};

    const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);
    const MS: Millis = Millis::from_ms(1);

    fn batch() -> Batch {
        Batch {
            id: "batch_1".into(),
            tenant: "t".into(),
            dialect: Dialect::OpenAi,
            api: Api::ChatCompletions,
            headers: StoredHeaders::default(),
            input_file: None,
            input_parts: 0,
            input_bytes: 0,
            metadata: None,
            fingerprint: String::new(),
            created_at: NOW,
            expires_at: NOW + Millis::from_s(3_600),
            output_kept_s: None,
            status: BatchStatus::Validating,
            in_progress_at: None,
            finalizing_at: None,
            cancelling_at: None,
            ended_at: None,
            admitted_lines: 0,
            total: 0,
            expanded: 0,
            counts: LineCounts::default(),
            errors: Vec::new(),
            output_file: None,
            error_file: None,
            stopped: 0,
            is_reported: false,
            redelivery: Redelivery::new(NOW),
            etag: String::new(),
        }
    }

    #[test]
    fn the_lines_and_the_tenant_decide_how_a_batch_ends() {
        let running = batch().validated(2, NOW);
        let expired = LineCounts { completed: 1, expired: 1, ..LineCounts::default() };
        let completed = LineCounts { completed: 2, ..LineCounts::default() };
        let end = |batch: &Batch, counts| batch.finalizing(counts, NOW + MS).ended(None, None, NOW + MS * 2);
        assert_eq!(end(&running, completed).status, BatchStatus::Completed);
        assert_eq!(end(&running, expired).status, BatchStatus::Expired);
        let cancelling = running.cancelling(NOW).expect("it runs");
        assert_eq!(end(&cancelling, expired).status, BatchStatus::Cancelled);
        assert_eq!(cancelling.cancelling(NOW), None);
        assert_eq!(running.finalizing(completed, NOW).cancelling(NOW), None, "too late");
    }

    #[test]
    fn the_sweep_looks_at_a_batch_until_its_end_is_reported() {
        let running = batch().validated(2, NOW);
        assert_eq!(running.redelivery.due_at, NOW + REVIEW_PERIOD);
        let last = running.handled(running.expires_at - MS);
        assert_eq!(last.redelivery.due_at, running.expires_at);
        assert!(last.is_overdue(running.expires_at + RESEND_AFTER));
        let (resent, overdue_at) = (last.resent(NOW), NOW + RESEND_AFTER * 2);
        assert!(!resent.is_overdue(overdue_at - MS) && resent.is_overdue(overdue_at));
        let rejected = running.rejected(Vec::new(), NOW);
        assert!(rejected.is_overdue(UnixMs::MAX), "its end is not reported yet");
        assert!(!rejected.reported().is_overdue(UnixMs::MAX));
    }

    #[test]
    fn a_stored_batch_keeps_its_attribute_names() {
        let stored = serde_json::to_value(batch()).expect("JSON");
        let mut names: Vec<_> = stored.as_object().expect("an object").keys().cloned().collect();
        names.sort_unstable();
        let expected = "admitted_lines api called_off cancelling_ms counts created_ms dialect due_ms ended_ms \
                        error_file errors etag expanded expires_ms finalizing_ms fingerprint headers id \
                        in_progress_ms input_bytes input_file input_parts is_told metadata output_file \
                        output_kept_s resends status tenant total";
        assert_eq!(names.join(" "), expected);
        assert_eq!(serde_json::from_value::<Batch>(stored).expect("a batch"), batch());
    }

    proptest! {
        #[test]
        fn different_lines_have_different_jobs(first: u64, second: u64) {
            let batch = batch();
            prop_assert_eq!(batch.job_id(first) == batch.job_id(second), first == second);
        }
    }
}
