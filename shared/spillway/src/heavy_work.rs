//! Work that keeps a CPU busy for milliseconds, such as parsing a large body.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Size from which on work on a body is heavy.
const MIN_HEAVY_BYTES: usize = 256 * 1024;

/// Does `work` on a body of `bytes`. If that is much, the other tasks of this worker thread move to
/// another thread first. A runtime of one thread has no other thread.
pub fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_threads = || Handle::try_current().is_ok_and(|runtime| is_multi_thread(&runtime));
    if bytes >= MIN_HEAVY_BYTES && has_threads() { tokio::task::block_in_place(work) } else { work() }
}

fn is_multi_thread(runtime: &Handle) -> bool {
    runtime.runtime_flavor() == RuntimeFlavor::MultiThread
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Runs heavy work that ends only after another task of the same worker thread has run.
    async fn wait_for_another_task() -> bool {
        let (sender, receiver) = mpsc::channel();
        let heavy = tokio::spawn(async move {
            tokio::spawn(async move { sender.send(()) });
            run(MIN_HEAVY_BYTES, || receiver.recv().is_ok())
        });
        heavy.await.expect("no panic")
    }

    #[test]
    fn heavy_work_does_not_stop_other_tasks() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        assert!(runtime.block_on(wait_for_another_task()));
    }

    #[test]
    fn heavy_work_runs_in_each_runtime_and_without_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(async { run(MIN_HEAVY_BYTES, || 7) }), 7);
        assert_eq!(run(MIN_HEAVY_BYTES, || 7), 7);
    }
}
