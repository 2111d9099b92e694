//! Messages requests for Claude, which takes them as they are.

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::betas;
use crate::dialect::json::{self, Fields, Ignored, Path};
use crate::{
    chat::{Format, Input, Native, Options, Request},
    problem::Problem,
};

/// The version of the body that Bedrock wants named (Amazon Bedrock User Guide, "Anthropic Claude Messages API").
const BEDROCK_VERSION: &str = "bedrock-2023-05-31";

/// Members of Anthropic's API that InvokeModel refuses, and that change nothing of the answer.
const HARMLESS: [&str; 4] = ["service_tier", "user_profile_id", "workspace_id", "diagnostics"];

/// Without them the caller would get another answer than the one asked for.
const REFUSED: [(&str, &str); 2] = [
    ("container", "containers are not supported by Bedrock"),
    ("mcp_servers", "MCP servers are not supported by Bedrock; connect them on the client's side"),
];

/// Takes out what InvokeModel has in its path, puts in what it wants in the body, and leaves the rest to the model.
pub fn pass_on(model: String, body: Map<String, Value>, headers: &HeaderMap) -> Result<Request, Problem> {
    let mut ignored = Ignored::default();
    let mut fields = Fields::new(body, &Path::Root);
    fields.take("model");
    let stream = fields.optional("stream", json::boolean)?.unwrap_or(false);
    let max_tokens = fields.optional("max_tokens", json::token_limit)?;
    for (name, text) in REFUSED {
        fields.refuse(name, text)?;
    }
    for name in HARMLESS {
        fields.ignore(name, &mut ignored);
    }
    super::request::only_the_usual(&mut fields)?;
    let betas = fields.optional("anthropic_beta", json::names)?;
    let betas = betas.unwrap_or_else(|| betas::of_headers(headers, &mut ignored));
    let format = fields.take("output_format");
    let version = fields.take("anthropic_version").unwrap_or_else(|| json!(BEDROCK_VERSION));
    let mut body = fields.into_members();
    body.insert("anthropic_version".to_owned(), version);
    if let Some(format) = format {
        rename_format(&mut body, format)?;
    }
    body.extend(max_tokens.map(|max_tokens| ("max_tokens".to_owned(), max_tokens.into())));
    body.extend((!betas.is_empty()).then(|| ("anthropic_beta".to_owned(), betas.into())));
    let native = Native { format: Some(Format::Messages), bodies: vec![body], options: Options::default() };
    let (input, ignored) = (Input::Native(native), ignored.into_names());
    Ok(Request { model, input, stream, max_tokens, service_tier: None, ignored })
}

/// `output_format`, as a beta first called it, is `output_config.format` on Bedrock (Amazon Bedrock User Guide,
/// "Structured outputs").
fn rename_format(body: &mut Map<String, Value>, format: Value) -> Result<(), Problem> {
    let config = body.entry("output_config").or_insert_with(|| json!({}));
    match config {
        Value::Object(config) => drop(config.entry("format").or_insert(format)),
        other => return Err(Path::Root.key("output_config").mistyped("an object", other)),
    }
    Ok(())
}
