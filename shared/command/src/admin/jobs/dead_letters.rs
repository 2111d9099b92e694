//! Selects dead letters. SQS cannot search a queue, so every message is received and hidden for a
//! while.

use std::collections::HashSet;

use spillway::{
    queue::{DeadLetter, Queue},
    units::Millis,
};

/// Visibility timeout of received messages. They usually become visible again earlier.
const VISIBILITY_TIMEOUT: Millis = Millis::from_s(120);

/// Messages received from the queue.
pub struct Selection {
    /// Dead letters that match. They are hidden.
    pub selected: Vec<DeadLetter>,
    /// Dead letters that do not match. They are hidden too.
    pub unselected: Vec<DeadLetter>,
    /// Whether every message was received, according to the approximate count of SQS.
    pub is_complete: bool,
    /// Approximate number of messages in the queue.
    pub approximate_count: u64,
}

/// Receives up to `max_messages` messages and selects the ones for which `is_selected` holds.
///
/// # Errors
/// Returns an error if the queue is unavailable.
pub async fn select(
    queue: &Queue,
    max_messages: u32,
    is_selected: impl Fn(&DeadLetter) -> bool,
) -> anyhow::Result<Selection> {
    let approximate_count = queue.approximate_count().await?;
    let mut selection =
        Selection { selected: Vec::new(), unselected: Vec::new(), is_complete: false, approximate_count };
    let mut received = HashSet::new();
    let mut count = 0;
    while count < max_messages {
        let letters = queue.receive_dead_letters(VISIBILITY_TIMEOUT).await?;
        if letters.is_empty() {
            break;
        }
        for letter in letters.into_iter().filter(|letter| received.insert(letter.id.clone())) {
            count += 1;
            let list = if is_selected(&letter) { &mut selection.selected } else { &mut selection.unselected };
            list.push(letter);
        }
    }
    selection.is_complete = u64::from(count) >= approximate_count;
    Ok(selection)
}

impl Selection {
    /// Makes all messages visible again.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn make_visible(&self, queue: &Queue) -> anyhow::Result<()> {
        queue.make_visible(&self.selected).await?;
        queue.make_visible(&self.unselected).await?;
        Ok(())
    }
}
