//! Stand-in for Amazon SQS on the wire: standard queues with fair delivery, delays, visibility
//! timeouts, dead-letter queues and move tasks, over the AWS JSON protocol.
//!
//! `protocol` handles HTTP and JSON, `operations` has one function per SQS operation, `state` and
//! `queue` are the pure model, and `journal` makes it durable. Signatures are not verified.
//! `GET /_sim/stats` returns the number of requests per operation. `/_sim/faults` has the faults.

mod digest;
mod error;
mod journal;
mod message;
mod move_task;
mod operations;
mod protocol;
mod queue;
mod service;
mod settings;
mod state;
mod validate;

#[cfg(test)]
mod model_tests;

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, connections, faults::Faults};
use service::Service;

/// Settings of the SQS stand-in.
#[derive(Default)]
pub struct Options {
    /// Clock for delays, visibility timeouts, long polls and retention.
    pub clock: Clock,
    /// Directory of `sqs.sqlite`, whose content survives a killed process; in memory if absent.
    pub data: Option<PathBuf>,
    /// Faults of delivery to inject.
    pub faults: DeliveryFaults,
    /// Faults that strike requests.
    pub request_faults: Faults,
}

/// Delivery faults that the documentation of SQS permits. Rates are in permille.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryFaults {
    /// A received message stays visible, so that another consumer also receives it.
    pub duplicate_permille: u16,
    /// A delete is acknowledged, but the message becomes visible again after its visibility
    /// timeout.
    pub undeleted_permille: u16,
    /// A receive takes the newest message of the group instead of the oldest.
    pub out_of_order_permille: u16,
    /// Seed that makes the choice of cases repeatable.
    pub seed: u64,
}

/// Number of injected faults by kind: the response to `GET /_sim/faults`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FaultCounts {
    /// Received messages that stayed visible.
    pub duplicated: u64,
    /// Deletes without effect.
    pub undeleted: u64,
    /// Receives of the newest message.
    pub out_of_order: u64,
}

/// Serves SQS on `listener` until `shutdown`. Long polls then return no messages, and other
/// requests in flight complete.
///
/// # Errors
/// Returns an error if the data directory cannot be used, for example because another process has
/// it open.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let service = Arc::new(Service::open(options, shutdown.clone())?);
    connections::serve(listener, shutdown, move |request| protocol::respond(service.clone(), request)).await;
    Ok(())
}
