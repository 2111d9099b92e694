//! How many calls the jobs of this process make to a pool at the same time.

mod permits;
mod window;

pub use permits::{Pacing, Place, Run};
pub use window::{Blocked, End, Entry, LARGEST_SIZE, Turns, Window};
