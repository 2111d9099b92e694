//! How fast jobs may call a pool. Nobody says how much room a pool has, so it is found out: a window of calls at once grows
//! by one for each window of answers and is halved by a throttle (additive increase, multiplicative decrease, as in
//! RFC 5681, "TCP Congestion Control"). Processes that share a pool come to equal shares without knowing of each other.
//!
//! Pure: time is an argument.

/// Calls at once of a window that knows nothing yet.
const FIRST_SIZE: u32 = 4;

/// The most calls at once to one pool from one process.
pub const LARGEST_SIZE: u32 = 256;

/// How long a pool rests after a throttle, in milliseconds, doubled by each one that follows without an answer in between.
const REST_MS: u64 = 1_000;

/// How often that doubles at most: 32 seconds.
const MOST_DOUBLINGS: u32 = 5;

/// How long a pool rests at most because one job did not fit its limits, in milliseconds: a smaller one may fit.
const LONGEST_REFUSAL_MS: u64 = 5_000;

/// How long a call takes when nothing is known, in milliseconds.
const TYPICAL_CALL_MS: u64 = 3_000;

/// How far ahead a turn is given at most, in milliseconds: SQS delays no longer (Amazon SQS Developer Guide, "Amazon SQS
/// delay queues").
const FURTHEST_TURN_MS: u64 = 900_000;

/// The calls at once that jobs may make to one pool.
#[derive(Debug, Clone)]
pub struct Window {
    most: u32,
    size: u32,
    running: u32,
    /// Counts the halvings: what was begun before the last one says nothing new.
    round: u64,
    answers: u32,
    /// Whether a call was kept out since the window last grew: one that is not filled has no reason to grow.
    is_wanted: bool,
    /// Whether it was never throttled: until then it doubles.
    is_new: bool,
    throttles: u32,
    rests_until_ms: u64,
    call_ms: Mean,
}

/// A call that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a call that was let in holds its place until it leaves"]
pub struct Entry {
    round: u64,
    at_ms: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was answered.
    Answered,
    /// The pool throttled it.
    Throttled,
    /// It was not made, because the pool's limits have no room for it for so long, in milliseconds.
    NoRoom { retry_after_ms: u64 },
    /// Anything else, which says nothing of the pool's room.
    Other,
}

/// Why a call is kept out, and when it is worth another try, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// Until this time, whoever leaves.
    Resting { until_ms: u64 },
    /// Until another call leaves, which is probably the case by this time.
    Full { until_ms: u64 },
}

impl Window {
    /// A window of `most` calls at the most.
    pub fn new(most: u32) -> Self {
        let most = most.clamp(1, LARGEST_SIZE);
        Self {
            most,
            size: FIRST_SIZE.min(most),
            running: 0,
            round: 0,
            answers: 0,
            is_wanted: false,
            is_new: true,
            throttles: 0,
            rests_until_ms: 0,
            call_ms: Mean::default(),
        }
    }

    /// How many calls it lets in at once.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many calls are under way.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Lets a call in, if there is room for it.
    ///
    /// # Errors
    /// The pool rests, or the window is full.
    pub fn enter(&mut self, now_ms: u64) -> Result<Entry, Blocked> {
        if now_ms < self.rests_until_ms {
            return Err(Blocked::Resting { until_ms: self.rests_until_ms });
        }
        if self.running >= self.size {
            self.is_wanted = true;
            return Err(Blocked::Full { until_ms: now_ms.saturating_add(self.call_ms.get()) });
        }
        self.running += 1;
        Ok(Entry { round: self.round, at_ms: now_ms })
    }

    /// A call leaves.
    pub fn leave(&mut self, entry: Entry, end: End, now_ms: u64) {
        self.running = self.running.saturating_sub(1);
        match end {
            End::Answered => {
                self.call_ms.add(now_ms.saturating_sub(entry.at_ms));
                if entry.round == self.round {
                    self.throttles = 0;
                    self.grow();
                }
            }
            End::Throttled if entry.round == self.round => self.shrink(now_ms),
            End::NoRoom { retry_after_ms } => self.rest(retry_after_ms.min(LONGEST_REFUSAL_MS), now_ms),
            End::Throttled | End::Other => {}
        }
    }

    /// The pool throttled somebody who does not keep this pace, because somebody waits for the answer. Jobs make room for those.
    pub fn press(&mut self, now_ms: u64) {
        // Once for all throttles of one time.
        if now_ms >= self.rests_until_ms {
            self.shrink(now_ms);
        }
    }

    /// When it can next be entered, unless it is full: the end of its rest, in milliseconds since 1970.
    pub fn rests_until_ms(&self) -> u64 {
        self.rests_until_ms
    }

    fn grow(&mut self) {
        if !self.is_wanted {
            return;
        }
        self.answers += 1;
        let needed = if self.is_new { 1 } else { self.size };
        if self.answers >= needed {
            self.answers = 0;
            self.size = (self.size + 1).min(self.most);
            // A new window doubles, so the answers to all of it count.
            self.is_wanted = self.is_new;
        }
    }

    fn shrink(&mut self, now_ms: u64) {
        self.rest(REST_MS << self.throttles.min(MOST_DOUBLINGS), now_ms);
        self.throttles = self.throttles.saturating_add(1);
        self.size = (self.size / 2).max(1);
        self.round += 1;
        self.answers = 0;
        self.is_new = false;
    }

    fn rest(&mut self, for_ms: u64, now_ms: u64) {
        self.rests_until_ms = self.rests_until_ms.max(now_ms.saturating_add(for_ms));
    }
}

/// How long calls take: a mean in which the last eight or so count most.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    eighths: Option<u64>,
}

impl Mean {
    fn get(&self) -> u64 {
        self.eighths.map_or(TYPICAL_CALL_MS, |eighths| eighths / 8)
    }

    fn add(&mut self, took_ms: u64) {
        let before = self.eighths.map_or(took_ms.saturating_mul(7), |eighths| eighths - eighths / 8);
        self.eighths = Some(before.saturating_add(took_ms));
    }
}

/// When the jobs of a tenant get their turn, of whom only so many may run at once: one after the other, as far apart as they
/// come free, so that not all of them come back for one place.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    last_ms: u64,
    job_ms: Mean,
}

impl Turns {
    /// The turn of the next job where `at_once` may run, in milliseconds since 1970.
    pub fn next(&mut self, at_once: u64, now_ms: u64) -> u64 {
        let apart_ms = (self.job_ms.get() / at_once.max(1)).max(1);
        let turn_ms = self.last_ms.max(now_ms).saturating_add(apart_ms);
        // Beyond that all are told the same: the message comes round again until then.
        self.last_ms = turn_ms.min(now_ms.saturating_add(FURTHEST_TURN_MS));
        self.last_ms
    }

    /// A job was done after `took_ms`.
    pub fn done(&mut self, took_ms: u64) {
        self.job_ms.add(took_ms);
    }
}

#[cfg(test)]
mod tests;
