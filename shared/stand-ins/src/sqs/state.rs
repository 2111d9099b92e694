//! Pure model of all queues: sends, receives, acknowledgements and redrives, with the time as an
//! argument.
//!
//! Each change is recorded in `changes`, from which the journal is written.

use std::collections::BTreeMap;

use super::{
    DeliveryFaults, FaultCounts,
    error::{Error, ErrorCode},
    message::{Content, Delivery, Message, Receipt},
    move_task::MoveTask,
    queue::Queue,
    settings::{queue_arn, queue_name_from_arn},
};

/// Maximum time for which a message stays hidden after a receive.
const MAX_VISIBILITY_MS: u64 = 43_200_000;
/// Maximum number of messages of a standard queue in flight.
const MAX_IN_FLIGHT: usize = 120_000;

/// The queues, the move tasks and the changes since the last write of the journal.
#[derive(Default)]
pub struct State {
    /// Queues by name.
    pub queues: BTreeMap<String, Queue>,
    /// Move tasks in the order of their start.
    pub tasks: Vec<MoveTask>,
    /// Changes that the journal has not written.
    pub changes: Vec<Change>,
    next_sequence: u64,
    /// Number of injected faults.
    pub struck: FaultCounts,
    faults: DeliveryFaults,
    random_state: u64,
}

/// A change to write to the journal. The journal reads the details from the state.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// A queue was created or its metadata changed.
    QueueUpdated(String),
    /// A queue was deleted.
    QueueDeleted(String),
    /// The message with this sequence number was added to this queue.
    MessageAdded(u64, String),
    /// The delivery state of a message changed.
    DeliveryUpdated(u64, String),
    /// A message was deleted.
    MessageDeleted(u64),
    /// A move task was created or changed.
    TaskUpdated(String),
}

/// A message that was received.
pub struct Received {
    /// Receipt for the acknowledgement.
    pub receipt: Receipt,
    /// Copy of the message.
    pub message: Message,
}

impl State {
    /// Creates an empty state.
    pub fn new(faults: DeliveryFaults) -> Self {
        // A xorshift generator must not start from zero.
        Self { random_state: faults.seed | 1, faults, ..Self::default() }
    }

    /// Adds a message that the journal had stored.
    pub fn restore(&mut self, queue: &str, sequence: u64, message: Message, now_ms: u64) {
        self.next_sequence = self.next_sequence.max(sequence + 1);
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.insert(sequence, message, now_ms);
        }
    }

    /// Applies the passage of time until `now_ms`: ends delays and visibility timeouts, deletes
    /// expired messages and advances move tasks.
    pub fn advance(&mut self, now_ms: u64) {
        for queue in self.queues.values_mut() {
            queue.reveal_due(now_ms);
            for sequence in queue.expired(now_ms) {
                queue.remove(sequence);
                self.changes.push(Change::MessageDeleted(sequence));
            }
        }
        self.advance_move_tasks(now_ms);
    }

    /// Returns a queue.
    ///
    /// # Errors
    /// Returns an error if the queue does not exist.
    pub fn queue(&self, name: &str) -> Result<&Queue, Error> {
        self.queues.get(name).ok_or_else(Error::no_such_queue)
    }

    /// Returns a queue to change its metadata, and records the change.
    ///
    /// # Errors
    /// Returns an error if the queue does not exist.
    pub fn queue_mut(&mut self, name: &str) -> Result<&mut Queue, Error> {
        self.changes.push(Change::QueueUpdated(name.to_owned()));
        self.queues.get_mut(name).ok_or_else(Error::no_such_queue)
    }

    /// Adds a new message to a queue.
    pub fn send(&mut self, queue: &str, content: Content, delay_s: u32, now_ms: u64) {
        let visible_at_ms = now_ms + u64::from(delay_s) * 1_000;
        let delivery = Delivery { visible_at_ms, ..Delivery::default() };
        self.insert(queue, Message { content: content.into(), delivery }, now_ms);
    }

    /// Receives up to `count` messages in the order of fair delivery and hides them for
    /// `visibility_s` seconds. A message that has reached the maximum number of receives moves to
    /// the dead-letter queue instead.
    ///
    /// # Errors
    /// Returns an error if the queue does not exist or has too many messages in flight.
    pub fn receive(&mut self, name: &str, count: u32, visibility_s: u32, now_ms: u64) -> Result<Vec<Received>, Error> {
        let counts = self.queue(name)?.counts();
        if counts.visible > 0 && counts.in_flight >= MAX_IN_FLIGHT {
            return Err(Error::new(ErrorCode::OverLimit, "Too many messages in flight."));
        }
        let mut taken = Vec::new();
        let mut received = Vec::new();
        while received.len() < count as usize {
            let Some(sequence) = self.pick_message(name)? else { break };
            if let Some(target) = self.dead_letter_queue(name, sequence) {
                self.redrive(name, sequence, &target, now_ms);
            } else if let Some(delivered) = self.deliver(name, sequence, visibility_s, now_ms) {
                taken.push(sequence);
                received.push(delivered);
            }
        }
        for sequence in taken {
            let is_duplicated = self.draw(self.faults.duplicate_permille);
            self.struck.duplicated += u64::from(is_duplicated);
            if visibility_s == 0 || is_duplicated {
                self.update_delivery(name, sequence, now_ms, |delivery| delivery.visible_at_ms = now_ms);
            }
        }
        Ok(received)
    }

    /// Deletes the message if this is its newest receipt. An older receipt is ignored without an
    /// error.
    pub fn delete(&mut self, queue: &str, receipt: &Receipt) {
        if !self.is_current(queue, receipt) {
            return;
        }
        if self.draw(self.faults.undeleted_permille) {
            self.struck.undeleted += 1;
        } else {
            self.remove(queue, receipt.sequence);
        }
    }

    /// Hides the message for `visibility_s` seconds from now.
    ///
    /// # Errors
    /// Returns an error if this is not its newest receipt, if the message is not in flight, or if
    /// it would stay hidden for too long.
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
            return Err(Error::new(ErrorCode::MessageNotInflight, "The message referred to isn't in flight."));
        }
        let visible_at_ms = now_ms + u64::from(visibility_s) * 1_000;
        let received_ms = message.delivery.last_received_ms.unwrap_or(now_ms);
        if visible_at_ms.saturating_sub(received_ms) > MAX_VISIBILITY_MS {
            let reason = "Total VisibilityTimeout for the message is beyond the limit [43200 seconds].";
            return Err(Error::invalid_value("VisibilityTimeout", visibility_s, reason));
        }
        self.update_delivery(queue, receipt.sequence, now_ms, |delivery| delivery.visible_at_ms = visible_at_ms);
        Ok(())
    }

    /// Deletes all messages of a queue.
    pub fn purge(&mut self, name: &str) {
        for sequence in self.queues.get(name).map(Queue::sequences).unwrap_or_default() {
            self.remove(name, sequence);
        }
    }

    /// Returns the next time at which a receive from this queue may find more messages.
    pub fn next_change_ms(&self, name: &str, now_ms: u64) -> Option<u64> {
        let reveal_ms = self.queues.get(name).and_then(Queue::next_change_ms);
        self.tasks.iter().filter_map(|task| task.next_step_ms(now_ms)).chain(reveal_ms).min()
    }

    /// Adds a message with the next sequence number.
    pub(super) fn insert(&mut self, name: &str, message: Message, now_ms: u64) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if let Some(queue) = self.queues.get_mut(name) {
            queue.insert(sequence, message, now_ms);
            self.changes.push(Change::MessageAdded(sequence, name.to_owned()));
        }
    }

    /// Removes a message.
    pub(super) fn remove(&mut self, name: &str, sequence: u64) -> Option<Message> {
        let message = self.queues.get_mut(name)?.remove(sequence)?;
        self.changes.push(Change::MessageDeleted(sequence));
        Some(message)
    }

    fn update_delivery(&mut self, name: &str, sequence: u64, now_ms: u64, change: impl FnOnce(&mut Delivery)) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.update(sequence, now_ms, change);
            self.changes.push(Change::DeliveryUpdated(sequence, name.to_owned()));
        }
    }

    fn pick_message(&mut self, name: &str) -> Result<Option<u64>, Error> {
        let is_out_of_order = self.draw(self.faults.out_of_order_permille);
        self.struck.out_of_order += u64::from(is_out_of_order);
        let queue = self.queue(name)?;
        Ok(if is_out_of_order { queue.newest_of_next_group() } else { queue.next_message() })
    }

    fn deliver(&mut self, name: &str, sequence: u64, visibility_s: u32, now_ms: u64) -> Option<Received> {
        // At least a millisecond, so that a call does not return the same message twice.
        let visible_at_ms = now_ms + (u64::from(visibility_s) * 1_000).max(1);
        self.update_delivery(name, sequence, now_ms, |delivery| {
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

    /// Returns the dead-letter queue for a message that has reached the maximum number of receives.
    /// A queue that does not exist, or that is the queue itself, is ignored.
    fn dead_letter_queue(&self, name: &str, sequence: u64) -> Option<String> {
        let queue = self.queues.get(name)?;
        let redrive = queue.metadata.settings.redrive.as_ref()?;
        let target = redrive.target().filter(|target| *target != name && self.queues.contains_key(*target))?;
        let receive_count = queue.get(sequence)?.delivery.receive_count;
        (receive_count >= redrive.max_receive_count).then(|| target.to_owned())
    }

    fn redrive(&mut self, name: &str, sequence: u64, target: &str, now_ms: u64) {
        let Some(mut message) = self.remove(name, sequence) else { return };
        message.delivery.source_arn = Some(queue_arn(name));
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

    /// Returns true in `permille` of 1,000 cases.
    fn draw(&mut self, permille: u16) -> bool {
        if permille == 0 {
            return false;
        }
        self.random_state ^= self.random_state << 13;
        self.random_state ^= self.random_state >> 7;
        self.random_state ^= self.random_state << 17;
        self.random_state % 1_000 < u64::from(permille)
    }
}

/// Returns whether any queue uses the queue with this ARN as its dead-letter queue.
pub fn is_dead_letter_queue(queues: &BTreeMap<String, Queue>, arn: &str) -> bool {
    queues.values().any(|queue| has_redrive_target(queue, arn))
}

/// Returns whether the redrive policy of a queue names this ARN, in any region.
pub fn has_redrive_target(queue: &Queue, arn: &str) -> bool {
    let target = queue.metadata.settings.redrive.as_ref().and_then(|redrive| redrive.target());
    target.is_some() && target == queue_name_from_arn(arn)
}
