//! Looking through a queue that can only be received from.

use std::collections::HashSet;

use spillway::queue::{DeadLetter, Queue};

/// How long a letter is hidden from others while it is looked at, in seconds. It is shown again as soon as that is over.
const HIDDEN_S: u32 = 120;

/// What was found in a queue.
pub struct Look {
    /// The letters that were looked for. They are hidden.
    pub wanted: Vec<DeadLetter>,
    /// The others that were seen. They are hidden too.
    pub others: Vec<DeadLetter>,
    /// Whether there are no others, as far as SQS can tell.
    pub is_whole: bool,
    /// About how many letters the queue holds.
    pub about_held: u64,
}

/// Receives up to `most` letters until no more come, and takes those that `is_wanted`.
///
/// # Errors
/// The queue cannot be reached.
pub async fn look(queue: &Queue, most: u32, is_wanted: impl Fn(&DeadLetter) -> bool) -> anyhow::Result<Look> {
    let about_held = queue.about_held().await?;
    let mut look = Look { wanted: Vec::new(), others: Vec::new(), is_whole: false, about_held };
    let mut seen = HashSet::new();
    let mut count = 0;
    while count < most {
        let letters = queue.receive_letters(HIDDEN_S).await?;
        if letters.is_empty() {
            break;
        }
        for letter in letters.into_iter().filter(|letter| seen.insert(letter.id.clone())) {
            count += 1;
            let place = if is_wanted(&letter) { &mut look.wanted } else { &mut look.others };
            place.push(letter);
        }
    }
    look.is_whole = u64::from(count) >= about_held;
    Ok(look)
}

impl Look {
    /// Shows all letters again.
    ///
    /// # Errors
    /// The queue cannot be reached.
    pub async fn show_again(&self, queue: &Queue) -> anyhow::Result<()> {
        queue.show_again(&self.wanted).await?;
        queue.show_again(&self.others).await?;
        Ok(())
    }
}
