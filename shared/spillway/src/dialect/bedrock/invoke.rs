//! `POST /model/{id}/invoke` and `/invoke-with-response-stream`, whose bodies are the model's own.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::{members::project_is_default, request::check_metadata_pairs};
use crate::{
    chat::{Format, Input, InvokeOptions, NativeInput, Request},
    dialect::json::{self, Path, Read, ValueBudget},
    problem::Problem,
};

/// Reads the headers of a request whose body of `format` has the output limit `max_tokens`. The
/// body is not read.
pub fn parse(
    model: String,
    body: Map<String, Value>,
    format: Option<Format>,
    max_tokens: Option<u64>,
    headers: &HeaderMap,
    stream: bool,
) -> Result<Request, Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let owned = |name: &str| header(name).map(str::to_owned);
    let at = Path::Root;
    let service_tier = owned(TIER).map(|tier| super::tier(tier, &at.key(TIER))).transpose()?.flatten();
    if let Some(latency) = header(LATENCY) {
        super::standard_latency(latency, &at.key(LATENCY))?;
    }
    if let Some(project) = header(PROJECT) {
        project_is_default(project, &at.key(PROJECT))?;
    }
    let options = InvokeOptions {
        accept: owned(if stream { "x-amzn-bedrock-accept" } else { "accept" }),
        guardrail_id: owned("x-amzn-bedrock-guardrailidentifier"),
        guardrail_version: owned("x-amzn-bedrock-guardrailversion"),
        trace: owned("x-amzn-bedrock-trace"),
        request_metadata: header(METADATA)
            .map(|pairs| metadata(pairs, &at.key(METADATA)))
            .transpose()?
            .unwrap_or_default(),
    };
    let input = Input::Native(NativeInput { format, bodies: vec![body], options });
    Ok(Request { model, input, stream, max_tokens, service_tier, ignored: Vec::new() })
}

const TIER: &str = "x-amzn-bedrock-service-tier";
const LATENCY: &str = "x-amzn-bedrock-performanceconfig-latency";
const METADATA: &str = "x-amzn-bedrock-request-metadata";
const PROJECT: &str = "x-amzn-bedrock-projectidentifier";

fn metadata(pairs: &str, at: &Path) -> Read<Map<String, Value>> {
    let pairs = json::inner(pairs, &mut ValueBudget::for_strings(), at, "is not a JSON object of strings")?;
    let pairs = json::object(pairs, at)?;
    check_metadata_pairs(&pairs, at)?;
    Ok(pairs)
}
