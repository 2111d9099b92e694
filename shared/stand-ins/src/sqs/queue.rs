//! One standard queue as a pure model: which messages are visible, hidden or too old, and whose turn it is.
//!
//! Fair delivery: among the groups with a visible message the one with the fewest in flight is served first, its oldest
//! message first; between equals the older message wins. A message without a group is a group of its own. AWS keeps to
//! arrival order until a group is noisy (10 % and 30 in flight); here every group counts from its first message, so that
//! small tests see the difference.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    message::{Delivery, Message},
    settings::Settings,
};

/// A queue and its messages, which are known by the sequence number of their send.
#[derive(Default)]
pub struct Queue {
    pub about: About,
    messages: BTreeMap<u64, Message>,
    visible: BTreeSet<u64>,
    groups: HashMap<Group, GroupState>,
    /// The groups that have a visible message, by messages in flight and then by their oldest visible message.
    turns: BTreeSet<(usize, u64, Group)>,
    /// Delayed and in-flight messages by the moment they become visible.
    hidden: BTreeSet<(u64, u64)>,
    /// All messages by the moment of their send.
    ages: BTreeSet<(u64, u64)>,
    in_flight: usize,
}

/// What there is to say about a queue apart from its messages.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct About {
    pub settings: Settings,
    pub tags: BTreeMap<String, String>,
    pub created_ms: u64,
    pub modified_ms: u64,
    pub purged_ms: Option<u64>,
}

/// How many messages are in which state.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    pub visible: usize,
    pub in_flight: usize,
    pub delayed: usize,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    Named(Arc<str>),
    Alone(u64),
}

#[derive(Default)]
struct GroupState {
    visible: BTreeSet<u64>,
    in_flight: usize,
}

impl Queue {
    pub fn new(about: About) -> Self {
        Self { about, ..Self::default() }
    }

    pub fn insert(&mut self, sequence: u64, message: Message, now_ms: u64) {
        self.ages.insert((message.content.sent_ms, sequence));
        self.messages.insert(sequence, message);
        self.place(sequence, now_ms);
    }

    pub fn remove(&mut self, sequence: u64) -> Option<Message> {
        self.displace(sequence);
        let message = self.messages.remove(&sequence)?;
        self.ages.remove(&(message.content.sent_ms, sequence));
        Some(message)
    }

    pub fn get(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(&sequence)
    }

    pub fn sequences(&self) -> Vec<u64> {
        self.messages.keys().copied().collect()
    }

    /// Changes what deliveries change, and with it the message's place.
    pub fn update(&mut self, sequence: u64, now_ms: u64, change: impl FnOnce(&mut Delivery)) {
        self.displace(sequence);
        if let Some(message) = self.messages.get_mut(&sequence) {
            change(&mut message.delivery);
        }
        self.place(sequence, now_ms);
    }

    /// Makes visible what is due: delays and visibility timeouts that have ended.
    pub fn reveal(&mut self, now_ms: u64) {
        while let Some(&(visible_at_ms, sequence)) = self.hidden.first() {
            if visible_at_ms > now_ms {
                break;
            }
            self.displace(sequence);
            self.place(sequence, now_ms);
        }
    }

    /// The messages that have outlived the retention period.
    pub fn expired(&self, now_ms: u64) -> Vec<u64> {
        let retention_ms = u64::from(self.about.settings.retention_s) * 1_000;
        let is_expired = |&&(sent_ms, _): &&(u64, u64)| sent_ms.saturating_add(retention_ms) <= now_ms;
        self.ages.iter().take_while(is_expired).map(|&(_, sequence)| sequence).collect()
    }

    /// The message whose turn it is.
    pub fn next_in_turn(&self) -> Option<u64> {
        self.turns.first().map(|&(_, sequence, _)| sequence)
    }

    /// The newest visible message of the group whose turn it is: what an out-of-order delivery picks.
    pub fn newest_in_turn(&self) -> Option<u64> {
        let (_, _, group) = self.turns.first()?;
        self.groups.get(group)?.visible.last().copied()
    }

    /// The oldest visible message, whatever its group.
    pub fn oldest_visible(&self) -> Option<u64> {
        self.visible.first().copied()
    }

    /// When the next hidden message becomes visible.
    pub fn next_change_ms(&self) -> Option<u64> {
        self.hidden.first().map(|&(visible_at_ms, _)| visible_at_ms)
    }

    pub fn counts(&self) -> Counts {
        Counts { visible: self.visible.len(), in_flight: self.in_flight, delayed: self.hidden.len() - self.in_flight }
    }

    fn place(&mut self, sequence: u64, now_ms: u64) {
        let Some(message) = self.messages.get(&sequence) else { return };
        let is_in_flight = message.is_in_flight(now_ms);
        if message.is_hidden(now_ms) {
            self.hidden.insert((message.delivery.visible_at_ms, sequence));
            if is_in_flight {
                self.in_flight += 1;
                self.in_group(sequence, |group| group.in_flight += 1);
            }
        } else {
            self.visible.insert(sequence);
            self.in_group(sequence, |group| _ = group.visible.insert(sequence));
        }
    }

    /// Takes a message out of the place that `place` has put it in.
    fn displace(&mut self, sequence: u64) {
        let Some(message) = self.messages.get(&sequence) else { return };
        let was_received = message.delivery.receive_count > 0;
        if self.hidden.remove(&(message.delivery.visible_at_ms, sequence)) {
            if was_received {
                self.in_flight -= 1;
                self.in_group(sequence, |group| group.in_flight -= 1);
            }
        } else {
            self.visible.remove(&sequence);
            self.in_group(sequence, |group| _ = group.visible.remove(&sequence));
        }
    }

    /// Changes the group of a message and gives the group its new turn.
    fn in_group(&mut self, sequence: u64, change: impl FnOnce(&mut GroupState)) {
        let named = self.messages.get(&sequence).and_then(|message| message.content.group.as_deref());
        let group = named.map_or(Group::Alone(sequence), |name| Group::Named(name.into()));
        let state = self.groups.entry(group.clone()).or_default();
        if let Some(&oldest) = state.visible.first() {
            self.turns.remove(&(state.in_flight, oldest, group.clone()));
        }
        change(state);
        match state.visible.first() {
            Some(&oldest) => drop(self.turns.insert((state.in_flight, oldest, group))),
            None if state.in_flight == 0 => drop(self.groups.remove(&group)),
            None => {}
        }
    }
}
