//! Simulation of events in virtual time, from the arrival of a request to its settlement.

mod choice;
mod outcome;
mod request;
mod reserving;
mod settling;

use std::{cmp::Reverse, collections::BinaryHeap};

use fastrand::Rng;
use spillway::broker;

pub use outcome::Outcome;

use super::{
    accounts::SimulatedAccount,
    fleet::Processes,
    item::Item,
    load::{self, Ask, Kind},
    scenario::Scenario,
    slab::Slab,
    tally::Tally,
};
use request::Request;
use reserving::Reserving;
use settling::{Debt, Settling};

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next request of a tenant arrives.
    Arrives {
        caller: usize,
    },
    /// A request tries a busy item again.
    RetryShard {
        request: usize,
    },
    /// The model call of a request ends.
    Served {
        request: usize,
    },
    /// The write of a round reaches its item.
    ReserveLands {
        round: usize,
    },
    /// A round receives the result of its write.
    ReserveReplies {
        round: usize,
    },
    /// A round receives the image of its item.
    ReadReplies {
        round: usize,
    },
    /// A round tries again after a pause.
    RetryReserve {
        round: usize,
    },
    SettleLands {
        round: usize,
    },
    SettleReplies {
        round: usize,
    },
    RetrySettle {
        round: usize,
    },
}

/// A running scenario.
struct Simulation {
    scenario: Scenario,
    now_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Number of events so far. It orders events of the same time.
    entries: u64,
    /// Random numbers of the requests. They are the same in every scenario with the same seed.
    demand: Rng,
    /// All other random numbers.
    rng: Rng,
    next_asks: Vec<Option<Ask>>,
    /// Accounts of the tenants in the order of the callers, then of the pools in the order of the
    /// ladder.
    accounts: Vec<SimulatedAccount>,
    items: Vec<Item>,
    processes: Processes,
    requests: Slab<Request>,
    reserving: Slab<Reserving>,
    debts: Slab<Debt>,
    settling: Slab<Settling>,
    warm_up: Tally,
    measured: Tally,
}

/// Runs `scenario` to its end.
pub fn run(scenario: Scenario) -> Outcome {
    let mut simulation = Simulation::new(scenario);
    for caller in 0..simulation.scenario.callers.len() {
        simulation.expect_next(caller);
    }
    while let Some(Reverse((at_us, _, event))) = simulation.queue.pop() {
        if at_us >= simulation.scenario.end_us() {
            break;
        }
        simulation.now_us = at_us;
        simulation.handle(event);
    }
    simulation.into_outcome()
}

impl Simulation {
    fn new(scenario: Scenario) -> Self {
        let (accounts, items) = open(&scenario);
        let mut rng = Rng::with_seed(scenario.seed.wrapping_add(1));
        Self {
            now_us: 0,
            queue: BinaryHeap::new(),
            entries: 0,
            demand: Rng::with_seed(scenario.seed),
            next_asks: vec![None; scenario.callers.len()],
            accounts,
            items: (0..items).map(|_| Item::default()).collect(),
            processes: Processes::new(scenario.fleet, &mut rng),
            rng,
            requests: Slab::default(),
            reserving: Slab::default(),
            debts: Slab::default(),
            settling: Slab::default(),
            warm_up: Tally::default(),
            measured: Tally::default(),
            scenario,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives { caller } => self.arrives(caller),
            Event::RetryShard { request } => self.try_shard(request),
            Event::Served { request } => self.served(request),
            Event::ReserveLands { round } => self.reserve_lands(round),
            Event::ReserveReplies { round } => self.reserve_replies(round),
            Event::ReadReplies { round } => self.read_replies(round),
            Event::RetryReserve { round } => self.retry_reserve(round),
            Event::SettleLands { round } => self.settle_lands(round),
            Event::SettleReplies { round } => self.settle_replies(round),
            Event::RetrySettle { round } => self.retry_settle(round),
        }
    }

    /// Schedules `event` in `in_us`.
    fn after(&mut self, in_us: u64, event: Event) {
        self.entries += 1;
        self.queue.push(Reverse((self.now_us + in_us, self.entries, event)));
    }

    /// Draws the time until a message reaches its item, and until the reply returns.
    fn there_and_back_us(&mut self) -> (u64, u64) {
        let both_us = load::write_us(&mut self.rng);
        (both_us / 2, both_us - both_us / 2)
    }

    fn expect_next(&mut self, caller: usize) {
        let (in_us, ask) = self.scenario.callers[caller].next(&mut self.demand);
        self.next_asks[caller] = Some(ask);
        self.after(in_us, Event::Arrives { caller });
    }

    /// Tally of the current time.
    fn tally(&mut self) -> &mut Tally {
        if self.now_us < self.scenario.warm_us() { &mut self.warm_up } else { &mut self.measured }
    }

    fn clock_ms(&self, process: usize) -> u64 {
        self.processes.get(process).clock_ms(self.now_us)
    }
}

/// Creates all accounts. Returns them with their number of items.
fn open(scenario: &Scenario) -> (Vec<SimulatedAccount>, usize) {
    let mut accounts: Vec<SimulatedAccount> = Vec::new();
    let mut items = 0;
    let mut add = |account: SimulatedAccount| {
        items += account.shards as usize;
        accounts.push(account);
        items
    };
    let mut next = 0;
    for caller in &scenario.callers {
        let account = broker::account_for(&caller.tenant);
        let shards = scenario.hot_shards.filter(|_| caller.kind == Kind::Hot);
        next = add(SimulatedAccount::new(&account, &account, shards, next));
    }
    if let Some(model) = &scenario.model {
        let class = scenario.callers[0].tenant.class;
        for pool in model.rungs() {
            let account = |is_excess| broker::account_for_pool(model, pool, pool.share_percent(class, is_excess));
            next = add(SimulatedAccount::new(&account(false), &account(true), None, next));
        }
    }
    (accounts, items)
}
