//! Actions of the model, and the properties that must hold.

use std::{collections::HashMap, sync::Mutex};

use spillway::{
    quota::{
        Attribute, Burst, Charge, Condition, Image, Limits, Policy, REAP_MARGIN, Refusal, Reservation, Settled, Update,
        Verdict, Write, explain, free, reserve, settle,
    },
    units::UnixMs,
};
use stateright::{Model, Property};

use super::state::{Phase, Process, Reap, Request, Ring, State};

/// The end of the first slot, and of an epoch.
const SLOT_END_MS: u64 = 1_764_000_000_000;
const SLOT_MS: u64 = 15_000;

const MARGIN_MS: u64 = REAP_MARGIN.as_ms();

pub const LIMIT: &str = "no item has more requests running than a version of the limits allows it";
pub const COUNT: &str = "the requests in flight are the sum of the slots";
pub const NEGATIVE: &str = "nothing is below zero";
pub const STALE: &str = "old limits admit nothing once the fence has passed";
pub const FREES: &str = "an item that holds only the dead admits";
pub const TAKEN: &str = "the slot of a dead request is taken by another";
pub const FULL: &str = "both items are full";

/// A fault of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Slots are freed from their beginning on.
    EarlyReap,
    /// The margin is one clock skew instead of two.
    MarginOfOneSkew,
    /// A slot is freed without a condition on its count.
    UnconditionalReap,
    /// A settlement takes effect twice, because DynamoDB retries it.
    DoubleSettle,
    /// A settlement has no condition on its slot.
    UnconditionalSettle,
    /// The version of the limits is not checked.
    NoVersion,
    /// A refused process never frees a slot.
    NoReap,
}

/// Time of a write by the clock of its process, its request, and the slot that it frees.
type WriteKey = (u64, Request, Option<Reap>);

pub struct RingModel {
    pub fault: Option<Fault>,
    /// Clock skew of each process, in milliseconds.
    pub skews_ms: Vec<i64>,
    /// Limits of the first and of the second version, for both items together.
    pub limits: [u64; 2],
    /// Number of moments.
    pub moments: usize,
    /// Cache of writes: building the write of a reservation takes longer than the rest of the
    /// model.
    pub writes: Mutex<HashMap<WriteKey, Write>>,
    /// Whether the limits change.
    pub changes: bool,
    /// Whether some requests outlive the slot that they begin in.
    pub some_are_long: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    Tick,
    /// Reserves on a shard first. A long request outlives this slot.
    Ask {
        process: usize,
        shard: usize,
        is_long: bool,
    },
    /// Continues after a refusal.
    GoOn {
        process: usize,
    },
    /// Settles, early or late. Whether it gets a reply makes no difference.
    Settle {
        process: usize,
    },
    /// Dies while its request runs. Another process with the same clock replaces it. Once the
    /// request would have ended, a lost settlement looks the same.
    Crash {
        process: usize,
    },
    Reload {
        process: usize,
    },
    Change,
    /// The operator's next write to an item; it may never come.
    Fence,
}

impl RingModel {
    /// Returns the true time of a moment. The moments are around the ends of slots by every clock.
    fn now_ms(&self, moment: usize) -> u64 {
        let skew_ms = self.skews_ms.iter().map(|skew_ms| skew_ms.unsigned_abs()).max().unwrap_or_default();
        let slot_moments = |slot: u64| {
            let end_ms = SLOT_END_MS + slot * SLOT_MS;
            [end_ms + skew_ms - 2, end_ms + MARGIN_MS - skew_ms, end_ms + MARGIN_MS + skew_ms]
        };
        let mut moments: Vec<u64> = (0..3).flat_map(slot_moments).collect();
        moments.sort_unstable();
        moments.dedup();
        moments[moment]
    }

    fn clock(&self, state: &State, process: usize) -> u64 {
        self.now_ms(state.moment).saturating_add_signed(self.skews_ms[process])
    }

    fn policy(&self, version: u64, shard: usize) -> Policy {
        let in_flight = self.limits[if version == 1 { 0 } else { 1 }];
        let limits = Limits { in_flight: Some(in_flight), ..Limits::default() };
        let burst = Burst { requests_s: 60, tokens_s: 60, is_strict: false, carries_over: false };
        Policy { limits, version, burst, share_percent: 100 }.slice(shard as u64, 2)
    }

    fn reserve_write(&self, request: Request, at_ms: u64, reap: Option<Reap>) -> Write {
        let mut writes = self.writes.lock().expect("no panic");
        let compiled = || {
            let policy = self.policy(request.version, request.shard);
            let expires_at = UnixMs::from_ms(request.expires_ms);
            let reservation = Reservation::new(&policy, ONE, UnixMs::from_ms(at_ms), expires_at);
            let mut write = match reap {
                Some(Reap { slot, count, only_frees: true }) => free(slot, count),
                reap => reserve(&policy, &reservation, reap.map(|reap| (reap.slot, reap.count))),
            };
            write.conditions.retain(|condition| match self.fault {
                Some(Fault::UnconditionalReap) => !matches!(condition, Condition::Equals(..)),
                Some(Fault::NoVersion) => condition.attribute() != Attribute::Version,
                _ => true,
            });
            Ring::part_of(write)
        };
        writes.entry((at_ms, request, reap)).or_insert_with(compiled).clone()
    }

    /// Runs the next write of a process to its item.
    fn ask(&self, state: &mut State, process: usize) {
        let Process { version, phase: Phase::Asking { shard, other, is_long, reap } } = state.processes[process] else {
            return;
        };
        let at_ms = self.clock(state, process);
        let expires_ms = (at_ms / SLOT_MS + 1 + u64::from(is_long)) * SLOT_MS - 1;
        let request = Request { shard, version, expires_ms };
        if state.items[shard].apply(&self.reserve_write(request, at_ms, reap)) {
            state.has_reaped |= reap.is_some();
            state.has_admitted_stale |= version < state.version && shard < state.fenced;
            state.processes[process].phase = match reap {
                Some(Reap { only_frees: true, .. }) => Phase::Asking { shard, other, is_long, reap: None },
                _ => Phase::Running(request),
            };
            return;
        }
        let image = state.items[shard].image();
        state.processes[process].phase = match self.judged(&request, at_ms, &image) {
            Verdict::Reap(slot, count) => {
                let with = Reap { slot, count, only_frees: false };
                let only_frees = !image.admits(&self.reserve_write(request, at_ms, Some(with)));
                Phase::Asking { shard, other, is_long, reap: Some(Reap { only_frees, ..with }) }
            }
            Verdict::Refused(_) => {
                other.map_or(Phase::Idle, |shard| Phase::Asking { shard, other: None, is_long, reap: None })
            }
            Verdict::Stale => {
                state.processes[process].version = state.version;
                Phase::Asking { shard, other, is_long, reap: None }
            }
            Verdict::InFull | Verdict::Retry => Phase::Asking { shard, other, is_long, reap: None },
        };
    }

    fn judged(&self, request: &Request, at_ms: u64, image: &Image) -> Verdict {
        let Request { shard, version, expires_ms } = *request;
        let verdict = explain(&self.policy(version, shard), &ONE, image, UnixMs::from_ms(at_ms));
        let after_ms = match self.fault {
            Some(Fault::EarlyReap) => 0,
            Some(Fault::MarginOfOneSkew) => SLOT_MS + MARGIN_MS / 2,
            Some(Fault::NoReap) => u64::MAX / 2,
            _ => return verdict,
        };
        let own = expires_ms / SLOT_MS;
        let is_free = |(attribute, count): (Attribute, i64)| match attribute {
            Attribute::Slot(slot) if count > 0 && slot != own && slot * SLOT_MS + after_ms <= at_ms => {
                Some((slot, count))
            }
            _ => None,
        };
        match (image.iter().find_map(is_free), verdict) {
            (_, Verdict::Stale) => Verdict::Stale,
            (Some((slot, count)), _) => Verdict::Reap(slot, u64::try_from(count).expect("above zero")),
            (None, Verdict::Reap(..)) => Verdict::Refused(Refusal { limits: Vec::new() }),
            (None, verdict) => verdict,
        }
    }

    fn settle(&self, state: &mut State, process: usize) {
        let Phase::Running(request) = state.processes[process].phase else { return };
        let expires_at = UnixMs::from_ms(request.expires_ms);
        let policy = self.policy(request.version, request.shard);
        let reservation = Reservation::new(&policy, ONE, expires_at, expires_at);
        let settled = Settled { charge: ONE, ..Settled::default() };
        let mut write = Ring::part_of(settle(&reservation, &settled, UnixMs::from_ms(self.clock(state, process))));
        if self.fault == Some(Fault::UnconditionalSettle) {
            write.conditions.clear();
        }
        // If it is refused because the slot was reaped, the second attempt does not touch the ring.
        let is_done = state.items[request.shard].apply(&write);
        if is_done && self.fault == Some(Fault::DoubleSettle) {
            state.items[request.shard].apply(&write);
        }
        state.processes[process].phase = Phase::Idle;
    }

    fn crash(&self, state: &mut State, process: usize) {
        let Phase::Running(request) = state.processes[process].phase else { return };
        state.orphans.push((process, request));
        state.orphans.sort_unstable();
        state.processes[process].phase = Phase::Idle;
    }

    fn is_live(&self, state: &State, process: usize, request: &Request) -> bool {
        self.clock(state, process) < request.expires_ms
    }

    /// Returns whether an item runs more requests admitted under `version` than that version
    /// allows.
    fn is_over(&self, state: &State, version: u64, shard: usize) -> bool {
        let running = state.processes.iter().enumerate().filter_map(|(process, known)| match known.phase {
            Phase::Running(request) => Some((process, request)),
            _ => None,
        });
        let alike = |(_, request): &(usize, Request)| (request.version, request.shard) == (version, shard);
        let requests = running.chain(state.orphans.iter().copied()).filter(alike);
        let live = requests.filter(|(process, request)| self.is_live(state, *process, request)).count() as u64;
        self.policy(version, shard).limits.in_flight.is_none_or(|limit| live > limit)
    }

    /// Returns whether each item whose slots are all dead by every clock admits a request under the
    /// newest limits.
    fn frees_itself(&self, state: &State) -> bool {
        let now_ms = (0..self.skews_ms.len()).map(|process| self.clock(state, process)).min().expect("a process");
        let is_dead = |(slot, _): (u64, i64)| (slot + 1) * SLOT_MS + MARGIN_MS <= now_ms;
        let is_all_dead = |shard: &usize| state.items[*shard].slots().filter(|(_, count)| *count > 0).all(is_dead);
        (0..2).filter(is_all_dead).all(|shard| {
            let asking = Phase::Asking { shard, other: None, is_long: false, reap: None };
            let mut state =
                State { processes: vec![Process { version: state.version, phase: asking }], ..state.clone() };
            // At most one refused write, one for each slot, and one that is admitted.
            for _ in 0..10 {
                self.ask(&mut state, 0);
            }
            matches!(state.processes[0].phase, Phase::Running(_))
        })
    }
}

/// Charge of every request of the model.
const ONE: Charge = Charge { requests: 1, ..Charge::ZERO };

impl Model for RingModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let idle = Process { version: 1, phase: Phase::Idle };
        vec![State {
            moment: 0,
            version: 1,
            fenced: 0,
            items: Default::default(),
            processes: vec![idle; self.skews_ms.len()],
            orphans: Vec::new(),
            has_reaped: false,
            has_admitted_stale: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.moment + 1 < self.moments {
            actions.push(Action::Tick);
        }
        if state.version == 1 && self.changes {
            actions.push(Action::Change);
        } else if state.version == 2 && state.fenced < 2 {
            actions.push(Action::Fence);
        }
        for (process, Process { version, phase }) in state.processes.iter().enumerate() {
            match phase {
                Phase::Idle => {
                    let asks = [(0, false), (1, false), (0, true), (1, true)];
                    let asks = asks.into_iter().filter(|(_, is_long)| self.some_are_long || !is_long);
                    actions.extend(asks.map(|(shard, is_long)| Action::Ask { process, shard, is_long }));
                }
                Phase::Asking { .. } => actions.push(Action::GoOn { process }),
                Phase::Running(_) => {
                    actions.extend([Action::Settle { process }, Action::Crash { process }]);
                }
            }
            if *version < state.version && *phase == Phase::Idle {
                actions.push(Action::Reload { process });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.moment += 1,
            Action::Ask { process, shard, is_long } => {
                state.processes[process].phase = Phase::Asking { shard, other: Some(1 - shard), is_long, reap: None };
                self.ask(&mut state, process);
            }
            Action::GoOn { process } => self.ask(&mut state, process),
            Action::Settle { process } => self.settle(&mut state, process),
            Action::Crash { process } => self.crash(&mut state, process),
            Action::Reload { process } => state.processes[process].version = state.version,
            Action::Change => state.version = 2,
            Action::Fence => {
                let fence = Write {
                    conditions: vec![Condition::AtMost(Attribute::Version, state.version)],
                    updates: vec![Update::Set(Attribute::Version, state.version)],
                };
                state.items[state.fenced].apply(&fence);
                state.fenced += 1;
            }
        }
        let live = |(process, request): &(usize, Request)| self.is_live(&state, *process, request);
        let orphans = state.orphans.iter().copied().filter(live).collect();
        state.orphans = orphans;
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.orphans.len() <= 1
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIMIT, |model: &Self, state: &State| {
                (1..=2).all(|version| (0..2).all(|shard| !model.is_over(state, version, shard)))
            }),
            Property::always(COUNT, |_, state: &State| {
                state.items.iter().all(|item| item.count() == item.slots().map(|(_, count)| count).sum::<i64>())
            }),
            Property::always(NEGATIVE, |_, state: &State| !state.items.iter().any(Ring::is_negative)),
            Property::always(STALE, |_, state: &State| !state.has_admitted_stale),
            Property::always(FREES, |model: &Self, state: &State| model.frees_itself(state)),
            Property::sometimes(TAKEN, |_, state: &State| state.has_reaped),
            Property::sometimes(FULL, |model: &Self, state: &State| {
                (0..2).all(|shard| {
                    let limit = model.policy(state.version, shard).limits.in_flight.expect("limited");
                    state.items[shard].count() as u64 >= limit
                })
            }),
        ]
    }
}
