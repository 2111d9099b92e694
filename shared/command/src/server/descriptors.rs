//! File descriptors, which bound the number of connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Descriptors for listeners, files, and connections that serve no request.
const RESERVED: u64 = 64;

/// Descriptors of a connection: its own, and one for the call to AWS that it waits for.
const PER_CONNECTION: u64 = 2;

/// Raises the limit on descriptors as far as `wanted` connections need it and the system lets it.
/// Returns how many connections can be served: at most `wanted`.
pub fn max_connections(wanted: usize) -> usize {
    let descriptors = raise(needed(wanted));
    let max = wanted.min(possible(descriptors));
    if max < wanted {
        warn!(wanted, max, descriptors, "the limit on open files allows fewer connections");
    }
    max
}

fn needed(connections: usize) -> u64 {
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(PER_CONNECTION).saturating_add(RESERVED)
}

fn possible(descriptors: u64) -> usize {
    usize::try_from(descriptors.saturating_sub(RESERVED) / PER_CONNECTION).unwrap_or(usize::MAX).max(1)
}

/// Raises the soft limit on descriptors to `needed`, or to the hard limit. Returns the limit.
fn raise(needed: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = needed.min(limit.maximum.unwrap_or(u64::MAX));
    if raised <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(error) => {
            debug!(%error, "failed to raise the limit on open files");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_leaves_a_descriptor_for_its_call() {
        for (descriptors, connections) in [(0, 1), (65, 1), (256, 96), (1_024, 480), (65_535, 32_735)] {
            assert_eq!(possible(descriptors), connections, "{descriptors}");
        }
        for connections in [1, 480, 10_000, 1_000_000] {
            assert_eq!(possible(needed(connections)), connections);
        }
    }
}
