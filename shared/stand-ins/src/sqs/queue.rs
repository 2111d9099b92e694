//! Pure model of a standard queue: the visible, hidden and expired messages, and the order of
//! delivery.
//!
//! Fair delivery: of the groups with a visible message, the group with the fewest messages in
//! flight comes first, and within it the oldest message. A tie goes to the older message. A message
//! without a group forms a separate group. AWS delivers in arrival order until a group is noisy
//! (10 % and 30 in flight). Here every group counts from its first message, so that small tests
//! show the difference.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    message::{Delivery, Message},
    settings::Settings,
};

/// A queue and its messages. A message is identified by the sequence number of its send.
#[derive(Default)]
pub struct Queue {
    /// Settings, tags and times.
    pub metadata: QueueMetadata,
    messages: BTreeMap<u64, Message>,
    visible: BTreeSet<u64>,
    groups: HashMap<Group, GroupState>,
    /// Groups with a visible message, ordered by messages in flight and then by their oldest
    /// visible message.
    delivery_order: BTreeSet<(usize, u64, Group)>,
    /// Delayed and in-flight messages, ordered by the time at which they become visible.
    hidden: BTreeSet<(u64, u64)>,
    /// All messages, ordered by the time of their send.
    ages: BTreeSet<(u64, u64)>,
    in_flight: usize,
}

/// Properties of a queue other than its messages.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueueMetadata {
    /// Attributes that the owner sets.
    pub settings: Settings,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
    /// Time of the creation, in milliseconds since 1970.
    pub created_ms: u64,
    /// Time of the last change of the settings.
    pub modified_ms: u64,
    /// Time of the last purge.
    pub purged_ms: Option<u64>,
}

/// Number of messages by state.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    /// Messages that consumers can receive.
    pub visible: usize,
    /// Messages that consumers hold.
    pub in_flight: usize,
    /// Messages that are delayed.
    pub delayed: usize,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    Named(Arc<str>),
    Single(u64),
}

#[derive(Default)]
struct GroupState {
    visible: BTreeSet<u64>,
    in_flight: usize,
}

impl Queue {
    /// Creates an empty queue.
    pub fn new(metadata: QueueMetadata) -> Self {
        Self { metadata, ..Self::default() }
    }

    /// Adds a message.
    pub fn insert(&mut self, sequence: u64, message: Message, now_ms: u64) {
        self.ages.insert((message.content.sent_ms, sequence));
        self.messages.insert(sequence, message);
        self.index(sequence, now_ms);
    }

    /// Removes a message.
    pub fn remove(&mut self, sequence: u64) -> Option<Message> {
        self.unindex(sequence);
        let message = self.messages.remove(&sequence)?;
        self.ages.remove(&(message.content.sent_ms, sequence));
        Some(message)
    }

    /// Returns a message.
    pub fn get(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(&sequence)
    }

    /// Returns the sequence numbers of all messages.
    pub fn sequences(&self) -> Vec<u64> {
        self.messages.keys().copied().collect()
    }

    /// Changes the delivery state of a message.
    pub fn update(&mut self, sequence: u64, now_ms: u64, change: impl FnOnce(&mut Delivery)) {
        self.unindex(sequence);
        if let Some(message) = self.messages.get_mut(&sequence) {
            change(&mut message.delivery);
        }
        self.index(sequence, now_ms);
    }

    /// Makes messages visible whose delay or visibility timeout has ended.
    pub fn reveal_due(&mut self, now_ms: u64) {
        while let Some(&(visible_at_ms, sequence)) = self.hidden.first() {
            if visible_at_ms > now_ms {
                break;
            }
            self.unindex(sequence);
            self.index(sequence, now_ms);
        }
    }

    /// Returns the messages that are older than the retention period.
    pub fn expired(&self, now_ms: u64) -> Vec<u64> {
        let retention_ms = u64::from(self.metadata.settings.retention_s) * 1_000;
        let is_expired = |&&(sent_ms, _): &&(u64, u64)| sent_ms.saturating_add(retention_ms) <= now_ms;
        self.ages.iter().take_while(is_expired).map(|&(_, sequence)| sequence).collect()
    }

    /// Returns the next message in the order of fair delivery.
    pub fn next_message(&self) -> Option<u64> {
        self.delivery_order.first().map(|&(_, sequence, _)| sequence)
    }

    /// Returns the newest visible message of the next group, which an out-of-order delivery takes.
    pub fn newest_of_next_group(&self) -> Option<u64> {
        let (_, _, group) = self.delivery_order.first()?;
        self.groups.get(group)?.visible.last().copied()
    }

    /// Returns the oldest visible message of all groups.
    pub fn oldest_visible(&self) -> Option<u64> {
        self.visible.first().copied()
    }

    /// Returns the time at which the next hidden message becomes visible.
    pub fn next_change_ms(&self) -> Option<u64> {
        self.hidden.first().map(|&(visible_at_ms, _)| visible_at_ms)
    }

    /// Returns the number of messages by state.
    pub fn counts(&self) -> Counts {
        Counts { visible: self.visible.len(), in_flight: self.in_flight, delayed: self.hidden.len() - self.in_flight }
    }

    /// Adds a message to the indexes for its state.
    fn index(&mut self, sequence: u64, now_ms: u64) {
        let Some(message) = self.messages.get(&sequence) else { return };
        let is_in_flight = message.is_in_flight(now_ms);
        if message.is_hidden(now_ms) {
            self.hidden.insert((message.delivery.visible_at_ms, sequence));
            if is_in_flight {
                self.in_flight += 1;
                self.update_group(sequence, |group| group.in_flight += 1);
            }
        } else {
            self.visible.insert(sequence);
            self.update_group(sequence, |group| _ = group.visible.insert(sequence));
        }
    }

    /// Removes a message from the indexes that `index` added it to.
    fn unindex(&mut self, sequence: u64) {
        let Some(message) = self.messages.get(&sequence) else { return };
        let was_received = message.delivery.receive_count > 0;
        if self.hidden.remove(&(message.delivery.visible_at_ms, sequence)) {
            if was_received {
                self.in_flight -= 1;
                self.update_group(sequence, |group| group.in_flight -= 1);
            }
        } else {
            self.visible.remove(&sequence);
            self.update_group(sequence, |group| _ = group.visible.remove(&sequence));
        }
    }

    /// Changes the group of a message and updates the delivery order.
    fn update_group(&mut self, sequence: u64, change: impl FnOnce(&mut GroupState)) {
        let named = self.messages.get(&sequence).and_then(|message| message.content.group.as_deref());
        let group = named.map_or(Group::Single(sequence), |name| Group::Named(name.into()));
        let state = self.groups.entry(group.clone()).or_default();
        if let Some(&oldest) = state.visible.first() {
            self.delivery_order.remove(&(state.in_flight, oldest, group.clone()));
        }
        change(state);
        match state.visible.first() {
            Some(&oldest) => drop(self.delivery_order.insert((state.in_flight, oldest, group))),
            None if state.in_flight == 0 => drop(self.groups.remove(&group)),
            None => {}
        }
    }
}
