//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask this process to stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Listens from now on, so that a signal which comes while the process starts still stops it gracefully.
///
/// # Errors
/// The system does not let this process handle signals.
pub fn signals() -> std::io::Result<Signals> {
    Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
}

impl Signals {
    /// Returns when the process is asked to stop.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
