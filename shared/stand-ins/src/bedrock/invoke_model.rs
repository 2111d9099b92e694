//! InvokeModel: body formats and headers.

use http::HeaderMap;

use super::{
    anthropic,
    body_format::BodyFormat,
    chat_completions, converse, embeddings,
    guardrail::GuardrailReference,
    llama, nova,
    problem::Problem,
    prompt::{Prompt, parse_caller},
    response_format::ResponseFormat,
};

/// Parses a body and returns the format of its response.
pub(super) fn parse(format: BodyFormat, body: &[u8]) -> Result<(Prompt, ResponseFormat), Problem> {
    let with_vectors = |(prompt, vectors)| (prompt, ResponseFormat::Vectors(vectors));
    match format {
        BodyFormat::Messages => Ok((anthropic::parse(body)?, ResponseFormat::Messages)),
        BodyFormat::Nova => Ok((nova::parse(body)?, ResponseFormat::Nova)),
        BodyFormat::Llama => Ok((llama::parse(body)?, ResponseFormat::Llama)),
        BodyFormat::Chat => Ok((chat_completions::parse(body)?, ResponseFormat::Chat)),
        BodyFormat::TitanEmbedV1 => embeddings::titan::v1(body).map(with_vectors),
        BodyFormat::TitanEmbedV2 => embeddings::titan::v2(body).map(with_vectors),
        BodyFormat::CohereEmbedV3 => embeddings::cohere::v3(body).map(with_vectors),
        BodyFormat::CohereEmbedV4 => embeddings::cohere::v4(body).map(with_vectors),
    }
}

/// Reads the headers in which InvokeModel carries settings that are in the body of Converse.
pub(super) fn read_headers(prompt: &mut Prompt, headers: &HeaderMap) -> Result<(), Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(metadata) = header("x-amzn-bedrock-request-metadata") {
        let metadata = serde_json::from_str(metadata)
            .map_err(|_| Problem::invalid("X-Amzn-Bedrock-Request-Metadata is not a JSON object of strings."))?;
        prompt.caller = parse_caller(&metadata)?;
    }
    prompt.caller.project = header("x-amzn-bedrock-projectidentifier").map(str::to_owned);
    prompt.service_tier = header("x-amzn-bedrock-service-tier").map(str::to_owned);
    prompt.latency = header("x-amzn-bedrock-performanceconfig-latency").map(str::to_owned);
    if prompt.service_tier.as_deref().is_some_and(|tier| !converse::is_service_tier(tier)) {
        return Err(Problem::invalid("X-Amzn-Bedrock-Service-Tier is not one of priority, default, flex, reserved."));
    }
    prompt.guardrail = header("x-amzn-bedrock-guardrailidentifier").map(|identifier| GuardrailReference {
        identifier: identifier.to_owned(),
        version: header("x-amzn-bedrock-guardrailversion").unwrap_or_default().to_owned(),
        has_trace: header("x-amzn-bedrock-trace").is_some_and(|trace| trace.starts_with("ENABLED")),
    });
    Ok(())
}
