//! The AWS SDK for Rust in the client matrix. Prints the outcome of each cell as a line of JSON,
//! like `cells.py`.

use std::{future::Future, time::Instant};

use anyhow::{Context, bail, ensure};
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_bedrockruntime::{
    Client,
    config::Credentials,
    error::ProvideErrorMetadata,
    operation::converse::builders::ConverseFluentBuilder,
    primitives::Blob,
    types::{
        ContentBlock, ContentBlockDelta, ConversationRole, ConverseStreamOutput, ConverseTokensRequest,
        CountTokensInput, GuardrailContentBlock, GuardrailContentSource, GuardrailTextBlock, ImageBlock, ImageFormat,
        ImageSource, InferenceConfiguration, Message, ResponseStream, StopReason, Tool, ToolConfiguration,
        ToolInputSchema, ToolResultBlock, ToolResultContentBlock, ToolSpecification,
    },
};
use aws_smithy_types::Document;
use serde_json::{Value, json};

const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const PROMPT: &str = "Name three rivers, one per line.";
const TOOL_PROMPT: &str = r#"[[tool=river_length {"river": "Elbe"}]] How long is it?"#;
const MAX_TOKENS: i32 = 64;
const BURST: usize = 8;
const CHECKED_ELSEWHERE: [&str; 4] = ["schema", "thinking", "cache", "embed"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let key = std::env::var("SPILLWAY_KEY")?;
    let impatient = std::env::var("SPILLWAY_IMPATIENT_KEYS")?;
    let impatient = impatient.split(',').next().context("an impatient key")?;
    let client = connect(&key, 1).await?;
    for column in CHECKED_ELSEWHERE {
        report(column, "-", "is checked with the AWS SDKs for Python and JavaScript", 0.0);
    }
    check("plain", plain(&client)).await;
    check("stream", stream(&client)).await;
    check("tools", tools(&client)).await;
    check("image", image(&client)).await;
    check("error", error(&client)).await;
    check("retry", retry(impatient)).await;
    check("count", count(&client)).await;
    check("guardrail", guardrail(&client)).await;
    check("invoke", invoke(&client)).await;
    check("i_stream", invoke_stream(&client)).await;
    Ok(())
}

async fn connect(key: &str, attempts: u32) -> anyhow::Result<Client> {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(std::env::var("SPILLWAY_URL")?)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("unused", "unused", Some(key.to_owned()), None, "matrix"))
        .retry_config(RetryConfig::standard().with_max_attempts(attempts))
        .load()
        .await;
    Ok(Client::new(&config))
}

async fn check(column: &str, cell: impl Future<Output = anyhow::Result<()>>) {
    let started = Instant::now();
    let outcome = cell.await;
    let message = outcome.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
    report(column, if outcome.is_ok() { "ok" } else { "FAIL" }, &message, started.elapsed().as_secs_f64());
}

/// Prints the outcome of a cell.
fn report(column: &str, outcome: &str, message: &str, seconds: f64) {
    let line = json!({"table": "Bedrock", "row": "AWS rust", "column": column, "outcome": outcome, "message": message, "s": seconds});
    println!("{line}");
}

/// Returns a user message.
fn user_message(text: &str) -> anyhow::Result<Message> {
    Ok(Message::builder().role(ConversationRole::User).content(ContentBlock::Text(text.to_owned())).build()?)
}

/// Builds a Converse request.
fn converse(client: &Client) -> ConverseFluentBuilder {
    let config = InferenceConfiguration::builder().max_tokens(MAX_TOKENS).build();
    client.converse().model_id(MODEL).inference_config(config)
}

/// Returns the text of a plain answer and its input tokens.
async fn answer(client: &Client) -> anyhow::Result<(String, i32)> {
    let answer = converse(client).messages(user_message(PROMPT)?).send().await?;
    let usage = answer.usage().context("usage")?;
    ensure!(usage.output_tokens() > 0 && usage.output_tokens() <= MAX_TOKENS, "{usage:?}");
    let message = answer.output().and_then(|output| output.as_message().ok()).context("a message")?;
    let text = message.content().iter().find_map(|block| block.as_text().ok()).context("a text")?;
    Ok((text.clone(), usage.input_tokens()))
}

async fn plain(client: &Client) -> anyhow::Result<()> {
    let (text, _) = answer(client).await?;
    ensure!(!text.is_empty(), "the answer is empty");
    Ok(())
}

async fn stream(client: &Client) -> anyhow::Result<()> {
    let (whole, _) = answer(client).await?;
    let config = InferenceConfiguration::builder().max_tokens(MAX_TOKENS).build();
    let request = client.converse_stream().model_id(MODEL).inference_config(config).messages(user_message(PROMPT)?);
    let mut events = request.send().await?.stream;
    let (mut text, mut has_usage) = (String::new(), false);
    while let Some(event) = events.recv().await? {
        match event {
            ConverseStreamOutput::ContentBlockDelta(delta) => {
                if let Some(ContentBlockDelta::Text(fragment)) = delta.delta() {
                    text.push_str(fragment);
                }
            }
            ConverseStreamOutput::Metadata(metadata) => has_usage = metadata.usage().is_some(),
            _ => {}
        }
    }
    ensure!(text == whole && has_usage, "{text:?} instead of {whole:?}, usage: {has_usage}");
    Ok(())
}

fn river_length() -> anyhow::Result<ToolConfiguration> {
    let schema = Document::Object([("type".to_owned(), Document::String("object".to_owned()))].into());
    let spec = ToolSpecification::builder().name("river_length").input_schema(ToolInputSchema::Json(schema)).build()?;
    Ok(ToolConfiguration::builder().tools(Tool::ToolSpec(spec)).build()?)
}

async fn tools(client: &Client) -> anyhow::Result<()> {
    let first = converse(client).messages(user_message(TOOL_PROMPT)?).tool_config(river_length()?).send().await?;
    ensure!(first.stop_reason() == &StopReason::ToolUse, "{:?}", first.stop_reason());
    let message = first.output().and_then(|output| output.as_message().ok()).context("a message")?;
    let call = message.content().iter().find_map(|block| block.as_tool_use().ok()).context("a call")?;
    let river = call.input().as_object().and_then(|input| input.get("river")).and_then(Document::as_string);
    ensure!(river == Some("Elbe"), "{:?}", call.input());
    let content = ToolResultContentBlock::Text("1094 km".to_owned());
    let result = ToolResultBlock::builder().tool_use_id(call.tool_use_id()).content(content).build()?;
    let result = Message::builder().role(ConversationRole::User).content(ContentBlock::ToolResult(result)).build()?;
    let turns = vec![user_message(TOOL_PROMPT)?, message.clone(), result];
    let last = converse(client).set_messages(Some(turns)).tool_config(river_length()?).send().await?;
    ensure!(last.stop_reason() == &StopReason::EndTurn, "{:?}", last.stop_reason());
    Ok(())
}

async fn image(client: &Client) -> anyhow::Result<()> {
    let (_, tokens_without_image) = answer(client).await?;
    let source = ImageSource::Bytes(Blob::new(*b"\x89PNG\r\n\x1a\n"));
    let image = ImageBlock::builder().format(ImageFormat::Png).source(source).build()?;
    let message = Message::builder()
        .role(ConversationRole::User)
        .content(ContentBlock::Text(PROMPT.to_owned()))
        .content(ContentBlock::Image(image))
        .build()?;
    let answer = converse(client).messages(message).send().await?;
    let tokens_with_image = answer.usage().context("usage")?.input_tokens();
    ensure!(tokens_with_image > tokens_without_image, "the image costs nothing");
    Ok(())
}

async fn error(client: &Client) -> anyhow::Result<()> {
    let unknown = converse(client).model_id("no-such-model").messages(user_message(PROMPT)?).send().await;
    let error = unknown.err().context("an unknown model is answered")?.into_service_error();
    ensure!(error.is_resource_not_found_exception(), "{error:?}");
    let config = InferenceConfiguration::builder().temperature(7.0).build();
    let invalid = converse(client).inference_config(config).messages(user_message(PROMPT)?).send().await;
    let error = invalid.err().context("a bad field is answered")?.into_service_error();
    ensure!(error.is_validation_exception(), "{error:?}");
    let unauthorized = connect(&format!("sk-spill-nobody-{}", "0".repeat(64)), 1).await?;
    let error = converse(&unauthorized)
        .messages(user_message(PROMPT)?)
        .send()
        .await
        .err()
        .context("an unknown key is answered")?;
    let status = error.raw_response().map(|response| response.status().as_u16());
    ensure!(matches!(status, Some(401 | 403)), "{status:?} {:?}", error.code());
    Ok(())
}

async fn retry(key: &str) -> anyhow::Result<()> {
    let client = connect(key, 1).await?;
    for _ in 0..BURST {
        if let Err(error) = converse(&client).messages(user_message(PROMPT)?).send().await {
            let error = error.into_service_error();
            ensure!(error.is_throttling_exception(), "{error:?}");
            converse(&connect(key, 10).await?).messages(user_message(PROMPT)?).send().await?;
            return Ok(());
        }
    }
    bail!("{BURST} requests in a row found room");
}

async fn count(client: &Client) -> anyhow::Result<()> {
    let (_, charged) = answer(client).await?;
    let input = CountTokensInput::Converse(ConverseTokensRequest::builder().messages(user_message(PROMPT)?).build());
    let counted = client.count_tokens().model_id(MODEL).input(input).send().await?.input_tokens();
    ensure!(counted == charged, "{counted} counted, {charged} charged");
    Ok(())
}

async fn guardrail(client: &Client) -> anyhow::Result<()> {
    let text = GuardrailTextBlock::builder().text(PROMPT).build()?;
    let request = client
        .apply_guardrail()
        .guardrail_identifier("grrivers1")
        .guardrail_version("1")
        .source(GuardrailContentSource::Input)
        .content(GuardrailContentBlock::Text(text));
    ensure!(request.send().await?.usage().is_some(), "no usage");
    Ok(())
}

fn messages_body() -> Blob {
    let messages = json!([{"role": "user", "content": PROMPT}]);
    let body = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": MAX_TOKENS, "messages": messages});
    Blob::new(body.to_string())
}

/// Returns the text of an answer to [`messages_body`].
async fn invoked(client: &Client) -> anyhow::Result<String> {
    let answer = client.invoke_model().model_id(MODEL).body(messages_body()).send().await?;
    let answer: Value = serde_json::from_slice(answer.body().as_ref())?;
    Ok(answer["content"][0]["text"].as_str().context("a text")?.to_owned())
}

async fn invoke(client: &Client) -> anyhow::Result<()> {
    ensure!(!invoked(client).await?.is_empty(), "the answer is empty");
    Ok(())
}

async fn invoke_stream(client: &Client) -> anyhow::Result<()> {
    let whole = invoked(client).await?;
    let request = client.invoke_model_with_response_stream().model_id(MODEL).body(messages_body());
    let mut events = request.send().await?.body;
    let mut text = String::new();
    while let Some(event) = events.recv().await? {
        let ResponseStream::Chunk(chunk) = event else { continue };
        let event: Value = serde_json::from_slice(chunk.bytes().context("bytes")?.as_ref())?;
        text.push_str(event["delta"]["text"].as_str().unwrap_or_default());
    }
    ensure!(text == whole, "{text:?} instead of {whole:?}");
    Ok(())
}
