//! Limits on connections, which no client can exceed.

use std::{num::NonZero, time::Duration};

use clap::Parser;
use tokio::time::Instant;

use super::wait::Pace;

/// Limits on connections, so that silent and slow clients do not exhaust the process.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ConnectionLimits {
    /// Seconds in which a new connection must send a whole request head, with its TLS handshake
    #[arg(long = "head-timeout-s", value_name = "N", default_value = "30", value_parser = seconds)]
    pub head_timeout: Duration,
    /// Seconds after which a connection is closed that has served its requests. Behind a load
    /// balancer, set it above the balancer's own idle timeout
    #[arg(long = "idle-timeout-s", value_name = "N", default_value = "30", value_parser = seconds)]
    pub idle_timeout: Duration,
    /// Seconds that a client may keep a request body waiting. Each part that it sends gains time,
    /// at the least rate
    #[arg(long = "body-timeout-s", value_name = "N", default_value = "30", value_parser = seconds)]
    pub body_timeout: Duration,
    /// Seconds that a client may leave a response unread. Each part that it reads gains time, at
    /// the least rate
    #[arg(long = "write-timeout-s", value_name = "N", default_value = "30", value_parser = seconds)]
    pub write_timeout: Duration,
    /// Least rate, in bytes per second, at which a client sends a body or reads a response
    #[arg(long, value_name = "N", default_value = "10000")]
    pub min_bytes_per_s: NonZero<u32>,
    /// Number of connections that are served at the same time. The limit on open files can lower
    /// it. A further connection takes the place of a quiet one, or waits
    #[arg(long, value_name = "N", default_value = "8000", value_parser = max_connections)]
    pub max_connections: usize,
    /// Number of connections of one client address (IPv6: of one /64 network). Others are closed at
    /// once. Only without a load balancer in front, whose addresses are few [default: no limit]
    #[arg(long, value_name = "N", value_parser = max_connections)]
    pub max_connections_per_address: Option<usize>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        #[derive(Parser)]
        struct Options {
            #[command(flatten)]
            limits: ConnectionLimits,
        }
        Options::parse_from([""]).limits
    }
}

impl ConnectionLimits {
    /// Returns the pace of a request body.
    pub fn body_pace(&self) -> Pace {
        Pace { max_wait: self.body_timeout, min_bytes_per_s: self.min_bytes_per_s }
    }

    /// Returns the pace at which responses are read.
    pub fn write_pace(&self) -> Pace {
        Pace { max_wait: self.write_timeout, min_bytes_per_s: self.min_bytes_per_s }
    }

    /// Returns when a connection that was opened at `opened` and serves no request since `now` is
    /// closed.
    pub fn quiet_until(&self, opened: Instant, now: Instant, has_served: bool) -> Instant {
        if has_served { now + self.idle_timeout } else { opened + self.head_timeout }
    }
}

/// Parses a number of seconds, from one to the number of a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "must be a whole number from 1 to 86400".to_owned())
}

fn max_connections(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| "must be a whole number from 1 to 1000000".to_owned())
}
