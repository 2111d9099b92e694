//! The backlog of a tenant: its jobs that wait for the tenant's own limits.
//!
//! Such a job is *parked*: it is queued and has no message. The tenant has one message for all of
//! its parked jobs, the *turn*. At each turn the jobs that fit within the next moments get their
//! messages, the most urgent first, delayed until they fit. The next turn is shortly before the
//! next job fits. So a job is sent about once, however many jobs wait.

use serde::{Deserialize, Serialize};

use super::{Priority, Redelivery};
use crate::units::{Millis, UnixMs};

/// Maximum number of jobs that have been sent and not been claimed, so that the queue holds a
/// backlog only once.
pub const MAX_SENT: usize = 200;

/// Shortest time between two turns. Shorter times would only cost requests.
const MIN_PAUSE: Millis = Millis::from_s(1);

/// Longest time until the next turn: SQS delays no message longer (Amazon SQS Developer Guide,
/// "Amazon SQS delay queues"), and the limits may be raised meanwhile.
const MAX_PAUSE: Millis = Millis::from_s(900);

/// How far a turn looks ahead, so that a late turn leaves no room unused.
pub const LOOK_AHEAD: Millis = Millis::from_s(10);

/// How long before the next job fits the next turn is.
const LEAD: Millis = Millis::from_s(5);

/// Shortest time between two turns while [`MAX_SENT`] jobs wait to be claimed.
const FULL_PAUSE: Millis = Millis::from_s(5);

/// Time until the next turn if no job is left to send. The index of waiting jobs lags behind, and
/// a message may be lost.
const IDLE_PAUSE: Millis = Millis::from_s(20);

/// Time after which a further parked job is noted.
const NOTE_AFTER: Millis = Millis::from_s(20);

/// Time after which the message of a sent job counts as lost.
const LOST_AFTER: Millis = Millis::from_s(60);

/// Time after which a waiting job that has a message counts as stuck and takes no room.
const STUCK_AFTER: Millis = Millis::from_s(30);

/// Time without a parked job after which a backlog closes. It outlasts [`NOTE_AFTER`] and the lag
/// of the index.
const CLOSE_AFTER: Millis = Millis::from_s(60);

/// Prefix of a turn's message.
const TURN: &str = "turn#";

/// A waiting job, as the index of waiting jobs has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingJob {
    /// Id of the job.
    pub id: String,
    /// Priority of the job.
    pub priority: Priority,
    /// Time from which the job can be claimed. If it is parked, the time when room is expected.
    pub ready_at: UnixMs,
}

/// A message about the turn of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Name of the tenant.
    pub tenant: String,
    /// Number of the turn.
    pub number: u64,
}

/// A parked job that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentJob {
    /// Id of the job.
    id: String,
    /// Its `ready_at` at the time. It changes when the job is parked again.
    #[serde(rename = "ready_ms")]
    ready_at: UnixMs,
    /// Time when its message arrives.
    #[serde(rename = "sent_ms")]
    sent_at: UnixMs,
}

/// State of a tenant's backlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Name of the tenant.
    pub tenant: String,
    /// Number of the next turn. A message with a smaller number is out of date.
    pub turn: u64,
    /// Time of the next turn.
    #[serde(rename = "turn_ms")]
    pub turn_at: UnixMs,
    /// When the sweep sends the message of the next turn again.
    #[serde(flatten)]
    pub redelivery: Redelivery,
    /// Whether there is a next turn.
    pub is_open: bool,
    /// Whether the last turn left no job to send.
    is_idle: bool,
    /// Time when a job was parked, at most [`NOTE_AFTER`] before the last one.
    #[serde(rename = "parked_ms")]
    parked_at: UnixMs,
    /// Jobs that were sent and may not have been claimed.
    sent: Vec<SentJob>,
    /// Changes with every write, so that a write applies only to the version that was read.
    pub etag: String,
}

/// What to do when a message about a turn arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnStep {
    /// Take the turn.
    Take,
    /// The turn is at this time.
    Wait { until: UnixMs },
    /// Another message has replaced this one.
    Drop,
}

/// What a turn found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnView {
    /// Parked jobs, the most urgent first.
    pub parked: Vec<WaitingJob>,
    /// Other waiting jobs of the tenant, which have messages.
    pub with_messages: Vec<WaitingJob>,
    /// Time until each further job fits the limits of the tenant, the soonest first.
    pub waits: Vec<Millis>,
    /// Time until the job after these fits.
    pub retry_after: Millis,
    /// Whether it may fit sooner, so that the next turn may not be sooner.
    pub may_settle: bool,
}

/// A job to send, and the delay of its message.
pub type Chosen = (WaitingJob, Millis);

impl Turn {
    /// Parses the body of a message. Returns `None` if it is not about a turn.
    pub fn parse(body: &str) -> Option<Self> {
        let (tenant, number) = body.strip_prefix(TURN)?.rsplit_once('#')?;
        Some(Self { tenant: tenant.to_owned(), number: number.parse().ok()? })
    }

    /// Returns the body of the message.
    pub fn to_body(&self) -> String {
        format!("{TURN}{}#{}", self.tenant, self.number)
    }
}

impl Backlog {
    /// The backlog of a tenant after its first job was parked. Its turn is at `turn_at`, or after
    /// the shortest pause.
    pub fn new(tenant: &str, turn_at: UnixMs, now: UnixMs) -> Self {
        let turn_at = turn_at.clamp(now + MIN_PAUSE, now + MAX_PAUSE);
        Self {
            tenant: tenant.to_owned(),
            turn: 1,
            turn_at,
            redelivery: Redelivery::new(turn_at),
            is_open: true,
            is_idle: false,
            parked_at: now,
            sent: Vec::new(),
            etag: String::new(),
        }
    }

    /// The message about the next turn.
    pub fn next_turn(&self) -> Turn {
        Turn { tenant: self.tenant.clone(), number: self.turn }
    }

    /// The backlog after a job was parked that expects room at `turn_at`. Returns `None` if nothing
    /// changes. A turn is brought forward only if the last one left no job: otherwise the next one
    /// is at the time when the next job fits.
    pub fn with_parked(&self, turn_at: UnixMs, now: UnixMs) -> Option<Self> {
        let fresh = Self::new(&self.tenant, turn_at, now);
        if !self.is_open || (self.is_idle && fresh.turn_at < self.turn_at) {
            return Some(Self { turn: self.turn + 1, sent: self.sent.clone(), etag: self.etag.clone(), ..fresh });
        }
        (self.parked_at + NOTE_AFTER <= now).then(|| Self { parked_at: now, ..self.clone() })
    }

    /// What to do when the message about turn `number` arrives at `now`. A message is sent before
    /// its turn is stored. So a larger number means that the process that took the last turn died.
    pub fn turn_step(&self, number: u64, now: UnixMs) -> TurnStep {
        if !self.is_open || number < self.turn {
            TurnStep::Drop
        } else if now < self.turn_at {
            TurnStep::Wait { until: self.turn_at }
        } else {
            TurnStep::Take
        }
    }

    /// Whether `job` was sent and its message may still arrive.
    pub fn is_sent(&self, job: &WaitingJob, now: UnixMs) -> bool {
        let is_same = |sent: &SentJob| sent.id == job.id && sent.ready_at == job.ready_at;
        self.sent.iter().any(|sent| is_same(sent) && now < sent.sent_at + LOST_AFTER)
    }

    /// Takes turn `number`. Returns the backlog after it, and the parked jobs to send, with the
    /// delays of their messages.
    ///
    /// Jobs that have messages and are about to run take room, too.
    pub fn take_turn(&self, number: u64, view: &TurnView, now: UnixMs) -> (Self, Vec<Chosen>) {
        let (sent, unsent): (Vec<_>, Vec<_>) = view.parked.iter().partition(|job| self.is_sent(job, now));
        let is_due = |job: &&WaitingJob| (now - STUCK_AFTER..=now + MIN_PAUSE).contains(&job.ready_at);
        let running_soon = sent.len() + view.with_messages.iter().filter(is_due).count();
        let queue_room = MAX_SENT.saturating_sub(sent.len() + view.with_messages.len());
        let waits = view.waits.iter().skip(running_soon).take(queue_room);
        let chosen: Vec<Chosen> = unsent.iter().copied().cloned().zip(waits.copied()).collect();
        let is_idle = chosen.len() == unsent.len();
        let retry_after = if view.may_settle { view.retry_after } else { view.retry_after - LEAD };
        let pause = match (is_idle, queue_room) {
            (true, _) => IDLE_PAUSE,
            (false, 0) => retry_after.clamp(FULL_PAUSE, MAX_PAUSE),
            (false, _) => retry_after.clamp(MIN_PAUSE, MAX_PAUSE),
        };
        let known = self.sent.iter().filter(|known| sent.iter().any(|job| job.id == known.id)).cloned();
        let chosen_now =
            |(job, wait): &Chosen| SentJob { id: job.id.clone(), ready_at: job.ready_at, sent_at: now + *wait };
        let after = Self {
            turn: number.max(self.turn) + 1,
            turn_at: now + pause,
            redelivery: Redelivery::new(now + pause),
            is_open: !view.parked.is_empty() || now < self.parked_at + CLOSE_AFTER,
            is_idle,
            sent: known.chain(chosen.iter().map(chosen_now)).collect(),
            ..self.clone()
        };
        (after, chosen)
    }

    /// Whether the message of the next turn may be lost.
    pub fn is_overdue(&self, now: UnixMs) -> bool {
        self.is_open && self.redelivery.is_overdue(now)
    }

    /// The backlog after the sweep sent its message again.
    pub fn resent(&self, now: UnixMs) -> Self {
        Self { redelivery: self.redelivery.resent(now), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);
    const MINUTE: Millis = Millis::from_s(60);

    fn waiting(number: u64) -> WaitingJob {
        WaitingJob { id: number.to_string(), priority: Priority::Normal, ready_at: NOW }
    }

    /// What a turn finds while `fits` jobs fit now and the next one in twelve seconds.
    fn view(parked: std::ops::Range<u64>, fits: usize) -> TurnView {
        TurnView {
            parked: parked.map(waiting).collect(),
            with_messages: Vec::new(),
            waits: vec![Millis::ZERO; fits],
            retry_after: Millis::from_s(12),
            may_settle: false,
        }
    }

    fn ids(chosen: &[Chosen]) -> Vec<&str> {
        chosen.iter().map(|(job, _)| job.id.as_str()).collect()
    }

    #[test]
    fn a_turn_is_parsed_back_from_its_message() {
        let turn = Turn { tenant: "a.b-c_d".into(), number: 17 };
        assert_eq!(Turn::parse(&turn.to_body()), Some(turn));
        for body in ["turn#t", "turn#t#x", "t#1", "018f0000-0000-7000-8000-000000000000"] {
            assert_eq!(Turn::parse(body), None, "{body}");
        }
    }

    #[test]
    fn a_turn_sends_what_fits_and_the_next_turn_is_shortly_before_the_next_job_fits() {
        let (after, sent) = Backlog::new("t", NOW, NOW).take_turn(1, &view(0..5, 2), NOW);
        assert_eq!(ids(&sent), ["0", "1"]);
        assert_eq!(after.turn_at, NOW + Millis::from_s(7));
        let (_, sent) = after.take_turn(2, &view(0..5, 3), NOW + Millis::from_s(7));
        assert_eq!(ids(&sent), ["2"], "the two that have not been claimed take room, too");
    }

    #[test]
    fn jobs_that_fit_soon_are_sent_with_a_delay() {
        let waits = [0, 0, 5, 5, 10].map(Millis::from_s).to_vec();
        let (after, sent) = Backlog::new("t", NOW, NOW).take_turn(1, &TurnView { waits, ..view(0..9, 0) }, NOW);
        let delays: Vec<u64> = sent.iter().map(|(_, delay)| delay.as_s_rounded_up()).collect();
        assert_eq!((ids(&sent), delays), (vec!["0", "1", "2", "3", "4"], vec![0, 0, 5, 5, 10]));
        assert!(after.is_sent(&waiting(4), NOW + Millis::from_s(10) + LOST_AFTER - Millis::from_ms(1)));
        let settling = TurnView { may_settle: true, retry_after: Millis::from_s(3), ..view(0..9, 1) };
        assert_eq!(after.take_turn(2, &settling, NOW).0.turn_at, NOW + Millis::from_s(3));
    }

    #[test]
    fn jobs_that_have_messages_and_are_due_take_room() {
        let due = waiting(8);
        let later = WaitingJob { ready_at: NOW + MINUTE, ..waiting(9) };
        let stuck = WaitingJob { ready_at: NOW - MINUTE, ..waiting(10) };
        let view = TurnView { with_messages: vec![due, later, stuck], ..view(0..5, 2) };
        assert_eq!(ids(&Backlog::new("t", NOW, NOW).take_turn(1, &view, NOW).1), ["0"]);
    }

    #[test]
    fn a_sent_job_is_sent_again_when_it_was_parked_again_or_its_message_was_lost() {
        let (after, _) = Backlog::new("t", NOW, NOW).take_turn(1, &view(0..1, 1), NOW);
        assert!(after.is_sent(&waiting(0), NOW + LOST_AFTER - Millis::from_ms(1)));
        assert!(!after.is_sent(&waiting(0), NOW + LOST_AFTER));
        assert!(!after.is_sent(&WaitingJob { ready_at: NOW + MINUTE, ..waiting(0) }, NOW));
        let (after, sent) = after.take_turn(2, &view(0..1, 1), NOW + LOST_AFTER);
        assert_eq!((ids(&sent), after.sent.len()), (vec!["0"], 1));
    }

    #[test]
    fn a_parked_job_brings_only_an_idle_backlog_forward() {
        let (busy, _) = Backlog::new("t", NOW, NOW).take_turn(1, &view(0..5, 2), NOW);
        assert_eq!(busy.with_parked(NOW, NOW), None, "its turn is when the next job fits");
        let (idle, _) = Backlog::new("t", NOW, NOW).take_turn(1, &view(0..2, 2), NOW);
        let forward = idle.with_parked(NOW, NOW).expect("a change");
        assert_eq!((forward.turn, forward.turn_at), (idle.turn + 1, NOW + MIN_PAUSE));
        assert_eq!(forward.sent, idle.sent);
        assert_eq!(idle.with_parked(NOW + MINUTE, NOW), None);
    }

    #[test]
    fn a_backlog_closes_only_a_while_after_a_job_was_parked() {
        let new = Backlog::new("t", NOW, NOW);
        assert!(new.take_turn(1, &view(0..0, 0), NOW + Millis::from_s(59)).0.is_open, "the index may lag behind");
        assert!(new.take_turn(1, &view(0..1, 1), NOW + MINUTE).0.is_open);
        let noted = new.with_parked(NOW, NOW + NOTE_AFTER).expect("a change");
        assert_eq!((noted.turn, noted.parked_at), (new.turn, NOW + NOTE_AFTER));
        assert!(noted.take_turn(1, &view(0..0, 0), NOW + MINUTE).0.is_open);
        let closed = new.take_turn(1, &view(0..0, 0), NOW + MINUTE).0;
        assert_eq!((closed.is_open, closed.turn_step(closed.turn, UnixMs::MAX)), (false, TurnStep::Drop));
        let opened = closed.with_parked(NOW, NOW + MINUTE).expect("a change");
        assert_eq!(opened.turn_step(opened.turn, opened.turn_at), TurnStep::Take);
        assert_eq!(opened.turn_step(closed.turn, opened.turn_at), TurnStep::Drop);
    }

    #[test]
    fn a_turn_whose_process_died_is_taken_by_the_message_that_it_sent() {
        let backlog = Backlog::new("t", NOW, NOW);
        assert_eq!(backlog.turn_step(2, NOW + MIN_PAUSE), TurnStep::Take);
        let (after, _) = backlog.take_turn(2, &view(0..5, 2), NOW + MIN_PAUSE);
        assert_eq!((after.turn, after.turn_step(1, NOW + MINUTE)), (3, TurnStep::Drop));
    }

    #[test]
    fn a_turn_far_away_is_looked_at_every_fifteen_minutes() {
        assert_eq!(Backlog::new("t", UnixMs::MAX, NOW).turn_at, NOW + MAX_PAUSE);
        let view = TurnView { retry_after: Millis::MAX, ..view(0..5, 0) };
        assert_eq!(Backlog::new("t", NOW, NOW).take_turn(1, &view, NOW).0.turn_at, NOW + MAX_PAUSE);
    }

    proptest! {
        /// Whatever is parked, claimed and lost, each job is sent, and the queue holds few of them.
        #[test]
        fn every_parked_job_is_sent(arrivals in proptest::collection::vec(0..200_u64, 1..10), seed: u64) {
            let mut random = seed;
            let mut chance = |of: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % of
            };
            let (mut parked, mut number, mut now) = (Vec::new(), 0, NOW);
            let mut backlog = Backlog::new("t", NOW, NOW);
            for arrivals in arrivals.into_iter().chain([0; 400]) {
                parked.extend((number..number + arrivals).map(waiting));
                number += arrivals;
                backlog = backlog.with_parked(now, now).unwrap_or(backlog);
                now = now.max(backlog.turn_at);
                prop_assert_eq!(backlog.turn_step(backlog.turn, now), TurnStep::Take);
                let view = TurnView { parked: parked.iter().take(2 * MAX_SENT).cloned().collect(), ..view(0..0, usize::try_from(chance(100)).unwrap_or(0) + 1) };
                let (after, sent) = backlog.take_turn(backlog.turn, &view, now);
                prop_assert!(parked.iter().filter(|job| after.is_sent(job, now)).count() <= MAX_SENT);
                // In the first minute, one of twenty messages is lost.
                parked.retain(|job| (now < NOW + MINUTE && chance(20) == 0) || !ids(&sent).contains(&job.id.as_str()));
                prop_assert!(after.is_open || parked.is_empty());
                backlog = after;
            }
            prop_assert!(parked.is_empty(), "{} of {number} jobs were not sent", parked.len());
        }
    }
}
