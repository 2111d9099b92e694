//! The events: what each line of stdout contains.

use metrique::{
    CloseValue,
    emf::flags::NoMetric,
    unit::{Millisecond, Second},
    unit_of_work::metrics,
};

use crate::{
    problem::{Kind, Problem, RefusedBy},
    quota::{Charged, LimitName, Receipt},
    units::{Millis, UnixMs},
    usage::Usage,
};

/// The outcome of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[metrics(value(string), rename_all = "snake_case")]
pub enum RequestOutcome {
    Answered,
    /// The request became a job.
    Queued,
    /// An attempt at a job found no room, no pool that works, or a service of the broker that is
    /// unavailable. The job waits for its next attempt.
    Deferred,
    /// The caller's fault: the request is malformed, or names what does not exist.
    Invalid,
    /// The caller has no valid key, or lacks the right.
    Denied,
    /// A limit refused the request: there was no room, or there will never be.
    Refused,
    /// Spillway or the model failed. Also the outcome of an event that was never completed.
    #[default]
    Failed,
    /// The client disconnected and cannot come back for the answer.
    Cancelled,
    /// The caller got the answer of another attempt at the same call. Nothing was charged for it.
    Replayed,
}

/// The record of one request, or of one failed attempt at a job. A field that is `None` is left
/// out.
///
/// The names of the fields are the names in the JSON. Each number without `NoMetric` is a metric
/// without dimensions; `Formats` adds dimensions to a few. CloudWatch bills each metric and each
/// combination of dimensions, so there are few, and no dimension has values that a caller can make
/// up: `model` is a name from the registry, never the caller's text.
#[derive(Debug, Clone, Default)]
#[metrics]
pub struct RequestEvent {
    pub request_id: String,
    /// The request whose answer this request got, if not its own.
    pub answer_of: Option<String>,
    /// The job that the request became, or whose attempt this is.
    pub job_id: Option<String>,
    pub tenant: Option<String>,
    /// Public part of the API key; `None` if the front door verified the caller.
    pub key_id: Option<String>,
    pub dialect: Option<&'static str>,
    /// Method and path pattern, such as `POST /v1/messages`, or `drain`.
    pub route: Option<&'static str>,
    pub model: Option<String>,
    pub pool: Option<String>,
    /// The name of the pool's model, if that is a substitute for the requested one.
    pub substitute: Option<String>,
    /// Service tier of the pool, if it has one.
    pub tier: Option<String>,
    pub class: Option<&'static str>,
    pub outcome: RequestOutcome,
    /// Status code of the response.
    #[metrics(flags(NoMetric))]
    pub status: Option<u16>,
    /// Kind of the problem, if the request failed.
    pub error: Option<&'static str>,
    /// The limit that refused.
    pub limit: Option<String>,
    /// The tenant or organisation of that limit.
    pub limit_of: Option<String>,
    /// What that limit had used, and its value, in its own unit.
    #[metrics(flags(NoMetric))]
    pub used: Option<u64>,
    #[metrics(flags(NoMetric))]
    pub cap: Option<u64>,
    /// Time after which the caller was asked to try again, or a deferred job is tried again.
    #[metrics(flags(NoMetric))]
    pub retry_after_ms: Option<Millis>,
    /// The service without which the broker admits nothing.
    pub unavailable_service: Option<&'static str>,
    /// 1 if the request failed and its caller did nothing wrong.
    pub server_errors: Option<u32>,
    /// 1 if the broker could not decide, so that it admitted nothing.
    pub failed_closed: Option<u32>,
    #[metrics(flags(NoMetric))]
    pub stream: bool,
    #[metrics(flags(NoMetric))]
    pub input_tokens: Option<u64>,
    /// The part of `input_tokens` that was read from the prompt cache, if any.
    #[metrics(flags(NoMetric))]
    pub cache_read_tokens: Option<u64>,
    /// The part of `input_tokens` that was written to the prompt cache, if any.
    #[metrics(flags(NoMetric))]
    pub cache_write_tokens: Option<u64>,
    #[metrics(flags(NoMetric))]
    pub output_tokens: Option<u64>,
    /// Sum of the input and output tokens of a request that was charged; 0 if the model reported
    /// none. Set when the event is written.
    #[metrics(flags(NoMetric))]
    pub tokens: Option<u64>,
    #[metrics(flags(NoMetric))]
    pub reserved_tokens: Option<u64>,
    #[metrics(flags(NoMetric))]
    pub cost_microusd: Option<u64>,
    /// Duration of the admission, without the hold.
    #[metrics(unit = Millisecond)]
    pub admit_ms: Option<Millis>,
    #[metrics(unit = Millisecond)]
    pub time_to_first_token_ms: Option<Millis>,
    /// Time from the first byte of the request to the last byte of the answer.
    #[metrics(unit = Millisecond)]
    pub duration_ms: Millis,
    /// Time spent waiting for room.
    #[metrics(flags(NoMetric))]
    pub hold_ms: Option<Millis>,
    /// Number of calls to the model, one for each pool that was tried.
    #[metrics(flags(NoMetric))]
    pub attempts: Option<u32>,
    /// The pools that did not take the request, each with the reason.
    pub skipped: Option<String>,
    /// Number of times that the job was deferred, this time included.
    #[metrics(flags(NoMetric))]
    pub deferrals: Option<u32>,
    /// Quota tokens that were not reserved because recent answers were shorter than the output cap.
    #[metrics(flags(NoMetric))]
    pub regained_tokens: Option<u64>,
    /// The tenant's parent, if it was charged.
    pub parent: Option<String>,
    /// Final charge on the tenant.
    #[metrics(flatten, prefix = "tenant_")]
    pub tenant_charged: Option<ChargedEvent>,
    /// Final charge on the parent.
    #[metrics(flatten, prefix = "parent_")]
    pub parent_charged: Option<ChargedEvent>,
    /// Final charge on the pool.
    #[metrics(flatten, prefix = "pool_")]
    pub pool_charged: Option<ChargedEvent>,
}

/// The charge on one account: enough to recompute its counters (`spillway ledger verify`).
#[derive(Debug, Clone, Copy)]
#[metrics(subfield_owned)]
pub struct ChargedEvent {
    #[metrics(flags(NoMetric))]
    charged_at_ms: UnixMs,
    #[metrics(flags(NoMetric))]
    charged_requests: Option<u64>,
    #[metrics(flags(NoMetric))]
    charged_minute_tokens: u64,
    #[metrics(flags(NoMetric))]
    charged_day_tokens: u64,
    #[metrics(flags(NoMetric))]
    charged_microusd: u64,
    /// True if the account's unused tokens carry over, else absent.
    #[metrics(flags(NoMetric))]
    charged_carries_over: Option<bool>,
}

impl From<Charged> for ChargedEvent {
    fn from(Charged { at, charge, carries_over }: Charged) -> Self {
        Self {
            charged_at_ms: at,
            // Most requests are one call.
            charged_requests: (charge.requests != 1).then_some(charge.requests),
            charged_minute_tokens: charge.minute_tokens,
            charged_day_tokens: charge.day_tokens,
            charged_microusd: charge.cost_microusd,
            charged_carries_over: carries_over.then_some(true),
        }
    }
}

impl CloseValue for Millis {
    type Closed = u64;

    fn close(self) -> u64 {
        self.as_ms()
    }
}

impl CloseValue for UnixMs {
    type Closed = u64;

    fn close(self) -> u64 {
        self.as_ms()
    }
}

impl RequestEvent {
    /// Adds the charges in `receipt`.
    pub fn charge(&mut self, receipt: &Receipt) {
        self.cost_microusd = receipt.tenant.map(|charged| charged.charge.cost_microusd);
        self.tenant_charged = receipt.tenant.map(ChargedEvent::from);
        self.parent_charged = receipt.parent.map(ChargedEvent::from);
        self.pool_charged = receipt.pool.map(ChargedEvent::from);
        self.pool.clone_from(&receipt.pool_name);
    }

    /// Sets the outcome of a request that ends with `problem`, and counts what operators watch.
    pub fn fail(&mut self, problem: &Problem) {
        self.outcome = match problem.kind {
            Kind::Invalid
            | Kind::NotFound
            | Kind::MethodNotAllowed
            | Kind::Conflict
            | Kind::TooLarge
            | Kind::UnsupportedEncoding => RequestOutcome::Invalid,
            Kind::Unauthenticated | Kind::Forbidden => RequestOutcome::Denied,
            Kind::Throttled | Kind::BudgetExhausted => RequestOutcome::Refused,
            Kind::Model | Kind::Unavailable | Kind::Timeout | Kind::Internal => RequestOutcome::Failed,
        };
        self.describe(problem);
        self.server_errors = problem.kind.is_server_error().then_some(1);
    }

    /// Sets the outcome of an attempt at a job that is put back into the queue because of
    /// `problem`. No request has failed, so it is no server error.
    pub fn defer(&mut self, problem: &Problem) {
        self.outcome = RequestOutcome::Deferred;
        self.describe(problem);
    }

    fn describe(&mut self, problem: &Problem) {
        self.error = Some(problem.kind.name());
        self.retry_after_ms = problem.retry_after;
        if let Some(refused_by) = &problem.refused_by {
            self.refuse(refused_by);
        }
        self.unavailable_service = problem.unavailable_service;
        self.skipped = problem.skipped.as_ref().and_then(|skipped| skipped.text());
        self.failed_closed = problem.unavailable_service.map(|_| 1);
    }

    /// Sets the limit that refused.
    fn refuse(&mut self, refused_by: &RefusedBy) {
        self.limit = refused_by.limit_names().first().map(LimitName::to_string);
        let RefusedBy::Limits(exceeded) = refused_by else { return };
        self.limit_of = Some(exceeded.payer.clone());
        let first = exceeded.limits.first();
        let state = exceeded.limit_states.iter().find(|state| Some(&state.limit) == first);
        (self.used, self.cap) = state.map(|state| (state.used, state.cap)).unzip();
    }

    /// Sets the tokens that the model reported.
    pub fn use_tokens(&mut self, usage: &Usage) {
        let if_any = |tokens: u64| Some(tokens).filter(|tokens| *tokens > 0);
        self.input_tokens = Some(usage.all_input_tokens());
        self.output_tokens = Some(usage.output_tokens);
        self.cache_read_tokens = if_any(usage.cache_read_input_tokens);
        self.cache_write_tokens = if_any(usage.cache_write_input_tokens);
    }
}

/// The record of one sweep.
#[derive(Debug, Clone)]
#[metrics]
pub struct SweepEvent {
    /// Always 1: the number of sweeps.
    pub sweeps: u32,
    /// How long the job that waits longest for a drain has been ready; 0 if no job is overdue.
    #[metrics(unit = Second)]
    pub oldest_overdue_s: u64,
    /// Number of overdue jobs and batches that the sweep found.
    #[metrics(flags(NoMetric))]
    pub overdue: usize,
    /// Number of messages that were sent again.
    #[metrics(flags(NoMetric))]
    pub resent: usize,
    /// Number of jobs and batches that the sweep could not handle.
    #[metrics(flags(NoMetric))]
    pub unhandled: usize,
}

/// The record of one call that Bedrock denied.
#[derive(Debug, Clone)]
#[metrics]
pub struct DenialEvent {
    /// Always 1: the number of denied calls.
    pub denied: u32,
    /// Bedrock's id of the model.
    pub model_id: String,
}

/// The record of a call that a pool did not answer in time, so that its request went to the next
/// pool. Bedrock may bill it.
#[derive(Debug, Clone)]
#[metrics]
pub struct LateCallEvent {
    /// Always 1: the number of such calls.
    pub late_calls: u32,
    pub request_id: String,
    pub model: String,
    pub pool: String,
    /// Charge that remains on the pool.
    #[metrics(flatten, prefix = "pool_")]
    pub pool_charged: Option<ChargedEvent>,
}

/// The record of an outage of a pool that begins.
#[derive(Debug, Clone)]
#[metrics]
pub struct PoolOutageEvent {
    /// Time until one call probes the pool.
    #[metrics(unit = Millisecond)]
    pub pool_outage_ms: Millis,
    pub model: String,
    pub pool: String,
    /// Why the pool is not called.
    pub cause: &'static str,
    /// Number of outages in a row, this one included.
    #[metrics(flags(NoMetric))]
    pub outages_in_a_row: u64,
}
