//! Fleets: instances that serve one request at a time, or a few processes that serve any number of
//! requests.

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use fastrand::Rng;
use spillway::{
    quota::{Charge, Image, Policy, Refusal, Verdict},
    store::ledger::is_recent,
    units::Millis,
};

use super::{encoding::Encoding, load};

/// Start of the virtual time in milliseconds since 1970: within an epoch, a slot and a minute, and
/// far from midnight.
const START_MS: u64 = 1_788_652_812_345;

/// Assignment of requests to processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fleet {
    /// Instances that serve one request at a time. A request goes to the newest idle instance.
    NewestInstance,
    /// Instances that serve one request at a time. A request goes to a random idle instance.
    AnyInstance,
    /// This number of processes, each of which serves any number of requests.
    Processes(usize),
}

/// A process with a clock and a memory.
#[derive(Debug)]
pub struct Process {
    skew_us: i64,
    /// Last known image of each item with its time, for encodings that use it.
    pub known: HashMap<usize, (Rc<Image>, u64)>,
    /// Last image of each item that has refused a request, with its time.
    recent_refusals: HashMap<usize, (Rc<Image>, u64)>,
    /// Requests that wait for the current reservation round, by item.
    pub reserving: HashMap<usize, Vec<usize>>,
    /// Settlements that wait for the current settlement round, by item.
    pub settling: HashMap<usize, Vec<usize>>,
}

impl Process {
    /// Creates a process with a clock that is `skew_us` ahead.
    pub fn new(skew_us: i64) -> Self {
        Self {
            skew_us,
            known: HashMap::new(),
            recent_refusals: HashMap::new(),
            reserving: HashMap::new(),
            settling: HashMap::new(),
        }
    }

    /// Time of its clock.
    pub fn clock_ms(&self, now_us: u64) -> u64 {
        (START_MS * 1_000 + now_us).saturating_add_signed(self.skew_us) / 1_000
    }

    /// Remembers the image of an item that refused a request at `now_ms`, or that took a write
    /// after a refusal.
    pub fn note_refusal(&mut self, item: usize, image: &Rc<Image>, is_refusal: bool, now_ms: u64) {
        if is_refusal || self.recent_refusals.contains_key(&item) {
            self.recent_refusals.insert(item, (Rc::clone(image), now_ms));
        }
    }

    /// Returns the refusal of the item if a recent refusal predicts it, by the product's own rule.
    pub fn recent_refusal(
        &self,
        encoding: Encoding,
        item: usize,
        policy: &Policy,
        charge: &Charge,
        now_ms: u64,
    ) -> Option<Refusal> {
        let (image, at_ms) = self.recent_refusals.get(&item)?;
        let Verdict::Refused(refusal) = encoding.explain(policy, charge, image, now_ms) else { return None };
        is_recent(&refusal, Millis::from_ms(now_ms.saturating_sub(*at_ms))).then_some(refusal)
    }
}

/// All processes, and the idle instances among them.
#[derive(Debug)]
pub struct Processes {
    fleet: Fleet,
    processes: Vec<Process>,
    idle_by_age: BTreeSet<usize>,
    idle: Vec<usize>,
}

impl Processes {
    /// Creates the processes of `fleet`.
    pub fn new(fleet: Fleet, rng: &mut Rng) -> Self {
        let count = if let Fleet::Processes(count) = fleet { count } else { 0 };
        let processes = (0..count).map(|_| Process::new(load::skew_us(rng))).collect();
        Self { fleet, processes, idle_by_age: BTreeSet::new(), idle: Vec::new() }
    }

    /// Takes a process for the next request; starts an instance if none is idle.
    pub fn take(&mut self, rng: &mut Rng) -> usize {
        let process = match self.fleet {
            Fleet::Processes(count) => Some(rng.usize(0..count)),
            Fleet::NewestInstance => self.idle_by_age.pop_last(),
            Fleet::AnyInstance if self.idle.is_empty() => None,
            Fleet::AnyInstance => Some(self.idle.swap_remove(rng.usize(0..self.idle.len()))),
        };
        process.unwrap_or_else(|| {
            self.processes.push(Process::new(load::skew_us(rng)));
            self.processes.len() - 1
        })
    }

    /// Returns a process after its request. A process that dies is not returned.
    pub fn give_back(&mut self, process: usize) {
        match self.fleet {
            Fleet::Processes(_) => {}
            Fleet::NewestInstance => drop(self.idle_by_age.insert(process)),
            Fleet::AnyInstance => self.idle.push(process),
        }
    }

    pub fn get(&self, process: usize) -> &Process {
        &self.processes[process]
    }

    pub fn get_mut(&mut self, process: usize) -> &mut Process {
        &mut self.processes[process]
    }
}
