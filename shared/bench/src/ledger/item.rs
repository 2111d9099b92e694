//! One item of the store: its numbers, and what it can take.

use std::collections::HashMap;

use spillway::quota::{Image, Write};

/// The writes that one item takes in a second; the rest are throttled. There is no burst.
const WRITES_PER_S: u64 = 1_000;

/// One item.
#[derive(Debug, Default)]
pub struct Item {
    image: Image,
    second: u64,
    writes: u64,
    /// When those died that still hold a slot, by slot.
    dead: HashMap<u64, Vec<u64>>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    Done,
    Refused,
    Throttled,
}

impl Item {
    /// Runs `write` at `now_us`.
    pub fn write(&mut self, write: &Write, now_us: u64) -> Landed {
        let second = now_us / 1_000_000;
        if second != self.second {
            (self.second, self.writes) = (second, 0);
        }
        if self.writes == WRITES_PER_S {
            return Landed::Throttled;
        }
        self.writes += 1;
        if self.image.apply(write) { Landed::Done } else { Landed::Refused }
    }

    /// What it holds.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Who holds `slot` died at `now_us`.
    pub fn died(&mut self, slot: u64, now_us: u64) {
        self.dead.entry(slot).or_default().push(now_us);
    }

    /// `slot` was freed; when each of those died that had held it.
    pub fn freed(&mut self, slot: u64) -> Vec<u64> {
        self.dead.remove(&slot).unwrap_or_default()
    }

    /// When each of those died that still hold a slot.
    pub fn still_dead(&self) -> impl Iterator<Item = u64> + '_ {
        self.dead.values().flatten().copied()
    }
}
