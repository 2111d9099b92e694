//! Log of all calls, for tests that must account for each token. It has the data that the model
//! invocation log of Bedrock has for requests with metadata (Amazon Bedrock User Guide, "Monitor
//! model invocation using CloudWatch Logs").

use http::HeaderMap;
use serde::Serialize;

use super::stats::{Outcome, TokenUsage};

/// Caller, from the metadata of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Caller {
    /// `requestMetadata.tenant`.
    pub tenant: Option<String>,
    /// `requestMetadata.request_id`.
    pub request_id: Option<String>,
    /// Application id of the SDK, which the user agent carries as `app/…` (AWS SDKs and Tools
    /// Reference Guide, "Application ID").
    pub app: Option<String>,
    /// Project that is billed: `projectIdentifier`, or `X-Amzn-Bedrock-ProjectIdentifier`.
    pub project: Option<String>,
}

/// Returns the application id in a user agent.
pub(super) fn app_id(headers: &HeaderMap) -> Option<String> {
    let agents = ["x-amz-user-agent", "user-agent"].into_iter().filter_map(|name| headers.get(name)?.to_str().ok());
    agents.flat_map(|agent| agent.split(' ')).find_map(|part| part.strip_prefix("app/")).map(str::to_owned)
}

/// A call that has ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    model_id: String,
    #[serde(flatten)]
    caller: Caller,
    /// Whether the call was admitted. A refused call has no tokens.
    admitted: bool,
    #[serde(rename = "ending")]
    outcome: &'static str,
    begun_ms: u64,
    ended_ms: u64,
    /// Input tokens, including cached tokens.
    input_tokens: u64,
    output_tokens: u64,
}

/// The log. It is off by default, because it grows with each call.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Option<Vec<Entry>>,
}

impl Log {
    /// Creates a log that is on or off.
    pub fn new(is_on: bool) -> Self {
        Self { entries: is_on.then(Vec::new) }
    }

    /// Adds a call that was refused before it started.
    pub fn refuse(&mut self, model_id: &str, caller: &Caller, outcome: Outcome, now_ms: u64) {
        self.add(model_id, caller, (now_ms, now_ms), &TokenUsage::default(), outcome, false);
    }

    /// Adds a call that ran from `times.0` to `times.1`, in milliseconds since 1970.
    pub fn finish(&mut self, model_id: &str, caller: &Caller, times: (u64, u64), used: &TokenUsage, outcome: Outcome) {
        self.add(model_id, caller, times, used, outcome, true);
    }

    /// Returns all calls in the order in which they ended.
    pub fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    fn add(
        &mut self,
        model_id: &str,
        caller: &Caller,
        (begun_ms, ended_ms): (u64, u64),
        used: &TokenUsage,
        outcome: Outcome,
        admitted: bool,
    ) {
        let Some(entries) = &mut self.entries else { return };
        entries.push(Entry {
            model_id: model_id.to_owned(),
            caller: caller.clone(),
            admitted,
            outcome: match outcome {
                Outcome::Succeeded => "succeeded",
                Outcome::Throttled => "throttled",
                Outcome::Failed => "failed",
            },
            begun_ms,
            ended_ms,
            input_tokens: used.input_tokens + used.cache_read_input_tokens + used.cache_write_input_tokens,
            output_tokens: used.output_tokens,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_off_has_no_entries() {
        let mut logs = [Log::new(false), Log::new(true)];
        for log in &mut logs {
            log.refuse("m", &Caller::default(), Outcome::Throttled, 7);
        }
        assert_eq!(logs.map(|log| log.entries().len()), [0, 1]);
    }
}
