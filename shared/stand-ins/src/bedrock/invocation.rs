//! InvokeModel: which body a model takes, and what travels in headers beside it.

use http::HeaderMap;

use super::{
    anthropic, chat, converse, embeddings,
    format::Format,
    guardrail::Attached,
    llama, nova,
    problem::Problem,
    prompt::{Prompt, caller_of},
    reply::Shape,
};

/// Reads a body in its format, and says how it is answered.
pub(super) fn parse(format: Format, body: &[u8]) -> Result<(Prompt, Shape), Problem> {
    let of_vectors = |(prompt, vectors)| (prompt, Shape::Vectors(vectors));
    match format {
        Format::Messages => Ok((anthropic::parse(body)?, Shape::Messages)),
        Format::Nova => Ok((nova::parse(body)?, Shape::Nova)),
        Format::Llama => Ok((llama::parse(body)?, Shape::Llama)),
        Format::Chat => Ok((chat::parse(body)?, Shape::Chat)),
        Format::TitanEmbedV1 => embeddings::titan::v1(body).map(of_vectors),
        Format::TitanEmbedV2 => embeddings::titan::v2(body).map(of_vectors),
        Format::CohereEmbedV3 => embeddings::cohere::v3(body).map(of_vectors),
        Format::CohereEmbedV4 => embeddings::cohere::v4(body).map(of_vectors),
    }
}

/// InvokeModel carries in headers what Converse has in its body.
pub(super) fn read_headers(prompt: &mut Prompt, headers: &HeaderMap) -> Result<(), Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(metadata) = header("x-amzn-bedrock-request-metadata") {
        let metadata = serde_json::from_str(metadata)
            .map_err(|_| Problem::invalid("X-Amzn-Bedrock-Request-Metadata is no JSON object of strings."))?;
        prompt.caller = caller_of(&metadata)?;
    }
    prompt.service_tier = header("x-amzn-bedrock-service-tier").map(str::to_owned);
    prompt.latency = header("x-amzn-bedrock-performanceconfig-latency").map(str::to_owned);
    if prompt.service_tier.as_deref().is_some_and(|tier| !converse::is_service_tier(tier)) {
        return Err(Problem::invalid("X-Amzn-Bedrock-Service-Tier is not one of priority, default, flex, reserved."));
    }
    prompt.guardrail = header("x-amzn-bedrock-guardrailidentifier").map(|identifier| Attached {
        identifier: identifier.to_owned(),
        version: header("x-amzn-bedrock-guardrailversion").unwrap_or_default().to_owned(),
        traced: header("x-amzn-bedrock-trace").is_some_and(|trace| trace.starts_with("ENABLED")),
    });
    Ok(())
}
