//! Compares the model with a reference that is simple enough to be obviously correct: a list that
//! is searched from the start.

use proptest::prelude::*;

use super::{
    DeliveryFaults,
    message::{Content, Receipt},
    queue::Queue,
    state::State,
};

const QUEUE: &str = "work";

#[derive(Debug, Clone)]
enum Step {
    Send {
        group: Option<u8>,
        delay_s: u32,
    },
    Receive {
        count: u32,
        visibility_s: u32,
    },
    /// Deletes with any receipt that was issued so far, including outdated receipts.
    Delete {
        receipt: usize,
    },
    Hide {
        receipt: usize,
        visibility_s: u32,
    },
    Wait {
        ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (proptest::option::of(0..3_u8), prop_oneof![Just(0), 0..4_u32])
            .prop_map(|(group, delay_s)| Step::Send { group, delay_s }),
        4 => (1..4_u32, 0..5_u32).prop_map(|(count, visibility_s)| Step::Receive { count, visibility_s }),
        2 => any::<usize>().prop_map(|receipt| Step::Delete { receipt }),
        1 => (any::<usize>(), 0..5_u32).prop_map(|(receipt, visibility_s)| Step::Hide { receipt, visibility_s }),
        3 => (0..3_000_u64).prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A message of the reference. Its index in the list is both its age and its name.
#[derive(Debug, Clone, Default)]
struct ReferenceMessage {
    group: Option<u8>,
    visible_at_ms: u64,
    receives: u32,
    is_deleted: bool,
}

#[derive(Default)]
struct Reference {
    messages: Vec<ReferenceMessage>,
}

impl Reference {
    fn in_flight(&self, group: Option<u8>, now_ms: u64) -> usize {
        let is_counted = |message: &&ReferenceMessage| {
            group.is_some()
                && message.group == group
                && !message.is_deleted
                && message.receives > 0
                && message.visible_at_ms > now_ms
        };
        self.messages.iter().filter(is_counted).count()
    }

    fn next(&self, received: &[usize], now_ms: u64) -> Option<usize> {
        let is_free = |index: &usize| {
            let message = &self.messages[*index];
            !message.is_deleted && message.visible_at_ms <= now_ms && !received.contains(index)
        };
        let order = |index: &usize| (self.in_flight(self.messages[*index].group, now_ms), *index);
        (0..self.messages.len()).filter(is_free).min_by_key(order)
    }

    fn receive(&mut self, count: u32, visibility_s: u32, now_ms: u64) -> Vec<usize> {
        let mut received = Vec::new();
        while let Some(index) = self.next(&received, now_ms).filter(|_| received.len() < count as usize) {
            self.messages[index].receives += 1;
            self.messages[index].visible_at_ms = now_ms + (u64::from(visibility_s) * 1_000).max(1);
            received.push(index);
        }
        for index in received.iter().filter(|_| visibility_s == 0) {
            self.messages[*index].visible_at_ms = now_ms;
        }
        received
    }
}

/// Both models, and the time until which each message is held.
struct ModelPair {
    model: State,
    reference: Reference,
    receipts: Vec<(usize, Receipt)>,
    held_until_ms: Vec<u64>,
    now_ms: u64,
}

impl ModelPair {
    fn new() -> Self {
        let mut model = State::new(DeliveryFaults::default());
        model.queues.insert(QUEUE.to_owned(), Queue::default());
        let (reference, receipts, held_until_ms) = Default::default();
        Self { model, reference, receipts, held_until_ms, now_ms: 1_000_000 }
    }

    fn apply(&mut self, step: &Step) {
        self.model.advance(self.now_ms);
        match *step {
            Step::Send { group, delay_s } => self.send(group, delay_s),
            Step::Receive { count, visibility_s } => drop(self.receive(count, visibility_s)),
            Step::Delete { receipt } => self.delete(receipt),
            Step::Hide { receipt, visibility_s } => self.hide(receipt, visibility_s),
            Step::Wait { ms } => self.now_ms += ms,
        }
        self.check_counts();
    }

    fn send(&mut self, group: Option<u8>, delay_s: u32) {
        let index = self.reference.messages.len();
        let visible_at_ms = self.now_ms + u64::from(delay_s) * 1_000;
        self.reference.messages.push(ReferenceMessage { group, visible_at_ms, ..ReferenceMessage::default() });
        self.held_until_ms.push(0);
        let content = Content {
            id: index.to_string(),
            body: index.to_string(),
            group: group.map(|group| group.to_string()),
            attributes: Default::default(),
            trace_header: None,
            sent_ms: self.now_ms,
        };
        self.model.send(QUEUE, content, delay_s, self.now_ms);
    }

    fn receive(&mut self, count: u32, visibility_s: u32) -> Vec<usize> {
        let expected = self.reference.receive(count, visibility_s, self.now_ms);
        let messages = self.model.receive(QUEUE, count, visibility_s, self.now_ms).expect("the queue exists");
        let mut indexes = Vec::new();
        for received in messages {
            let index: usize = received.message.content.id.parse().expect("ids are indexes");
            assert!(self.held_until_ms[index] <= self.now_ms, "two consumers hold message {index}");
            self.held_until_ms[index] = self.now_ms + u64::from(visibility_s) * 1_000;
            assert_eq!(received.message.delivery.receive_count, self.reference.messages[index].receives);
            self.receipts.push((index, received.receipt));
            indexes.push(index);
        }
        assert_eq!(indexes, expected);
        indexes
    }

    fn delete(&mut self, receipt: usize) {
        let Some((index, receipt)) = self.receipt(receipt) else { return };
        self.model.delete(QUEUE, &receipt);
        let message = &mut self.reference.messages[index];
        message.is_deleted |= message.receives == receipt.receive_count;
    }

    fn hide(&mut self, receipt: usize, visibility_s: u32) {
        let Some((index, receipt)) = self.receipt(receipt) else { return };
        let message = &mut self.reference.messages[index];
        let is_holder =
            !message.is_deleted && message.receives == receipt.receive_count && message.visible_at_ms > self.now_ms;
        let changed = self.model.change_visibility(QUEUE, &receipt, visibility_s, self.now_ms);
        assert_eq!(changed.is_ok(), is_holder);
        if is_holder {
            message.visible_at_ms = self.now_ms + u64::from(visibility_s) * 1_000;
            self.held_until_ms[index] = message.visible_at_ms;
        }
    }

    fn receipt(&self, number: usize) -> Option<(usize, Receipt)> {
        self.receipts.get(number.checked_rem(self.receipts.len())?).cloned()
    }

    fn check_counts(&mut self) {
        self.model.advance(self.now_ms);
        let counts = self.model.queue(QUEUE).expect("the queue exists").counts();
        let remaining = || self.reference.messages.iter().filter(|message| !message.is_deleted);
        let hidden = || remaining().filter(|message| message.visible_at_ms > self.now_ms);
        assert_eq!(counts.visible, remaining().count() - hidden().count());
        assert_eq!(counts.in_flight, hidden().filter(|message| message.receives > 0).count());
        assert_eq!(counts.delayed, hidden().filter(|message| message.receives == 0).count());
    }

    /// Waits until no message is held and receives all messages.
    fn drain(&mut self) -> Vec<usize> {
        self.now_ms += 3_600_000;
        self.model.advance(self.now_ms);
        let mut drained = Vec::new();
        loop {
            let received = self.receive(10, 600);
            if received.is_empty() {
                drained.sort_unstable();
                return drained;
            }
            drained.extend(received);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_message_is_delivered_in_fair_order_to_a_single_consumer_until_it_is_deleted(steps in steps()) {
        let mut pair = ModelPair::new();
        for step in &steps {
            pair.apply(step);
        }
        let remaining = (0..pair.reference.messages.len()).filter(|index| !pair.reference.messages[*index].is_deleted);
        let remaining: Vec<usize> = remaining.collect();
        prop_assert_eq!(pair.drain(), remaining);
    }
}

#[test]
fn more_than_120_000_messages_in_flight_are_over_the_limit() {
    let mut pair = ModelPair::new();
    for index in 0..120_001 {
        let content = Content {
            id: index.to_string(),
            body: "x".to_owned(),
            group: None,
            attributes: Default::default(),
            trace_header: None,
            sent_ms: pair.now_ms,
        };
        pair.model.send(QUEUE, content, 0, pair.now_ms);
    }
    let mut receive = |count| pair.model.receive(QUEUE, count, 30, pair.now_ms);
    assert_eq!(receive(120_000).map(|received| received.len()).ok(), Some(120_000));
    assert_eq!(receive(1).err().map(|error| error.code), Some(super::error::ErrorCode::OverLimit));
}
