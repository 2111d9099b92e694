//! Who serves: instances with one request each, which come and go, or a few processes that serve any number.

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use fastrand::Rng;
use spillway::quota::{self, Charge, Image, Policy, Refusal, Verdict};

use super::{encoding::Encoding, load};

/// When the virtual time begins, in milliseconds since 1970: inside an epoch, a slot and a minute, far from midnight.
const START_MS: u64 = 1_788_652_812_345;

/// How requests are given to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fleet {
    /// Instances that serve one request at a time; of those that are idle, the one that was started last is taken.
    NewestInstance,
    /// The same, but any idle one is taken.
    AnyInstance,
    /// This many processes, each of which serves any number of requests.
    Processes(usize),
}

/// One process, with its own clock and memory.
#[derive(Debug)]
pub struct Process {
    skew_us: i64,
    /// What it last saw of an item and when, where the encoding makes use of it.
    pub known: HashMap<usize, (Rc<Image>, u64)>,
    /// What an item held when it was last seen after it had refused something, and when that was.
    denied: HashMap<usize, (Rc<Image>, u64)>,
    /// Who waits for the round that is under way, by item.
    pub reserving: HashMap<usize, Vec<usize>>,
    pub settling: HashMap<usize, Vec<usize>>,
}

impl Process {
    /// A process whose clock is `skew_us` ahead.
    pub fn new(skew_us: i64) -> Self {
        Self {
            skew_us,
            known: HashMap::new(),
            denied: HashMap::new(),
            reserving: HashMap::new(),
            settling: HashMap::new(),
        }
    }

    /// What its clock says.
    pub fn clock_ms(&self, now_us: u64) -> u64 {
        (START_MS * 1_000 + now_us).saturating_add_signed(self.skew_us) / 1_000
    }

    /// The item refused at `now_ms`, or took a write after it had: this is what it holds.
    pub fn note_denied(&mut self, item: usize, image: &Rc<Image>, is_refusal: bool, now_ms: u64) {
        if is_refusal || self.denied.contains_key(&item) {
            self.denied.insert(item, (Rc::clone(image), now_ms));
        }
    }

    /// Why the item would refuse, if that can be told without asking it; the product's own rule.
    pub fn denial(
        &self,
        encoding: Encoding,
        item: usize,
        policy: &Policy,
        charge: &Charge,
        now_ms: u64,
    ) -> Option<Refusal> {
        let (image, at_ms) = self.denied.get(&item)?;
        let Verdict::Refused(refusal) = encoding.explain(policy, charge, image, now_ms) else { return None };
        quota::is_believed(&refusal, now_ms.saturating_sub(*at_ms)).then_some(refusal)
    }
}

/// All processes, and which of them are idle.
#[derive(Debug)]
pub struct Processes {
    fleet: Fleet,
    all: Vec<Process>,
    newest: BTreeSet<usize>,
    any: Vec<usize>,
}

impl Processes {
    /// The processes of `fleet`.
    pub fn new(fleet: Fleet, chance: &mut Rng) -> Self {
        let count = if let Fleet::Processes(count) = fleet { count } else { 0 };
        let all = (0..count).map(|_| Process::new(load::skew_us(chance))).collect();
        Self { fleet, all, newest: BTreeSet::new(), any: Vec::new() }
    }

    /// The process that serves the next request; a new one if none is idle.
    pub fn take(&mut self, chance: &mut Rng) -> usize {
        let idle = match self.fleet {
            Fleet::Processes(count) => Some(chance.usize(0..count)),
            Fleet::NewestInstance => self.newest.pop_last(),
            Fleet::AnyInstance if self.any.is_empty() => None,
            Fleet::AnyInstance => Some(self.any.swap_remove(chance.usize(0..self.any.len()))),
        };
        idle.unwrap_or_else(|| {
            self.all.push(Process::new(load::skew_us(chance)));
            self.all.len() - 1
        })
    }

    /// `process` is done with its request. One that dies is not given back.
    pub fn give_back(&mut self, process: usize) {
        match self.fleet {
            Fleet::Processes(_) => {}
            Fleet::NewestInstance => drop(self.newest.insert(process)),
            Fleet::AnyInstance => self.any.push(process),
        }
    }

    pub fn get(&self, process: usize) -> &Process {
        &self.all[process]
    }

    pub fn get_mut(&mut self, process: usize) -> &mut Process {
        &mut self.all[process]
    }
}
