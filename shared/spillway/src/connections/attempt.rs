//! Attempts at a request, and what a failure proves about them.

use std::{
    error::Error,
    io::{self, ErrorKind},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::telemetry::{CaptureHttpAttemptTelemetry, ConnectionUsage},
    orchestrator::{HttpRequest, HttpResponse},
    result::SdkError,
};

/// Time within which a connection breaks if it was dead before the request: the other side rejects
/// the first packet, which takes one round trip.
const MAX_BREAK_TIME: Duration = Duration::from_secs(1);

/// Observes one attempt at a request of an SDK client that does not retry. Clones observe the same
/// attempt.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    telemetry: CaptureHttpAttemptTelemetry,
    /// Whether its client made no other call for a while before.
    is_after_pause: bool,
}

impl Attempt {
    pub(super) fn new(is_after_pause: bool) -> Self {
        Self { is_after_pause, ..Self::default() }
    }

    /// Returns a change of the request that makes the connection report to this observer.
    pub fn observe(&self) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
        let observer = self.telemetry.clone();
        move |request| {
            request.add_extension(observer.clone());
        }
    }

    /// Whether the connection broke soon after the request was sent, before any part of a reply
    /// was read. The request may or may not have arrived.
    pub fn broke_soon<E>(&self, error: &SdkError<E, HttpResponse>) -> bool {
        let is_soon = self.telemetry.get().connector_call_duration().is_some_and(|took| took <= MAX_BREAK_TIME);
        matches!(error, SdkError::DispatchFailure(_)) && was_sent(error) && is_soon
    }

    /// Whether the connection came from the pool, and the other side reset it soon.
    ///
    /// A server that has read a request and then dies closes its connection in order, so a reset
    /// means that the request was not read to its end. A server cannot work on such a request. The
    /// exception is a device on the way that resets connections to a server that works.
    pub fn was_reset<E>(&self, error: &SdkError<E, HttpResponse>) -> bool {
        let telemetry = self.telemetry.get();
        let is_reused = telemetry.acquisition().is_some_and(|chosen| chosen.usage() == ConnectionUsage::Reused);
        is_reused && self.broke_soon(error) && is_reset(error)
    }

    /// Whether the connection was dead before the request: it was reset, and its client made no
    /// other call for a while, for example because Lambda had frozen the process. While other calls
    /// pass, a reset is an outage, and the server may work on the request.
    pub fn was_stale<E>(&self, error: &SdkError<E, HttpResponse>) -> bool {
        self.is_after_pause && self.was_reset(error)
    }
}

/// Whether the request of a failed attempt may have been sent. It was not if the failure is one of
/// the request itself, the credentials, DNS, TCP connect or TLS.
pub fn was_sent<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        // The pool names the connection of every request that it has handed to one.
        SdkError::DispatchFailure(failure) => {
            failure.as_connector_error().is_some_and(|error| error.connection_metadata().is_some())
        }
        _ => true,
    }
}

fn is_reset<E>(error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::DispatchFailure(failure) = error else { return false };
    let first = failure.as_connector_error().map(|error| error as &(dyn Error + 'static));
    let mut causes = std::iter::successors(first, |&error| error.source());
    causes.find_map(|error| error.downcast_ref::<io::Error>()).is_some_and(|error| {
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
    })
}
