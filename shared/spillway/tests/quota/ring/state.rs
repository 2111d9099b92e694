//! State of the model: the clock, the registry, two items, and the processes.

use std::collections::BTreeMap;

use spillway::quota::{Attribute, Image, Write};

/// Attributes of an item for requests in flight and the version of the limits. If only requests in
/// flight are limited, no write has a condition on other attributes.
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

    /// Returns the part of `write` that concerns the ring.
    pub fn part_of(mut write: Write) -> Write {
        let is_of_ring = |attribute| matches!(attribute, Attribute::Version | Attribute::InFlight | Attribute::Slot(_));
        write.conditions.retain(|condition| is_of_ring(condition.attribute()));
        write.updates.retain(|update| is_of_ring(update.attribute()));
        write
    }
}

/// An admitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub shard: usize,
    pub version: u64,
    /// Expiry by the clock of its process; always the last moment of its slot.
    pub expires_ms: u64,
}

/// Slot that a process frees before or while it reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reap {
    pub slot: u64,
    pub count: u64,
    /// The write only frees the slot.
    pub only_frees: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    /// It tries `shard`. If that refuses, it tries the `other`.
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
    /// Version of the limits that it knows.
    pub version: u64,
    pub phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Number of moments that have passed.
    pub moment: usize,
    /// Version of the limits in the registry.
    pub version: u64,
    /// Number of items that the operator's fence has reached.
    pub fenced: usize,
    pub items: [Ring; 2],
    pub processes: Vec<Process>,
    /// Requests of dead processes that may still run at the model, with the clock of the process.
    pub orphans: Vec<(usize, Request)>,
    /// Whether a dead slot was freed.
    pub has_reaped: bool,
    /// Whether an item that the fence had reached admitted a request under old limits.
    pub has_admitted_stale: bool,
}
