//! An item of the store: its attributes and its capacity.

use std::collections::HashMap;

use spillway::quota::{Image, Write};

/// Maximum writes of an item per second. Further writes are throttled; there is no burst.
const MAX_WRITES_PER_S: u64 = 1_000;

/// A simulated item.
#[derive(Debug, Default)]
pub struct Item {
    image: Image,
    second: u64,
    writes: u64,
    /// Times of death of the requests that still hold a slot, by slot.
    dead: HashMap<u64, Vec<u64>>,
}

/// Result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResult {
    Done,
    Refused,
    Throttled,
}

impl Item {
    /// Applies `write` at `now_us`.
    pub fn write(&mut self, write: &Write, now_us: u64) -> WriteResult {
        let second = now_us / 1_000_000;
        if second != self.second {
            (self.second, self.writes) = (second, 0);
        }
        if self.writes == MAX_WRITES_PER_S {
            return WriteResult::Throttled;
        }
        self.writes += 1;
        if self.image.apply(write) { WriteResult::Done } else { WriteResult::Refused }
    }

    /// Current attributes.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Records that the holder of `slot` died at `now_us`.
    pub fn died(&mut self, slot: u64, now_us: u64) {
        self.dead.entry(slot).or_default().push(now_us);
    }

    /// Records that `slot` was freed. Returns the times of death of its holders.
    pub fn freed(&mut self, slot: u64) -> Vec<u64> {
        self.dead.remove(&slot).unwrap_or_default()
    }

    /// Times of death of the requests that still hold a slot.
    pub fn still_dead(&self) -> impl Iterator<Item = u64> + '_ {
        self.dead.values().flatten().copied()
    }
}
