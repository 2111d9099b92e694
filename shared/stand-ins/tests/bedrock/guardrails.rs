//! Guardrails: ApplyGuardrail, and guardrails of model calls.

use aws_sdk_bedrockruntime::{
    primitives::Blob,
    types::{
        ContentBlock, ConversationRole, ConverseStreamOutput, GuardrailAction, GuardrailConfiguration,
        GuardrailContentBlock, GuardrailContentSource, GuardrailConverseContentBlock, GuardrailConverseTextBlock,
        GuardrailStreamConfiguration, GuardrailTextBlock, GuardrailTrace, StopReason, Trace,
    },
};
use serde_json::Value;

use crate::{
    calls::messages_body,
    support::{Bedrock, drain, message, open, refused, text, usage},
};

const MESSAGE: &str = "Sorry, the model cannot answer this question.";

fn guardrail(id: &str) -> GuardrailConfiguration {
    GuardrailConfiguration::builder()
        .guardrail_identifier(id)
        .guardrail_version("1")
        .trace(GuardrailTrace::Enabled)
        .build()
}

fn content(text: &str) -> GuardrailContentBlock {
    GuardrailContentBlock::Text(GuardrailTextBlock::builder().text(text).build().unwrap())
}

#[tokio::test]
async fn a_guardrail_intervenes_if_a_text_contains_a_blocked_word() {
    let bedrock = Bedrock::start().await;
    let apply = |text: &str| {
        let call = bedrock.client.apply_guardrail().guardrail_identifier("simguard").guardrail_version("DRAFT");
        call.source(GuardrailContentSource::Input).content(content(text)).send()
    };
    let blocked = apply(&format!("this is sim-blocked {}", "x".repeat(1_000))).await.unwrap();
    assert_eq!(blocked.action(), &GuardrailAction::GuardrailIntervened);
    assert_eq!(blocked.outputs()[0].text(), Some(MESSAGE));
    let word = &blocked.assessments()[0].word_policy().unwrap().custom_words()[0];
    assert_eq!((word.r#match(), word.action().as_str()), ("sim-blocked", "BLOCKED"));
    assert_eq!(blocked.usage().unwrap().word_policy_units(), 2);
    let coverage = blocked.guardrail_coverage().unwrap().text_characters().unwrap();
    assert_eq!((coverage.guarded(), coverage.total()), (Some(1_020), Some(1_020)));

    let passed = apply("this is fine").await.unwrap();
    assert_eq!(passed.action(), &GuardrailAction::None);
    assert!(passed.outputs().is_empty());
    assert!(passed.assessments()[0].word_policy().is_none());
    assert_eq!(bedrock.stats().await["total"]["requests"], 0);
}

#[tokio::test]
async fn only_configured_guardrails_exist() {
    let settings = "[[guardrails]]\nid = \"known\"\nblocked_words = [\"secret\"]\nmessage = \"No.\"";
    let bedrock = Bedrock::start_with(settings).await;
    let apply = |id: &str, version: &str, text: &str| {
        let call = bedrock.client.apply_guardrail().guardrail_identifier(id).guardrail_version(version);
        call.source(GuardrailContentSource::Output).content(content(text)).send()
    };
    let arn = "arn:aws:bedrock:eu-west-1:000000000000:guardrail/known";
    assert_eq!(apply(arn, "1", "a secret").await.unwrap().outputs()[0].text(), Some("No."));
    for (id, version, expected) in [
        ("unknown", "1", "does not exist"),
        ("known", "0", "does not exist"),
        ("Not-An-Id", "1", "The provided guardrail identifier is invalid."),
    ] {
        let (code, status, message) = refused(apply(id, version, "x").await);
        assert_eq!((code.as_str(), status), ("ValidationException", 400));
        assert!(message.contains(expected), "{message} does not say {expected}");
    }
    let converse = bedrock.converse("m", "x").guardrail_config(guardrail("unknown")).send().await;
    assert!(refused(converse).2.contains("does not exist"));
}

#[tokio::test]
async fn apply_guardrail_refuses_an_invalid_body() {
    let bedrock = Bedrock::start().await;
    for (body, expected) in [
        (r#"{"content":[{"text":{"text":"x"}}]}"#, "'source'"),
        (r#"{"source":"INPUT"}"#, "'content'"),
        (r#"{"source":"INPUT","content":[{}]}"#, "'content.1.member'"),
        (r#"{"source":"INPUT","content":[{"text":{"text":"x"}}],"outputScope":"ALL"}"#, "'outputScope'"),
    ] {
        let (response, body) = bedrock.send("POST", "/guardrail/simguard/version/1/apply", body).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(response.status(), 400);
        assert!(body["message"].as_str().unwrap().contains(expected), "{body} does not name {expected}");
    }
}

#[tokio::test]
async fn a_blocked_prompt_never_reaches_the_model_and_costs_no_tokens() {
    let bedrock = Bedrock::start_with("[[pools]]\nmodel_id = \"m\"\ntokens_per_minute = 1").await;
    let call = bedrock.converse("m", "say sim-blocked").guardrail_config(guardrail("simguard"));
    let answer = call.send().await.unwrap();
    assert_eq!((answer.stop_reason(), text(&answer).as_str()), (&StopReason::GuardrailIntervened, MESSAGE));
    assert_eq!(usage(&answer), (0, 0, 0));
    let trace = answer.trace().unwrap().guardrail().unwrap();
    let assessment = &trace.input_assessment().unwrap()["simguard"];
    assert_eq!(assessment.word_policy().unwrap().custom_words()[0].r#match(), "sim-blocked");
    assert_eq!(trace.action_reason(), Some("Guardrail blocked."));
    assert_eq!(bedrock.stats().await["total"]["quota_tokens"], 0);
}

#[tokio::test]
async fn a_blocked_stream_has_the_guardrail_message_and_stops() {
    let bedrock = Bedrock::start().await;
    let config = GuardrailStreamConfiguration::builder()
        .guardrail_identifier("simguard")
        .guardrail_version("1")
        .trace(GuardrailTrace::Enabled)
        .build();
    let call = bedrock.converse_stream("m", "say sim-blocked").guardrail_config(config);
    let (events, error) = drain(&mut open(call).await).await;
    assert_eq!(error, None);
    let deltas = events.iter().filter_map(|event| event.as_content_block_delta().ok()?.delta()?.as_text().ok());
    assert_eq!(deltas.cloned().collect::<String>(), MESSAGE);
    let stop = events.iter().find_map(|event| event.as_message_stop().ok()).unwrap();
    assert_eq!(stop.stop_reason(), &StopReason::GuardrailIntervened);
    let Some(ConverseStreamOutput::Metadata(metadata)) = events.last() else { panic!("no metadata") };
    assert_eq!(metadata.usage().unwrap().output_tokens(), 0);
    assert!(metadata.trace().unwrap().guardrail().is_some());
}

#[tokio::test]
async fn marked_input_and_the_complete_answer_are_assessed() {
    let bedrock = Bedrock::start().await;
    let block = GuardrailConverseTextBlock::builder().text("this is marked").build().unwrap();
    let mut question = message(ConversationRole::User, ContentBlock::Text("sim-blocked".into()));
    question.content.push(ContentBlock::GuardContent(GuardrailConverseContentBlock::Text(block)));
    let call = bedrock.client.converse().model_id("m").messages(question).guardrail_config(guardrail("simguard"));
    let answer = call.send().await.unwrap();
    assert_eq!((answer.stop_reason(), text(&answer).as_str()), (&StopReason::GuardrailIntervened, MESSAGE));
    assert_eq!(usage(&answer).1, 64);
    let trace = answer.trace().unwrap().guardrail().unwrap();
    assert!(trace.input_assessment().unwrap()["simguard"].word_policy().is_none());
    assert!(trace.output_assessments().unwrap()["simguard"][0].word_policy().is_some());
}

#[tokio::test]
async fn invoke_model_reports_the_guardrail_beside_the_message() {
    let bedrock = Bedrock::start().await;
    let call = |prompt: &str| {
        let body = Blob::new(messages_body(prompt, 50).to_string());
        let call = bedrock.client.invoke_model().model_id("m").body(body).trace(Trace::Enabled);
        call.guardrail_identifier("simguard").guardrail_version("1").send()
    };
    let answer: Value = serde_json::from_slice(call("sim-blocked").await.unwrap().body().as_ref()).unwrap();
    assert_eq!(
        (&answer["amazon-bedrock-guardrailAction"], &answer["content"][0]["text"]),
        (&"INTERVENED".into(), &MESSAGE.into())
    );
    assert!(answer["amazon-bedrock-trace"]["guardrail"]["input"]["simguard"]["wordPolicy"].is_object());
    assert_eq!(answer["usage"]["input_tokens"], 0);
    let answer: Value = serde_json::from_slice(call("hello").await.unwrap().body().as_ref()).unwrap();
    assert_eq!(answer["amazon-bedrock-guardrailAction"], "NONE");
}
