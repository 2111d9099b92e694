//! One moment of the model: the clock, the registry, two items, and what each process is about.

use std::collections::BTreeMap;

use spillway::quota::{Attribute, Image, Write};

/// The attributes of an item that say who runs, and under which limits. Nothing else is conditioned on where only the
/// requests in flight are limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ring(BTreeMap<Attribute, i64>);

impl Ring {
    pub fn apply(&mut self, write: &Write) -> bool {
        let mut image = self.image();
        let is_done = image.apply(write);
        self.0 = image.iter().collect();
        is_done
    }

    pub fn image(&self) -> Image {
        self.0.iter().map(|(attribute, value)| (*attribute, *value)).collect()
    }

    pub fn is_negative(&self) -> bool {
        self.0.values().any(|value| *value < 0)
    }

    pub fn count(&self) -> i64 {
        self.0.get(&Attribute::InFlight).copied().unwrap_or_default()
    }

    pub fn slots(&self) -> impl Iterator<Item = (u64, i64)> + '_ {
        self.0.iter().filter_map(|(attribute, value)| match attribute {
            Attribute::Slot(slot) => Some((*slot, *value)),
            _ => None,
        })
    }

    /// The part of `write` that is about the ring.
    pub fn part_of(mut write: Write) -> Write {
        let is_ours = |attribute| matches!(attribute, Attribute::Version | Attribute::InFlight | Attribute::Slot(_));
        write.conditions.retain(|condition| is_ours(condition.attribute()));
        write.updates.retain(|update| is_ours(update.attribute()));
        write
    }
}

/// A request that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub shard: usize,
    pub version: u64,
    /// By the clock of its process; always the last moment of its slot.
    pub expires_ms: u64,
}

/// What a process is about to free before or while it reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reap {
    pub slot: u64,
    pub count: u64,
    /// It makes no room for the reservation by itself.
    pub only_frees: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    /// It was refused by `shard`, or not asked yet; if that refuses for good, it asks the `other`.
    Asking {
        shard: usize,
        other: Option<usize>,
        is_long: bool,
        reap: Option<Reap>,
    },
    Running(Request),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// The version of the limits that it knows.
    pub version: u64,
    pub phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// How many of the model's moments have passed.
    pub moment: usize,
    /// The version of the limits in the registry.
    pub version: u64,
    /// How many items the operator's fence has reached.
    pub fenced: usize,
    pub items: [Ring; 2],
    pub processes: Vec<Process>,
    /// Requests whose process died, as long as the model may still be working for them, with the clock of that process.
    pub orphans: Vec<(usize, Request)>,
    /// A slot of the dead was freed.
    pub has_reaped: bool,
    /// Old limits admitted something on an item that the fence had reached.
    pub has_admitted_stale: bool,
}
