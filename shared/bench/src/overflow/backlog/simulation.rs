//! The backlog in virtual time: the product's own decisions about turns, admission and jobs, on one
//! ledger item in memory. All jobs are parked at the start, like the lines of a batch.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use fastrand::Rng;
use spillway::{
    dialect::Api,
    job::{
        Backlog, Job, JobStatus, JobWait, LOOK_AHEAD, MAX_SENT, NewJob, NextStep, Obstruction, Priority, StoredCall,
        TurnStep, TurnView, WaitingJob,
    },
    quota::{
        Burst, Capacity, Charge, Image, Limits, Policy, Reservation, Settled, Verdict, capacity, explain, reserve,
        settle,
    },
    stored_headers::StoredHeaders,
    tenant::Class,
    units::{Millis, UnixMs},
};

use super::Args;

/// Time of the first turn: the start of an epoch.
const START: UnixMs = UnixMs::from_ms(1_800_000_000_000);

/// Time until a job may be given up. It is longer than any simulation.
const LIFETIME: Millis = Millis::from_s(365 * 24 * 60 * 60);

const LEASE: Millis = Millis::from_s(60);
const CALL: Millis = Millis::from_s(3);

/// Longest time from the message of a job to its attempt.
const MAX_DELIVERY_MS: u64 = 2_000;

/// What the backlog took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    pub deferrals: u64,
    pub most_deferrals: u64,
    /// Messages of jobs and of turns.
    pub messages: u64,
    /// Writes of rows of jobs, submissions included, and of the row of the backlog.
    pub writes: u64,
    pub turns: u64,
    pub elapsed: Millis,
}

/// Something that happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Turn(u64),
    /// The message of a job arrives.
    Attempt(usize),
    /// A call ends: of a job, or of a synchronous caller.
    End {
        call: usize,
        job: Option<usize>,
    },
    /// A synchronous caller of the same tenant asks.
    Ask,
}

struct Simulation {
    policy: Policy,
    image: Image,
    backlog: Backlog,
    jobs: Vec<Job>,
    /// Jobs that wait, the most urgent first.
    waiting: BTreeMap<(UnixMs, usize), ()>,
    calls: Vec<Reservation>,
    events: BinaryHeap<Reverse<(UnixMs, Event)>>,
    rng: Rng,
    sync_per_minute: u64,
    left: usize,
    totals: Totals,
}

/// Runs the backlog to its end.
///
/// # Errors
/// Returns an error if it does not end.
pub fn run(args: &Args) -> anyhow::Result<Totals> {
    let mut simulation = Simulation::new(args);
    let patience = Millis::from_s(60 * (4 * args.jobs / args.per_minute + 60));
    while simulation.left > 0 {
        let Reverse((now, event)) = simulation.events.pop().context("jobs are left and nothing happens")?;
        ensure!(now < START + patience, "{} jobs have not ended", simulation.left);
        simulation.totals.elapsed = now - START;
        simulation.handle(event, now);
    }
    let deferrals = || simulation.jobs.iter().map(|job| u64::from(job.deferrals));
    let totals =
        Totals { deferrals: deferrals().sum(), most_deferrals: deferrals().max().unwrap_or(0), ..simulation.totals };
    Ok(totals)
}

impl Simulation {
    fn new(args: &Args) -> Self {
        let limits = Limits { requests_per_minute: Some(args.per_minute), ..Limits::default() };
        let burst = Burst { requests_s: args.burst_s, tokens_s: 60, is_strict: false, carries_over: false };
        let jobs: Vec<Job> = (0..args.jobs).map(job).collect();
        let backlog = Backlog::new("t", START, START);
        let mut simulation = Self {
            policy: Policy { limits, version: 1, burst, share_percent: 100 },
            image: Image::default(),
            waiting: jobs.iter().enumerate().map(|(number, job)| ((job.effective_arrival(), number), ())).collect(),
            calls: Vec::new(),
            events: BinaryHeap::new(),
            rng: Rng::with_seed(args.seed),
            sync_per_minute: args.sync_per_minute,
            left: jobs.len(),
            totals: Totals { writes: args.jobs, messages: 1, ..Totals::default() },
            backlog,
            jobs,
        };
        simulation.at(simulation.backlog.turn_at, Event::Turn(simulation.backlog.turn));
        if args.sync_per_minute > 0 {
            simulation.at(START, Event::Ask);
        }
        simulation
    }

    fn at(&mut self, time: UnixMs, event: Event) {
        self.events.push(Reverse((time, event)));
    }

    fn handle(&mut self, event: Event, now: UnixMs) {
        match event {
            Event::Turn(number) => self.turn(number, now),
            Event::Attempt(number) => self.attempt(number, now),
            Event::End { call, job } => self.end(call, job, now),
            Event::Ask => {
                self.reserve(None, now);
                let gap_ms = self.rng.u64(0..2 * 60_000 / self.sync_per_minute);
                self.at(now + Millis::from_ms(gap_ms), Event::Ask);
            }
        }
    }

    fn turn(&mut self, number: u64, now: UnixMs) {
        if self.backlog.turn_step(number, now) != TurnStep::Take {
            return;
        }
        let next = self.waiting.keys().take(2 * MAX_SENT);
        let waiting = |(_, number): &(UnixMs, usize)| {
            let job = &self.jobs[*number];
            WaitingJob { id: job.id.clone(), priority: job.priority, ready_at: job.ready_at }
        };
        let parked: Vec<WaitingJob> = next.map(waiting).collect();
        let period = (now, now + LOOK_AHEAD);
        let Some(room) = capacity(&self.policy, &ONE_REQUEST, &self.image, period, MAX_SENT) else { return };
        let Capacity { waits, retry_after, may_settle, .. } = room;
        let view = TurnView { parked, with_messages: Vec::new(), waits, retry_after, may_settle };
        let (after, chosen) = self.backlog.take_turn(number, &view, now);
        self.backlog = after;
        self.totals.turns += 1;
        self.totals.writes += 1;
        self.totals.messages += 1 + chosen.len() as u64;
        for (job, delay) in chosen {
            // SQS delays whole seconds.
            let delay = Millis::from_s(delay.as_s_rounded_up());
            let delivered_at = now + delay + Millis::from_ms(self.rng.u64(..=MAX_DELIVERY_MS));
            if let Ok(number) = job.id.parse() {
                self.at(delivered_at, Event::Attempt(number));
            }
        }
        self.at(self.backlog.turn_at, Event::Turn(self.backlog.turn));
    }

    /// Claims a job and calls the model, or parks the job.
    fn attempt(&mut self, number: usize, now: UnixMs) {
        if self.jobs[number].next_step(now) != NextStep::Run {
            return;
        }
        self.jobs[number] = self.jobs[number].claimed(LEASE, now);
        self.waiting.remove(&(self.jobs[number].effective_arrival(), number));
        self.totals.writes += 1;
        if let Some(wait) = self.reserve(Some(number), now) {
            let reason = Obstruction::for_limit("requests_per_minute");
            let reason = JobWait::after(self.jobs[number].wait.as_deref(), reason, now);
            self.jobs[number] = self.jobs[number].parked(&reason, now + wait, now);
            self.waiting.insert((self.jobs[number].effective_arrival(), number), ());
            self.totals.writes += 1;
            if let Some(changed) = self.backlog.with_parked(now + wait, now) {
                let is_new_turn = changed.turn != self.backlog.turn;
                self.backlog = changed;
                self.totals.writes += 1;
                if is_new_turn {
                    self.totals.messages += 1;
                    self.at(self.backlog.turn_at, Event::Turn(self.backlog.turn));
                }
            }
        }
    }

    /// Begins a call. Returns the time until it fits if it does not.
    fn reserve(&mut self, job: Option<usize>, now: UnixMs) -> Option<Millis> {
        let reservation = Reservation::new(&self.policy, ONE_REQUEST, now, now + LEASE);
        if self.image.apply(&reserve(&self.policy, &reservation, None)) {
            let call = self.calls.len();
            self.calls.push(reservation);
            self.at(now + CALL, Event::End { call, job });
            return None;
        }
        match explain(&self.policy, &ONE_REQUEST, &self.image, now) {
            Verdict::Refused(refusal) => Some(refusal.retry_after()),
            Verdict::Stale | Verdict::Reap(..) | Verdict::InFull | Verdict::Retry => Some(Millis::ZERO),
        }
    }

    fn end(&mut self, call: usize, job: Option<usize>, now: UnixMs) {
        let settled = Settled { charge: ONE_REQUEST, ..Settled::default() };
        self.image.apply(&settle(&self.calls[call], &settled, now));
        if let Some(number) = job {
            self.jobs[number] = self.jobs[number].ended(JobStatus::Succeeded, None, now);
            self.totals.writes += 1;
            self.left -= 1;
        }
    }
}

const ONE_REQUEST: Charge = Charge { requests: 1, ..Charge::ZERO };

/// A parked job, whose id is its number.
fn job(number: u64) -> Job {
    let new = NewJob {
        id: None,
        tenant: "t".to_owned(),
        call: StoredCall {
            api: Api::ChatCompletions,
            model: None,
            path: String::new(),
            base_path: String::new(),
            headers: StoredHeaders::default(),
            stream: false,
        },
        body: Bytes::new(),
        created_at: START,
        ready_at: START,
        expires_at: START + LIFETIME,
        is_parked: true,
        priority: Priority::Low,
        class: Class::Batch,
        member: None,
        wait: None,
    };
    Job::accepted(number.to_string(), &new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the totals of a backlog of `jobs` at 60 requests per minute.
    fn totals(jobs: u64, burst_s: u64, sync_per_minute: u64) -> Totals {
        let args = Args { jobs, per_minute: 60, burst_s, sync_per_minute, virtual_time: true, patience_s: 0, seed: 1 };
        run(&args).expect("an end")
    }

    #[test]
    fn a_backlog_ten_times_as_long_costs_ten_times_as_much_and_not_a_hundred_times() {
        for burst_s in [0, 60] {
            let (short, long) = (totals(300, burst_s, 0), totals(3_000, burst_s, 0));
            assert!(long.deferrals <= 3_000 * 3 / 2, "{long:?}");
            assert!(long.messages <= 11 * short.messages, "{short:?} {long:?}");
            assert!(long.writes <= 11 * short.writes, "{short:?} {long:?}");
        }
    }

    #[test]
    fn a_backlog_uses_the_limit_of_its_tenant() {
        let minutes = |totals: Totals| totals.elapsed.as_ms() / 60_000;
        assert!(minutes(totals(600, 0, 0)) <= 11, "even rate");
        assert!(minutes(totals(600, 60, 0)) <= 11, "bursts");
    }

    #[test]
    fn callers_that_take_part_of_the_room_cost_a_backlog_few_deferrals() {
        let totals = totals(600, 60, 30);
        assert!(totals.deferrals <= 600 * 3 / 2, "{totals:?}");
        assert!(totals.messages <= 600 * 4, "{totals:?}");
    }
}
