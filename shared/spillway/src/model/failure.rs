//! What a failed model call means: try the next pool, or stop.

use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::chat::{Kind, Problem};

/// Stands for a message that Bedrock left out.
pub(super) const NO_REASON: &str = "no reason given";

/// Why a call to a pool gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The pool has no room now. Nothing was billed; the next pool may be tried.
    Throttled,
    /// The pool cannot be reached or is not ready. Nothing was billed; the next pool may be tried.
    Unavailable(Problem),
    /// The request is wrong or not allowed, whatever the pool.
    Rejected(Problem),
    /// The model may have worked on it, so it may be billed: no second try.
    Failed(Problem),
}

impl Failure {
    /// The stream ended before the model said what it used.
    pub fn cut() -> Self {
        Self::broken("the stream was cut")
    }

    /// What to tell a caller who has already read part of the answer, so that no other pool can be tried.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Throttled => Problem::new(Kind::Throttled, "The model was throttled in the middle of its answer."),
            Self::Unavailable(problem) | Self::Rejected(problem) | Self::Failed(problem) => problem,
        }
    }

    /// The deadline came before the answer, which may be billed all the same.
    pub fn timed_out() -> Self {
        Self::Failed(Problem::new(Kind::Timeout, "The model did not answer in time."))
    }

    pub(super) fn broken(what: &str) -> Self {
        Self::Failed(Problem::new(Kind::Model, format!("The model's answer could not be used: {what}.")))
    }

    /// What an exception inside a stream means. `message` is Bedrock's own.
    pub(super) fn in_stream(name: &str, message: &str) -> Self {
        Self::of_exception(name, message).unwrap_or_else(|| Self::Failed(told(Kind::Model, message)))
    }

    /// What an exception of this name means, whether it came as a reply or inside a stream; `None` for an unknown one.
    fn of_exception(name: &str, message: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().trim_end_matches("exception") {
            "throttling" | "servicequotaexceeded" => Self::Throttled,
            "modelnotready" | "serviceunavailable" | "internalserver" => {
                Self::Unavailable(told(Kind::Unavailable, message))
            }
            "modeltimeout" => Self::Failed(told(Kind::Timeout, message)),
            "modelerror" | "modelstreamerror" => Self::Failed(told(Kind::Model, message)),
            "validation" | "serialization" => Self::Rejected(told(Kind::Invalid, message)),
            // The caller did nothing wrong: it is our role or our registry that Bedrock does not accept.
            "accessdenied" | "resourcenotfound" | "unrecognizedclient" | "expiredtoken" => {
                Self::Rejected(Problem::new(Kind::Model, "Bedrock does not let the broker use this model."))
            }
            _ => return None,
        })
    }
}

fn told(kind: Kind, message: &str) -> Problem {
    Problem::new(kind, format!("Bedrock: {message}"))
}

/// Whether Bedrock itself said no, so that there is no answer to look for.
pub(super) fn is_refused<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_none_or(|response| !response.status().is_success())
}

pub(super) fn classify<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Failure {
    let unreachable = || Problem::new(Kind::Unavailable, "Bedrock cannot be reached.");
    match error {
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            let known = meta.code().and_then(|code| Failure::of_exception(code, meta.message().unwrap_or(NO_REASON)));
            known.unwrap_or_else(|| of_status(service.raw().status().as_u16()))
        }
        SdkError::DispatchFailure(dispatch) if dispatch.is_timeout() || dispatch.is_io() => {
            Failure::Unavailable(unreachable())
        }
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => Failure::Unavailable(unreachable()),
        SdkError::TimeoutError(_) => Failure::timed_out(),
        SdkError::ResponseError(response) if !response.raw().status().is_success() => {
            of_status(response.raw().status().as_u16())
        }
        _ => Failure::broken("its reply was cut short"),
    }
}

fn of_status(status: u16) -> Failure {
    match status {
        429 => Failure::Throttled,
        400..=499 => {
            Failure::Rejected(Problem::new(Kind::Model, format!("Bedrock refused the call with status {status}.")))
        }
        _ => Failure::Unavailable(Problem::new(Kind::Unavailable, format!("Bedrock answered with status {status}."))),
    }
}
