//! Classifies failed model calls: try the next pool, or stop.

use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::{
    connections::was_sent,
    outage::{OutageCause, PoolFault},
    problem::{BedrockErrorCode, Kind, Problem},
};

/// Stands in for a message that Bedrock left out.
pub(super) const NO_REASON: &str = "no reason given";

/// Reason why a call to a pool returned no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The pool has no capacity now, because this quota is used up. Nothing was billed; the next
    /// pool may be tried.
    Throttled(Quota),
    /// The pool is unavailable or not ready. Nothing was billed; the next pool may be tried.
    Unavailable(Box<UnavailablePool>),
    /// The request is wrong or not allowed in any pool.
    Rejected(Problem),
    /// Bedrock does not accept the broker's role or the registry's entry. Nothing was billed; the
    /// next pool may be tried.
    Denied(Denial),
    /// The model does not support the operation. Only [`Models::count_tokens`] reports this.
    ///
    /// [`Models::count_tokens`]: super::Models::count_tokens
    Unsupported(Problem),
    /// The model may have worked on the request, so the call may be billed: no second try. The
    /// fault says whether the next requests should call another pool.
    Failed(PoolFault, Problem),
}

/// A pool that is unavailable or not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnavailablePool {
    /// Reason why the pool is not called for a while.
    pub cause: OutageCause,
    /// The error that Bedrock named, if it answered.
    pub error: Option<BedrockErrorCode>,
    /// The problem to report if no other pool answers.
    pub problem: Problem,
}

/// A call that Bedrock denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The error that Bedrock named.
    pub error: Option<BedrockErrorCode>,
    /// Bedrock's reason. The caller did nothing wrong, so the reason is for the operator.
    pub reason: String,
}

/// Quota of a pool that a throttled call exceeds. Bedrock has one exception for all quotas; only
/// its message says which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// A quota that frees within moments: tokens or requests per minute, or provisioned units.
    Minute,
    /// The quota of tokens per day.
    Day,
}

impl Quota {
    fn from_message(message: &str) -> Self {
        if message.to_ascii_lowercase().contains("per day") { Self::Day } else { Self::Minute }
    }
}

impl Failure {
    /// The stream ended before the model reported its token usage.
    pub fn cut() -> Self {
        Self::broken("the stream was cut")
    }

    /// Returns what the failure says about the pool.
    pub fn fault(&self) -> PoolFault {
        match self {
            Self::Throttled(Quota::Day) => PoolFault::Certain(OutageCause::DailyQuota),
            Self::Throttled(Quota::Minute) => PoolFault::Throttled,
            Self::Rejected(_) | Self::Unsupported(_) => PoolFault::None,
            Self::Denied(_) => PoolFault::Certain(OutageCause::Denied),
            Self::Unavailable(pool) => PoolFault::Certain(pool.cause),
            Self::Failed(fault, _) => *fault,
        }
    }

    /// Returns the problem to report to a caller that has already read part of the answer, so that
    /// no other pool can be tried.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Throttled(_) => Problem::new(Kind::Throttled, "The model was throttled in the middle of its answer."),
            Self::Denied(_) => Problem::new(Kind::Model, "Bedrock does not let the broker use this model."),
            Self::Unavailable(pool) => pool.problem,
            Self::Rejected(problem) | Self::Unsupported(problem) | Self::Failed(_, problem) => problem,
        }
    }

    /// The caller's time was up before the answer arrived, which says nothing about the pool. The
    /// call may still be billed.
    pub fn timed_out() -> Self {
        Self::late(PoolFault::None)
    }

    /// The pool did not answer in the time that a call has. The call may still be billed.
    pub fn silent() -> Self {
        Self::late(PoolFault::Certain(OutageCause::Silent))
    }

    fn late(fault: PoolFault) -> Self {
        Self::Failed(fault, Problem::new(Kind::Timeout, "The model did not answer in time."))
    }

    /// The reply cannot be used, for this `reason`: a clause without a full stop.
    pub(super) fn broken(reason: &str) -> Self {
        Self::unusable(PoolFault::Doubtful, reason)
    }

    /// The connection broke after the call was sent, as this `reason` says.
    pub(super) fn disconnected(reason: &str) -> Self {
        Self::unusable(PoolFault::Certain(OutageCause::Broken), reason)
    }

    fn unusable(fault: PoolFault, reason: &str) -> Self {
        Self::Failed(fault, Problem::new(Kind::Model, format!("The model's answer could not be used: {reason}.")))
    }

    /// Classifies an exception inside a stream. `message` is Bedrock's own.
    pub(super) fn from_stream_exception(name: &str, message: &str) -> Self {
        Self::from_exception(name, message)
            .unwrap_or_else(|| Self::Failed(PoolFault::Doubtful, quote(Kind::Model, message)))
    }

    /// Classifies an exception by its name, whether it was the reply or came inside a stream.
    /// Returns `None` for an unknown name.
    fn from_exception(name: &str, message: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().trim_end_matches("exception") {
            "throttling" | "servicequotaexceeded" => Self::Throttled(Quota::from_message(message)),
            "modelnotready" | "serviceunavailable" | "internalserver" => {
                let error = BedrockErrorCode::parse(name);
                Self::unavailable(OutageCause::Error, error, quote(Kind::Unavailable, message))
            }
            "modeltimeout" => Self::Failed(PoolFault::Doubtful, quote(Kind::Timeout, message)),
            "modelerror" | "modelstreamerror" => Self::Failed(PoolFault::Doubtful, quote(Kind::Model, message)),
            "validation" if is_about_model_id(message) => Self::denied(name, message),
            "validation" | "serialization" => Self::Rejected(quote(Kind::Invalid, message)),
            "accessdenied" | "resourcenotfound" | "unrecognizedclient" | "expiredtoken" => Self::denied(name, message),
            _ => return None,
        })
    }

    /// Classifies a reply by its status. `error` is the unknown exception that it names, if any.
    fn from_status(status: u16, error: Option<BedrockErrorCode>) -> Self {
        match status {
            429 => Self::Throttled(Quota::Minute),
            400..=499 => {
                Self::Rejected(Problem::new(Kind::Model, format!("Bedrock refused the call with status {status}.")))
            }
            _ => {
                let message = format!("Bedrock answered with status {status}.");
                Self::unavailable(OutageCause::Error, error, Problem::new(Kind::Unavailable, message))
            }
        }
    }

    fn unavailable(cause: OutageCause, error: Option<BedrockErrorCode>, problem: Problem) -> Self {
        Self::Unavailable(Box::new(UnavailablePool { cause, error, problem }))
    }

    fn denied(name: &str, message: &str) -> Self {
        Self::Denied(Denial { error: BedrockErrorCode::parse(name), reason: format!("{name}: {message}") })
    }
}

/// Whether Bedrock refuses the model id, which the registry chose, and not the caller's request. It
/// has no exception for that; only these messages of its `ValidationException` say so.
fn is_about_model_id(message: &str) -> bool {
    let messages = ["provided model identifier is invalid", "with on-demand throughput isn"];
    messages.iter().any(|part| message.contains(part))
}

fn quote(kind: Kind, message: &str) -> Problem {
    Problem::new(kind, format!("Bedrock: {message}"))
}

/// Whether Bedrock itself refused the call, so that there is no answer to read.
pub(super) fn is_refused<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_none_or(|response| !response.status().is_success())
}

/// Whether Bedrock refused the call because the model does not support the operation. Bedrock has
/// no exception for that case; only the message of its `ValidationException` says so.
pub(super) fn is_unsupported<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::ServiceError(service) = error else { return false };
    service.err().meta().message().is_some_and(|message| message.contains("support"))
}

pub(super) fn classify<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Failure {
    match error {
        // The request never left, so the model has not seen it.
        _ if !was_sent(error) => {
            let problem = Problem::new(Kind::Unavailable, "Bedrock cannot be reached.");
            Failure::unavailable(OutageCause::Unreachable, None, problem)
        }
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            let known = meta.code().and_then(|code| Failure::from_exception(code, meta.message().unwrap_or(NO_REASON)));
            let named = || meta.code().and_then(BedrockErrorCode::parse);
            known.unwrap_or_else(|| Failure::from_status(service.raw().status().as_u16(), named()))
        }
        SdkError::TimeoutError(_) => Failure::timed_out(),
        SdkError::DispatchFailure(_) => Failure::disconnected("the connection broke before it arrived"),
        SdkError::ResponseError(response) if !response.raw().status().is_success() => {
            Failure::from_status(response.raw().status().as_u16(), None)
        }
        _ => Failure::broken("its reply was cut short"),
    }
}
