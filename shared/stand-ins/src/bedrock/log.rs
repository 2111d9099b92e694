//! A log of every call, for those who must find each token: what Bedrock's model invocation log says of requests that
//! carry metadata (Amazon Bedrock User Guide, "Monitor model invocation using CloudWatch Logs").

use http::HeaderMap;
use serde::Serialize;

use super::stats::{Ending, Use};

/// Who made a call, as far as its metadata tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Caller {
    /// `requestMetadata.tenant`.
    pub tenant: Option<String>,
    /// `requestMetadata.request_id`.
    pub request_id: Option<String>,
    /// The application id of its SDK, which its user agent carries as `app/…` (AWS SDKs and Tools Reference Guide,
    /// "Application ID").
    pub app: Option<String>,
}

/// The application id in a user agent.
pub(super) fn app_of(headers: &HeaderMap) -> Option<String> {
    let agents = ["x-amz-user-agent", "user-agent"].into_iter().filter_map(|name| headers.get(name)?.to_str().ok());
    agents.flat_map(|agent| agent.split(' ')).find_map(|part| part.strip_prefix("app/")).map(str::to_owned)
}

/// One call that has ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    model_id: String,
    #[serde(flatten)]
    caller: Caller,
    /// Whether the model began at all; what was refused before has no tokens.
    admitted: bool,
    ending: &'static str,
    begun_ms: u64,
    ended_ms: u64,
    /// Cached ones included.
    input_tokens: u64,
    output_tokens: u64,
}

/// The log; off unless asked for, because it grows with every call.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Option<Vec<Entry>>,
}

impl Log {
    pub fn new(is_on: bool) -> Self {
        Self { entries: is_on.then(Vec::new) }
    }

    /// Notes a call that was refused before it began.
    pub fn refuse(&mut self, model_id: &str, caller: &Caller, ending: Ending, now_ms: u64) {
        self.add(model_id, caller, (now_ms, now_ms), &Use::default(), ending, false);
    }

    /// Notes a call that ran from `times.0` to `times.1`, in milliseconds since 1970.
    pub fn finish(&mut self, model_id: &str, caller: &Caller, times: (u64, u64), used: &Use, ending: Ending) {
        self.add(model_id, caller, times, used, ending, true);
    }

    /// All calls so far, in the order in which they ended.
    pub fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    fn add(
        &mut self,
        model_id: &str,
        caller: &Caller,
        (begun_ms, ended_ms): (u64, u64),
        used: &Use,
        ending: Ending,
        admitted: bool,
    ) {
        let Some(entries) = &mut self.entries else { return };
        entries.push(Entry {
            model_id: model_id.to_owned(),
            caller: caller.clone(),
            admitted,
            ending: match ending {
                Ending::Succeeded => "succeeded",
                Ending::Throttled => "throttled",
                Ending::Failed => "failed",
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
    fn a_log_that_is_off_keeps_nothing() {
        let mut logs = [Log::new(false), Log::new(true)];
        for log in &mut logs {
            log.refuse("m", &Caller::default(), Ending::Throttled, 7);
        }
        assert_eq!(logs.map(|log| log.entries().len()), [0, 1]);
    }
}
