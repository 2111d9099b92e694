//! A stand-in for Amazon SQS on the wire: standard queues with fair delivery, delays, visibility timeouts, dead-letter
//! queues and move tasks, over the AWS JSON protocol.
//!
//! `protocol` speaks HTTP and JSON, `operations` has one function per SQS operation, `state` and `queue` are the pure
//! model, `journal` makes it durable. Signatures are not verified, and `GET /_sim/stats` tells how
//! often each operation was asked for.

mod checks;
mod digest;
mod error;
mod journal;
mod message;
mod moves;
mod operations;
mod protocol;
mod queue;
mod service;
mod settings;
mod state;

#[cfg(test)]
mod model_tests;

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, connections};
use service::Service;

/// How the stand-in behaves.
#[derive(Default)]
pub struct Options {
    /// The time that delays, visibility timeouts, long polls and retention follow.
    pub clock: Clock,
    /// The directory of `sqs.sqlite`, in which everything survives a killed process; in memory when absent.
    pub data: Option<PathBuf>,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

/// Faults of delivery that AWS allows itself, each in so many of 1,000 cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// A received message stays visible, so that another consumer gets it as well.
    pub duplicate_permille: u16,
    /// A delete is acknowledged, but the message comes back when its visibility timeout ends.
    pub undeleted_permille: u16,
    /// A receive takes the newest message of the group instead of the oldest.
    pub out_of_order_permille: u16,
    /// Makes the choice of cases repeatable.
    pub seed: u64,
}

/// How often each kind of fault struck: `GET /_sim/faults`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Struck {
    /// Messages that stayed visible although they were received.
    pub duplicated: u64,
    /// Deletes without effect.
    pub undeleted: u64,
    /// Receives of a newest message.
    pub out_of_order: u64,
}

/// Serves SQS on `listener` until `shutdown`. Long polls then end empty, other requests get their reply.
///
/// # Errors
/// When the data directory cannot be used, for instance because another process has it open.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let service = Arc::new(Service::open(options, shutdown.clone())?);
    connections::serve(listener, shutdown, move |request| protocol::answer(service.clone(), request)).await;
    Ok(())
}
