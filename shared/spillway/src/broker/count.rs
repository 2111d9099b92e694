//! Token counts of requests that are not sent.

use super::record_denial;
use crate::{
    app::App,
    chat::Request,
    model::Failure,
    model_id::foundation_model,
    pool::Model,
    problem::{Kind, Problem},
    quota,
};

/// The input tokens of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenCount {
    /// Number of input tokens.
    pub input_tokens: u64,
    /// Whether the broker estimated the number, because Bedrock does not count tokens for this
    /// model or cannot do so now.
    pub is_estimate: bool,
}

/// Counts the input tokens of `request` for `model`. Bedrock counts free of charge, so nothing is
/// admitted or charged.
///
/// # Errors
/// Returns an error if Bedrock rejects the request as invalid.
pub async fn count_tokens(app: &App, model: &Model, request: &Request) -> Result<TokenCount, Problem> {
    let mut pools = model.rungs().filter(|pool| !pool.substitute);
    let counter = pools.find_map(|pool| Some((pool, foundation_model(&pool.model_id)?)));
    let Some((pool, model_id)) = counter else { return Ok(estimate(model, request)) };
    match app.models.count_tokens(pool, model_id, &request.input).await {
        Ok(input_tokens) => Ok(TokenCount { input_tokens, is_estimate: false }),
        Err(Failure::Rejected(problem)) if problem.kind == Kind::Invalid => Err(problem),
        Err(failure) => {
            record_denial(app, &failure, model_id);
            Ok(estimate(model, request))
        }
    }
}

fn estimate(model: &Model, request: &Request) -> TokenCount {
    let tokenizer = model.tokenizer();
    let bodies = request.input.bodies().iter();
    let input_tokens = bodies.map(|body| quota::estimate_input(body, tokenizer).tokens).sum();
    TokenCount { input_tokens, is_estimate: true }
}
