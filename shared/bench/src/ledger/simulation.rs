//! The simulation: events in virtual time, from a request's arrival to its settlement.

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
    books::Books,
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

/// What happens next, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A tenant's next request arrives.
    Arrives {
        caller: usize,
    },
    /// A request asks an item again that was busy.
    AsksAgain {
        request: usize,
    },
    /// A request's model call ends.
    Served {
        request: usize,
    },
    /// A round's write reaches its item.
    ReserveLands {
        round: usize,
    },
    /// A round learns what became of its write.
    ReserveReplies {
        round: usize,
    },
    /// A round learns what its item holds.
    ReadReplies {
        round: usize,
    },
    /// A round tries again after a pause.
    ReserveAgain {
        round: usize,
    },
    SettleLands {
        round: usize,
    },
    SettleReplies {
        round: usize,
    },
    SettleAgain {
        round: usize,
    },
}

/// One scenario while it runs.
struct Simulation {
    scenario: Scenario,
    now_us: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Numbers the entries of the agenda: what is entered first happens first.
    entries: u64,
    /// What the callers want, the same in every scenario with their seed.
    demand: Rng,
    /// Everything else that is left to chance.
    chance: Rng,
    next_asks: Vec<Option<Ask>>,
    /// The tenants', in the order of the callers, then the pools', in the order of the ladder.
    books: Vec<Books>,
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
    while let Some(Reverse((at_us, _, event))) = simulation.agenda.pop() {
        if at_us >= simulation.scenario.end_us() {
            break;
        }
        simulation.now_us = at_us;
        simulation.happens(event);
    }
    simulation.into_outcome()
}

impl Simulation {
    fn new(scenario: Scenario) -> Self {
        let (books, items) = open(&scenario);
        let mut chance = Rng::with_seed(scenario.seed.wrapping_add(1));
        Self {
            now_us: 0,
            agenda: BinaryHeap::new(),
            entries: 0,
            demand: Rng::with_seed(scenario.seed),
            next_asks: vec![None; scenario.callers.len()],
            books,
            items: (0..items).map(|_| Item::default()).collect(),
            processes: Processes::new(scenario.fleet, &mut chance),
            chance,
            requests: Slab::default(),
            reserving: Slab::default(),
            debts: Slab::default(),
            settling: Slab::default(),
            warm_up: Tally::default(),
            measured: Tally::default(),
            scenario,
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { caller } => self.arrives(caller),
            Event::AsksAgain { request } => self.ask_shard(request),
            Event::Served { request } => self.served(request),
            Event::ReserveLands { round } => self.reserve_lands(round),
            Event::ReserveReplies { round } => self.reserve_replies(round),
            Event::ReadReplies { round } => self.read_replies(round),
            Event::ReserveAgain { round } => self.reserve_again(round),
            Event::SettleLands { round } => self.settle_lands(round),
            Event::SettleReplies { round } => self.settle_replies(round),
            Event::SettleAgain { round } => self.settle_again(round),
        }
    }

    /// Enters `event` for `in_us` from now.
    fn after(&mut self, in_us: u64, event: Event) {
        self.entries += 1;
        self.agenda.push(Reverse((self.now_us + in_us, self.entries, event)));
    }

    /// How long until the next message reaches its item, and from there its sender.
    fn there_and_back_us(&mut self) -> (u64, u64) {
        let both_us = load::write_us(&mut self.chance);
        (both_us / 2, both_us - both_us / 2)
    }

    fn expect_next(&mut self, caller: usize) {
        let (in_us, ask) = self.scenario.callers[caller].next(&mut self.demand);
        self.next_asks[caller] = Some(ask);
        self.after(in_us, Event::Arrives { caller });
    }

    /// What the present is counted in.
    fn tally(&mut self) -> &mut Tally {
        if self.now_us < self.scenario.warm_us() { &mut self.warm_up } else { &mut self.measured }
    }

    fn clock_ms(&self, process: usize) -> u64 {
        self.processes.get(process).clock_ms(self.now_us)
    }
}

/// The books of all accounts, and how many items they have.
fn open(scenario: &Scenario) -> (Vec<Books>, usize) {
    let mut books: Vec<Books> = Vec::new();
    let mut items = 0;
    let mut enter = |one: Books| {
        items += one.shards as usize;
        books.push(one);
        items
    };
    let mut next = 0;
    for caller in &scenario.callers {
        let account = broker::account_of(&caller.tenant);
        let shards = scenario.hot_shards.filter(|_| caller.kind == Kind::Hot);
        next = enter(Books::new(&account, &account, shards, next));
    }
    if let Some(model) = &scenario.model {
        let class = scenario.callers[0].tenant.class;
        for pool in model.rungs() {
            let account = |is_excess| broker::account_of_pool(model, pool, pool.share_percent(class, is_excess));
            next = enter(Books::new(&account(false), &account(true), None, next));
        }
    }
    (books, items)
}
