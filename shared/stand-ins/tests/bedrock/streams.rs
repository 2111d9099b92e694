//! Streams: events, timing and failures.

use aws_sdk_bedrockruntime::types::{ContentBlockDelta, ConverseStreamOutput};
use serde_json::Value;
use spillway_stand_ins::bedrock::tokens;

use crate::{
    calls::{messages_body, weather},
    support::{Bedrock, chunks, drain, open, soon, text, waits},
};

fn name(event: &ConverseStreamOutput) -> &'static str {
    match event {
        ConverseStreamOutput::MessageStart(_) => "messageStart",
        ConverseStreamOutput::ContentBlockStart(_) => "contentBlockStart",
        ConverseStreamOutput::ContentBlockDelta(_) => "contentBlockDelta",
        ConverseStreamOutput::ContentBlockStop(_) => "contentBlockStop",
        ConverseStreamOutput::MessageStop(_) => "messageStop",
        ConverseStreamOutput::Metadata(_) => "metadata",
        _ => "unknown",
    }
}

fn streamed_text(events: &[ConverseStreamOutput]) -> String {
    let deltas = events.iter().filter_map(|event| event.as_content_block_delta().ok()?.delta());
    deltas.filter_map(|delta| delta.as_text().ok().cloned()).collect()
}

#[tokio::test]
async fn a_stream_has_the_same_answer_and_ends_with_its_usage() {
    let bedrock = Bedrock::start().await;
    let prompt = tokens::sized_prompt(50, 20);
    let whole = bedrock.converse("m", &prompt).send().await.unwrap();
    let (events, error) = drain(&mut open(bedrock.converse_stream("m", &prompt)).await).await;
    assert_eq!(error, None);
    let names: Vec<_> = events.iter().map(name).collect();
    let delta = "contentBlockDelta";
    assert_eq!(names, ["messageStart", delta, delta, delta, "contentBlockStop", "messageStop", "metadata"]);
    assert_eq!(streamed_text(&events), text(&whole));
    let usage = events[6].as_metadata().unwrap().usage().unwrap();
    assert_eq!((usage.input_tokens(), usage.output_tokens(), usage.total_tokens()), (50, 20, 70));
}

#[tokio::test]
async fn a_tool_call_is_streamed_as_json_deltas() {
    let bedrock = Bedrock::start().await;
    let question = format!(r#"[[tool=weather {{"place":"{}"}}]]"#, "x".repeat(50));
    let call = bedrock.converse_stream("m", &question).tool_config(weather());
    let (events, error) = drain(&mut open(call).await).await;
    assert_eq!(error, None);
    assert_eq!(name(&events[1]), "contentBlockStart");
    let input_deltas = events.iter().filter_map(|event| match event.as_content_block_delta().ok()?.delta()? {
        ContentBlockDelta::ToolUse(delta) => Some(delta.input().to_owned()),
        _ => None,
    });
    let input: Value = serde_json::from_str(&input_deltas.collect::<String>()).unwrap();
    assert_eq!(input["place"].as_str().unwrap().len(), 50);
}

#[tokio::test]
async fn an_invoke_stream_has_anthropic_events_and_ends_with_its_metrics() {
    let bedrock = Bedrock::start().await;
    let events = chunks(&bedrock, "m", &messages_body(&tokens::sized_prompt(60, 10), 100)).await;
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let (start, delta, stop) = ("content_block_start", "content_block_delta", "content_block_stop");
    assert_eq!(types, ["message_start", start, delta, delta, stop, "message_delta", "message_stop"]);
    let metrics = &events[6]["amazon-bedrock-invocationMetrics"];
    assert_eq!((&metrics["inputTokenCount"], &metrics["outputTokenCount"]), (&60.into(), &10.into()));
}

#[tokio::test]
async fn a_stream_can_be_throttled_in_the_middle() {
    let bedrock = Bedrock::start().await;
    let mut stream = open(bedrock.converse_stream("sim.throttles-mid-stream", "[[output_tokens=80]]")).await;
    let (events, error) = drain(&mut stream).await;
    assert_eq!(events.len(), 4);
    assert!(error.unwrap().contains("ThrottlingException"));
    let stats = bedrock.stats().await;
    assert_eq!((&stats["total"]["throttled"], &stats["total"]["output_tokens"]), (&1.into(), &24.into()));
}

#[tokio::test]
async fn a_stream_can_be_cut() {
    let bedrock = Bedrock::start().await;
    let mut stream = open(bedrock.converse_stream("sim.breaks", "[[output_tokens=80]]")).await;
    let (events, error) = drain(&mut stream).await;
    assert_eq!(tokens::text_tokens(&streamed_text(&events)), 24);
    assert!(error.is_some());
    let stats = bedrock.stats().await;
    assert_eq!((&stats["total"]["failed"], &stats["total"]["output_tokens"]), (&1.into(), &24.into()));
}

#[tokio::test]
async fn tokens_arrive_at_the_speed_of_the_model() {
    let bedrock = Bedrock::start_with("time_to_first_token_ms = 60000\ntokens_per_second = 1").await;
    let mut stream = open(bedrock.converse_stream("m", "[[output_tokens=160]]")).await;
    assert!(waits(stream.stream.recv()).await);
    bedrock.clock.advance(60_000);
    let mut delivered = 0;
    for _ in 0..2 {
        let event = soon(stream.stream.recv()).await.unwrap().unwrap();
        delivered += tokens::text_tokens(&streamed_text(&[event]));
    }
    assert_eq!(delivered, 8);
    assert!(waits(stream.stream.recv()).await);
    bedrock.clock.advance(160_000);
    let (events, error) = drain(&mut stream).await;
    assert_eq!(error, None);
    let metadata = events.last().unwrap().as_metadata().unwrap();
    assert!(metadata.metrics().unwrap().latency_ms() >= 220_000);
}

#[tokio::test]
async fn a_stall_comes_after_the_first_tokens() {
    let bedrock = Bedrock::start().await;
    let mut stream = open(bedrock.converse_stream("sim.stalls", "[[output_tokens=80]]")).await;
    for expected in ["messageStart", "contentBlockDelta"] {
        assert_eq!(name(&soon(stream.stream.recv()).await.unwrap().unwrap()), expected);
    }
    assert!(waits(stream.stream.recv()).await);
    bedrock.clock.advance(600_000);
    let (events, error) = drain(&mut stream).await;
    assert_eq!((events.last().map(name), error), (Some("metadata"), None));
}

#[tokio::test]
async fn a_call_is_billed_even_if_its_client_disconnects() {
    let bedrock = Bedrock::start_with("tokens_per_second = 1").await;
    let mut stream = open(bedrock.converse_stream("m", "[[output_tokens=80]]")).await;
    soon(stream.stream.recv()).await.unwrap();
    drop(stream);
    let call = tokio::spawn(bedrock.converse("m", "[[output_tokens=70]]").send());
    bedrock.until("both run", |stats| stats["total"]["in_flight"] == 2).await;
    call.abort();
    bedrock.until("both clients are counted", |stats| stats["total"]["clients_vanished"] == 2).await;
    bedrock.clock.advance(100_000);
    let stats = bedrock.until("both end", |stats| stats["total"]["in_flight"] == 0).await;
    let total = &stats["total"];
    assert_eq!((&total["succeeded"], &total["output_tokens"]), (&2.into(), &150.into()));
}
