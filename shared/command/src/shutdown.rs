//! Ctrl-C and SIGTERM.

use std::time::Duration;

use spillway::app::App;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Time that requests and jobs have after a signal to stop, unless an option says otherwise. It is
/// less than the 30 s after which Kubernetes and ECS end a container.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(25);

/// Time to write what a process has counted and not written yet. Together with [`STOP_TIMEOUT`] it
/// is less than these 30 s as well.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Writes what `app` has counted and not written yet, at the end of a process.
pub async fn flush(app: &App) {
    if tokio::time::timeout(FLUSH_TIMEOUT, app.refusals.flush()).await.is_err() {
        tracing::warn!("some refusals were not recorded before the end of the process");
    }
}

/// Signals that stop this process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Starts to listen for signals. Call it early, so that a signal during start-up also stops the
/// process gracefully.
///
/// # Errors
/// Returns an error if the system does not let this process handle signals.
pub fn signals() -> std::io::Result<Signals> {
    Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
}

impl Signals {
    /// Waits for a signal.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
