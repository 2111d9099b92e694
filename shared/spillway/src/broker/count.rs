//! How many tokens a request would count for.

use crate::{
    app::App,
    chat::Request,
    model::Failure,
    model_id::foundation_model,
    pool::Model,
    problem::{Kind, Problem},
    quota,
};

/// Input tokens, and who counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The tokens.
    pub input_tokens: u64,
    /// Whether it is our estimate, because Bedrock does not count for this model or cannot now.
    pub is_estimate: bool,
}

/// Counts the input of `request` for `model`. Bedrock counts free of charge, so nothing is admitted or charged.
///
/// # Errors
/// Bedrock finds fault with the request.
pub async fn count_tokens(app: &App, model: &Model, request: &Request) -> Result<Count, Problem> {
    let counter = model.rungs().find_map(|pool| Some((pool, foundation_model(&pool.model_id)?)));
    let Some((pool, model_id)) = counter else { return Ok(estimate(model, request)) };
    match app.models.count_tokens(pool, model_id, &request.input).await {
        Ok(input_tokens) => Ok(Count { input_tokens, is_estimate: false }),
        Err(Failure::Rejected(problem)) if problem.kind == Kind::Invalid => Err(problem),
        Err(_) => Ok(estimate(model, request)),
    }
}

fn estimate(model: &Model, request: &Request) -> Count {
    let tokenizer = model.tokenizer();
    let input_tokens = request.input.bodies().iter().map(|body| quota::input_tokens(body, tokenizer)).sum();
    Count { input_tokens, is_estimate: true }
}
