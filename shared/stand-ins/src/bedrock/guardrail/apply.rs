//! ApplyGuardrail: applies a guardrail to a text without a model.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Guardrail, GuardrailReference};
use crate::bedrock::{config::Simulator, problem::Problem};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    source: Option<String>,
    content: Option<Vec<Content>>,
    output_scope: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    text: Option<Text>,
    image: Option<Value>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

/// Runs ApplyGuardrail.
///
/// # Errors
/// Returns an error if the guardrail is unknown or the body is invalid.
pub(in crate::bedrock) fn answer(
    simulator: &Simulator,
    attached: &GuardrailReference,
    body: &[u8],
) -> Result<Value, Problem> {
    let request: Request = serde_json::from_slice(body).map_err(|error| Problem::unreadable(&error))?;
    let content = check(&request)?;
    let guardrail = Guardrail::find(simulator, attached)?;
    let texts = content.iter().filter_map(|content| content.text.as_ref());
    let text: String = texts.map(|text| text.text.as_str()).collect::<Vec<_>>().join("\n");
    let assessment = guardrail.assess(&text);
    let mut coverage = assessment.coverage();
    let images = content.iter().filter(|content| content.image.is_some()).count();
    if images > 0 {
        coverage["images"] = json!({ "guarded": images, "total": images });
    }
    let outputs = assessment.intervenes().then(|| json!({ "text": guardrail.message() }));
    Ok(json!({
        "usage": assessment.usage(),
        "action": if assessment.intervenes() { "GUARDRAIL_INTERVENED" } else { "NONE" },
        "actionReason": assessment.reason(),
        "outputs": outputs.into_iter().collect::<Value>(),
        "assessments": [assessment.report()],
        "guardrailCoverage": coverage,
    }))
}

fn check(request: &Request) -> Result<&[Content], Problem> {
    let constraint = |member: &str, rule: &str| {
        let message = format!("1 validation error detected: Value at '{member}' failed to satisfy constraint: {rule}");
        Err(Problem::invalid(message))
    };
    if request.source.as_deref().is_none_or(|source| !["INPUT", "OUTPUT"].contains(&source)) {
        return constraint("source", "Member must satisfy enum value set: [INPUT, OUTPUT]");
    }
    if request.output_scope.as_deref().is_some_and(|scope| !["INTERVENTIONS", "FULL"].contains(&scope)) {
        return constraint("outputScope", "Member must satisfy enum value set: [INTERVENTIONS, FULL]");
    }
    let Some(content) = request.content.as_deref().filter(|content| !content.is_empty()) else {
        return constraint("content", "Member must have length greater than or equal to 1");
    };
    match content.iter().position(|content| content.text.is_some() == content.image.is_some()) {
        Some(at) => constraint(&format!("content.{}.member", at + 1), "Exactly one member of the union must be set"),
        None => Ok(content),
    }
}
