//! All queues together as a pure model: sends, receives, acknowledgements and redrives, with time as an argument.
//!
//! Whatever changes is noted in `changes`, from which the journal writes.

use std::collections::BTreeMap;

use super::{
    Faults, Struck,
    error::{Error, Fault},
    message::{Content, Delivery, Message, Receipt},
    moves::MoveTask,
    queue::Queue,
    settings::{arn_of_queue, queue_of_arn},
};

/// A message stays hidden for at most this long after a receive.
const MAX_VISIBILITY_MS: u64 = 43_200_000;
/// How many messages of a standard queue may be in flight.
const MAX_IN_FLIGHT: usize = 120_000;

/// The queues, the move tasks and what has changed since the journal last looked.
#[derive(Default)]
pub struct State {
    pub queues: BTreeMap<String, Queue>,
    pub tasks: Vec<MoveTask>,
    pub changes: Vec<Change>,
    next_sequence: u64,
    /// How often faults struck.
    pub struck: Struck,
    faults: Faults,
    dice: u64,
}

/// Something to be written down; the details are read from the state.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Queue(String),
    QueueGone(String),
    /// A message with this sequence number is new in this queue.
    Arrived(u64, String),
    /// What deliveries change has changed.
    Touched(u64, String),
    Gone(u64),
    Task(String),
}

/// One receive of one message.
pub struct Received {
    pub receipt: Receipt,
    pub message: Message,
}

impl State {
    pub fn new(faults: Faults) -> Self {
        // A xorshift generator must not start from zero.
        Self { dice: faults.seed | 1, faults, ..Self::default() }
    }

    /// Puts back a message that was written down earlier.
    pub fn restore(&mut self, queue: &str, sequence: u64, message: Message, now_ms: u64) {
        self.next_sequence = self.next_sequence.max(sequence + 1);
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.insert(sequence, message, now_ms);
        }
    }

    /// Brings everything up to `now_ms`: delays and visibility timeouts end, old messages go, move tasks move.
    pub fn advance(&mut self, now_ms: u64) {
        for queue in self.queues.values_mut() {
            queue.reveal(now_ms);
            for sequence in queue.expired(now_ms) {
                queue.remove(sequence);
                self.changes.push(Change::Gone(sequence));
            }
        }
        self.step_move_tasks(now_ms);
    }

    pub fn queue(&self, name: &str) -> Result<&Queue, Error> {
        self.queues.get(name).ok_or_else(Error::no_such_queue)
    }

    /// A queue whose settings are about to change.
    pub fn queue_mut(&mut self, name: &str) -> Result<&mut Queue, Error> {
        self.changes.push(Change::Queue(name.to_owned()));
        self.queues.get_mut(name).ok_or_else(Error::no_such_queue)
    }

    pub fn send(&mut self, queue: &str, content: Content, delay_s: u32, now_ms: u64) {
        let visible_at_ms = now_ms + u64::from(delay_s) * 1_000;
        let delivery = Delivery { visible_at_ms, ..Delivery::default() };
        self.insert(queue, Message { content: content.into(), delivery }, now_ms);
    }

    /// Takes up to `count` messages in their turn and hides them for `visibility_s`. On the way, a message that has been
    /// received often enough goes to the dead-letter queue.
    pub fn receive(&mut self, name: &str, count: u32, visibility_s: u32, now_ms: u64) -> Result<Vec<Received>, Error> {
        let counts = self.queue(name)?.counts();
        if counts.visible > 0 && counts.in_flight >= MAX_IN_FLIGHT {
            return Err(Error::new(Fault::OverLimit, "Too many messages in flight."));
        }
        let mut taken = Vec::new();
        let mut received = Vec::new();
        while received.len() < count as usize {
            let Some(sequence) = self.pick(name)? else { break };
            if let Some(target) = self.dead_letter_queue(name, sequence) {
                self.redrive(name, sequence, &target, now_ms);
            } else if let Some(delivered) = self.deliver(name, sequence, visibility_s, now_ms) {
                taken.push(sequence);
                received.push(delivered);
            }
        }
        for sequence in taken {
            let is_duplicated = self.roll(self.faults.duplicate_permille);
            self.struck.duplicated += u64::from(is_duplicated);
            if visibility_s == 0 || is_duplicated {
                self.touch(name, sequence, now_ms, |delivery| delivery.visible_at_ms = now_ms);
            }
        }
        Ok(received)
    }

    /// Deletes the message if this is its newest receipt. An older receipt changes nothing and is no error.
    pub fn delete(&mut self, queue: &str, receipt: &Receipt) {
        if !self.is_current(queue, receipt) {
            return;
        }
        if self.roll(self.faults.undeleted_permille) {
            self.struck.undeleted += 1;
        } else {
            self.remove(queue, receipt.sequence);
        }
    }

    /// Hides the message for `visibility_s` from now; only for its newest receipt, and only while it is in flight.
    pub fn change_visibility(
        &mut self,
        queue: &str,
        receipt: &Receipt,
        visibility_s: u32,
        now_ms: u64,
    ) -> Result<(), Error> {
        let current = self.is_current(queue, receipt);
        let Some(message) = self.queue(queue)?.get(receipt.sequence).filter(|_| current) else {
            let reason = "Message does not exist or is not available for visibility timeout change.";
            return Err(Error::invalid_value("ReceiptHandle", receipt.to_handle(), reason));
        };
        if !message.is_in_flight(now_ms) {
            return Err(Error::new(Fault::MessageNotInflight, "The message referred to isn't in flight."));
        }
        let visible_at_ms = now_ms + u64::from(visibility_s) * 1_000;
        let received_ms = message.delivery.last_received_ms.unwrap_or(now_ms);
        if visible_at_ms.saturating_sub(received_ms) > MAX_VISIBILITY_MS {
            let reason = "Total VisibilityTimeout for the message is beyond the limit [43200 seconds].";
            return Err(Error::invalid_value("VisibilityTimeout", visibility_s, reason));
        }
        self.touch(queue, receipt.sequence, now_ms, |delivery| delivery.visible_at_ms = visible_at_ms);
        Ok(())
    }

    /// Removes all messages of a queue.
    pub fn purge(&mut self, name: &str) {
        for sequence in self.queues.get(name).map(Queue::sequences).unwrap_or_default() {
            self.remove(name, sequence);
        }
    }

    /// When a receive from this queue may find something it does not find now.
    pub fn next_change_ms(&self, name: &str, now_ms: u64) -> Option<u64> {
        let reveal_ms = self.queues.get(name).and_then(Queue::next_change_ms);
        self.tasks.iter().filter_map(|task| task.next_step_ms(now_ms)).chain(reveal_ms).min()
    }

    pub(super) fn insert(&mut self, name: &str, message: Message, now_ms: u64) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if let Some(queue) = self.queues.get_mut(name) {
            queue.insert(sequence, message, now_ms);
            self.changes.push(Change::Arrived(sequence, name.to_owned()));
        }
    }

    pub(super) fn remove(&mut self, name: &str, sequence: u64) -> Option<Message> {
        let message = self.queues.get_mut(name)?.remove(sequence)?;
        self.changes.push(Change::Gone(sequence));
        Some(message)
    }

    fn touch(&mut self, name: &str, sequence: u64, now_ms: u64, change: impl FnOnce(&mut Delivery)) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.update(sequence, now_ms, change);
            self.changes.push(Change::Touched(sequence, name.to_owned()));
        }
    }

    fn pick(&mut self, name: &str) -> Result<Option<u64>, Error> {
        let is_out_of_order = self.roll(self.faults.out_of_order_permille);
        self.struck.out_of_order += u64::from(is_out_of_order);
        let queue = self.queue(name)?;
        Ok(if is_out_of_order { queue.newest_in_turn() } else { queue.next_in_turn() })
    }

    fn deliver(&mut self, name: &str, sequence: u64, visibility_s: u32, now_ms: u64) -> Option<Received> {
        // At least a millisecond, so that one call does not return one message twice.
        let visible_at_ms = now_ms + (u64::from(visibility_s) * 1_000).max(1);
        self.touch(name, sequence, now_ms, |delivery| {
            delivery.visible_at_ms = visible_at_ms;
            delivery.receive_count = delivery.receive_count.saturating_add(1);
            delivery.first_received_ms.get_or_insert(now_ms);
            delivery.last_received_ms = Some(now_ms);
        });
        let message = self.queues.get(name)?.get(sequence)?.clone();
        let receipt = Receipt {
            queue: name.to_owned(),
            sequence,
            message_id: message.content.id.clone(),
            receive_count: message.delivery.receive_count,
        };
        Some(Received { receipt, message })
    }

    /// Where the message has to go instead of being delivered again. A dead-letter queue that no longer exists, or that
    /// is the queue itself, takes nothing.
    fn dead_letter_queue(&self, name: &str, sequence: u64) -> Option<String> {
        let queue = self.queues.get(name)?;
        let redrive = queue.about.settings.redrive.as_ref()?;
        let target = redrive.target().filter(|target| *target != name && self.queues.contains_key(*target))?;
        let receive_count = queue.get(sequence)?.delivery.receive_count;
        (receive_count >= redrive.max_receive_count).then(|| target.to_owned())
    }

    fn redrive(&mut self, name: &str, sequence: u64, target: &str, now_ms: u64) {
        let Some(mut message) = self.remove(name, sequence) else { return };
        message.delivery.source_arn = Some(arn_of_queue(name));
        self.insert(target, message, now_ms);
    }

    fn is_current(&self, queue: &str, receipt: &Receipt) -> bool {
        let message = self.queues.get(queue).and_then(|queue| queue.get(receipt.sequence));
        message.is_some_and(|message| {
            receipt.queue == queue
                && message.content.id == receipt.message_id
                && message.delivery.receive_count == receipt.receive_count
        })
    }

    /// True in `permille` of 1,000 cases.
    fn roll(&mut self, permille: u16) -> bool {
        if permille == 0 {
            return false;
        }
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 1_000 < u64::from(permille)
    }
}

/// Whether some queue sends its failures to this one.
pub fn is_dead_letter_queue(queues: &BTreeMap<String, Queue>, arn: &str) -> bool {
    queues.values().any(|queue| targets(queue, arn))
}

/// Whether a queue's redrive policy names this ARN, in whatever region.
pub fn targets(queue: &Queue, arn: &str) -> bool {
    let target = queue.about.settings.redrive.as_ref().and_then(|redrive| redrive.target());
    target.is_some() && target == queue_of_arn(arn)
}
