//! A conversation in every dialect: the model receives the same request, and the caller receives
//! the same answer, whole or streamed.

use proptest::prelude::*;
use serde_json::{Value, json};
use spillway::dialect::{AnswerContext, Api, Echo};
use spillway::{
    chat::{Answer, Output, StreamEvent},
    usage::Usage,
};

use super::{PNG, body, context, event, parse, payloads, rendered, streamed};

/// A part of a question.
#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Image,
}

#[derive(Debug, Clone)]
struct Call {
    name: String,
    input: Value,
    result: String,
}

/// A question, and its answer, which may call tools.
#[derive(Debug, Clone)]
struct Round {
    question: Vec<Part>,
    answer: String,
    calls: Vec<Call>,
}

fn call() -> impl Strategy<Value = Call> {
    ("[a-z]{1,8}", ".{0,8}", any::<i32>(), ".{1,12}").prop_map(|(name, text, number, result)| Call {
        name,
        input: json!({"text": text, "number": number}),
        result,
    })
}

fn round() -> impl Strategy<Value = Round> {
    let part = prop_oneof![3 => ".{1,20}".prop_map(Part::Text), 1 => Just(Part::Image)];
    (prop::collection::vec(part, 1..3), ".{1,20}", prop::collection::vec(call(), 0..3))
        .prop_map(|(question, answer, calls)| Round { question, answer, calls })
}

fn id(round: usize, call: usize) -> String {
    format!("call-{round}-{call}")
}

fn chat_messages(rounds: &[Round]) -> Vec<Value> {
    let part = |part: &Part| match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image => json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PNG}")}}),
    };
    let mut messages = vec![json!({"role": "system", "content": "Be kind."})];
    for (at, round) in rounds.iter().enumerate() {
        messages.push(json!({"role": "user", "content": round.question.iter().map(part).collect::<Vec<_>>()}));
        let call = |(number, call): (usize, &Call)| {
            let function = json!({"name": call.name, "arguments": call.input.to_string()});
            json!({"id": id(at, number), "type": "function", "function": function})
        };
        let calls: Vec<Value> = round.calls.iter().enumerate().map(call).collect();
        messages.push(json!({"role": "assistant", "content": round.answer, "tool_calls": calls}));
        for (number, call) in round.calls.iter().enumerate() {
            messages.push(json!({"role": "tool", "tool_call_id": id(at, number), "content": call.result}));
        }
    }
    messages
}

/// Messages of Anthropic or of Converse, which differ only in the blocks.
fn turns(rounds: &[Round], block: impl Fn(Block) -> Value) -> Vec<Value> {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut say = |role, content: Vec<Value>| match turns.last_mut() {
        Some((last, blocks)) if *last == role => blocks.extend(content),
        _ if content.is_empty() => {}
        _ => turns.push((role, content)),
    };
    for (at, round) in rounds.iter().enumerate() {
        say("user", round.question.iter().map(|part| block(Block::Part(part))).collect());
        let calls = || round.calls.iter().enumerate().map(|(number, call)| (id(at, number), call));
        let answer = Part::Text(round.answer.clone());
        let uses = calls().map(|(id, call)| block(Block::Use(id, call)));
        say("assistant", std::iter::once(block(Block::Part(&answer))).chain(uses).collect());
        say("user", calls().map(|(id, call)| block(Block::Result(id, call))).collect());
    }
    turns.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

enum Block<'r> {
    Part(&'r Part),
    Use(String, &'r Call),
    Result(String, &'r Call),
}

fn anthropic_block(block: Block) -> Value {
    match block {
        Block::Part(Part::Text(text)) => json!({"type": "text", "text": text}),
        Block::Part(Part::Image) => {
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}})
        }
        Block::Use(id, call) => json!({"type": "tool_use", "id": id, "name": call.name, "input": call.input}),
        Block::Result(id, call) => json!({"type": "tool_result", "tool_use_id": id, "content": call.result}),
    }
}

fn converse_block(block: Block) -> Value {
    match block {
        Block::Part(Part::Text(text)) => json!({"text": text}),
        Block::Part(Part::Image) => json!({"image": {"format": "png", "source": {"bytes": PNG}}}),
        Block::Use(id, call) => json!({"toolUse": {"toolUseId": id, "name": call.name, "input": call.input}}),
        Block::Result(id, call) => json!({"toolResult": {"toolUseId": id, "content": [{"text": call.result}]}}),
    }
}

/// An answer of Converse: texts, then tool calls.
#[derive(Debug, Clone)]
struct ModelAnswer {
    texts: Vec<String>,
    calls: Vec<Call>,
    stop_reason: &'static str,
    usage: Usage,
}

fn model_answer() -> impl Strategy<Value = ModelAnswer> {
    let stop =
        prop::sample::select(&["end_turn", "max_tokens", "stop_sequence", "tool_use", "guardrail_intervened"][..]);
    let counts = (0..100_000_u64, 0..100_000_u64, 0..1_000_u64, 0..1_000_u64);
    let texts = prop::collection::vec(".{1,20}", 0..4);
    (texts, prop::collection::vec(call(), 0..3), stop, counts).prop_map(|(texts, calls, stop_reason, counts)| {
        ModelAnswer {
            texts,
            calls,
            stop_reason,
            usage: Usage {
                input_tokens: counts.0,
                output_tokens: counts.1,
                cache_read_input_tokens: counts.2,
                cache_write_input_tokens: counts.3,
                ..Usage::default()
            },
        }
    })
}

impl ModelAnswer {
    fn usage_json(&self) -> Value {
        json!({"inputTokens": self.usage.input_tokens, "outputTokens": self.usage.output_tokens,
            "cacheReadInputTokens": self.usage.cache_read_input_tokens,
            "cacheWriteInputTokens": self.usage.cache_write_input_tokens})
    }

    fn whole(&self) -> Answer {
        let texts = self.texts.iter().map(|text| json!({"text": text}));
        let calls = self.calls.iter().enumerate().map(|(number, call)| converse_block(Block::Use(id(0, number), call)));
        let content: Vec<Value> = texts.chain(calls).collect();
        let body = json!({"output": {"message": {"role": "assistant", "content": content}},
            "stopReason": self.stop_reason, "usage": self.usage_json()});
        Answer { output: Output::Converse(body), usage: Some(self.usage) }
    }

    fn events(&self) -> Vec<StreamEvent> {
        let mut events = vec![event("messageStart", json!({"role": "assistant"}))];
        let mut delta = |block: usize, delta: Value| {
            events.push(event("contentBlockDelta", json!({"contentBlockIndex": block, "delta": delta})));
        };
        for (block, text) in self.texts.iter().enumerate() {
            delta(block, json!({"text": text}));
        }
        for (number, call) in self.calls.iter().enumerate() {
            let block = self.texts.len() + number;
            let start = json!({"toolUse": {"toolUseId": id(0, number), "name": call.name}});
            events.push(event("contentBlockStart", json!({"contentBlockIndex": block, "start": start})));
            let input = call.input.to_string();
            let (first, second) = input.split_at(1);
            for piece in [first, second] {
                let delta = json!({"toolUse": {"input": piece}});
                events.push(event("contentBlockDelta", json!({"contentBlockIndex": block, "delta": delta})));
            }
            events.push(event("contentBlockStop", json!({"contentBlockIndex": block})));
        }
        events.push(event("messageStop", json!({"stopReason": self.stop_reason})));
        events.push(event("metadata", json!({"usage": self.usage_json()})));
        events
    }
}

/// The content of an answer for a client: text, calls with parsed input, stop reason, and all
/// tokens.
type Content = (String, Vec<(String, String, Value)>, Value, u64);

fn parsed(arguments: &Value) -> Value {
    serde_json::from_str(arguments.as_str().expect("arguments")).expect("JSON")
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn content_from_chat(answer: &Value) -> Content {
    let message = &answer["choices"][0]["message"];
    let calls = message["tool_calls"].as_array().into_iter().flatten().map(|call| {
        let function = &call["function"];
        (text_of(&call["id"]), text_of(&function["name"]), parsed(&function["arguments"]))
    });
    let reason = answer["choices"][0]["finish_reason"].clone();
    (text_of(&message["content"]), calls.collect(), reason, answer["usage"]["total_tokens"].as_u64().expect("a count"))
}

fn content_from_chunks(chunks: &[Value]) -> Content {
    let (mut text, mut calls, mut reason, mut tokens) = (String::new(), Vec::new(), Value::Null, 0);
    for chunk in chunks.iter().filter(|chunk| chunk.is_object()) {
        let delta = &chunk["choices"][0]["delta"];
        text += delta["content"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let (index, function) = (call["index"].as_u64().expect("an index") as usize, &call["function"]);
            if index == calls.len() {
                calls.push((text_of(&call["id"]), text_of(&function["name"]), String::new()));
            }
            calls[index].2 += function["arguments"].as_str().unwrap_or_default();
        }
        if !chunk["choices"][0]["finish_reason"].is_null() {
            reason = chunk["choices"][0]["finish_reason"].clone();
        }
        tokens = chunk["usage"]["total_tokens"].as_u64().unwrap_or(tokens);
    }
    let calls = calls.into_iter().map(|(id, name, input)| (id, name, parsed(&json!(input))));
    (text, calls.collect(), reason, tokens)
}

fn tokens_of_message(usage: &Value) -> u64 {
    let names = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
    names.iter().map(|name| usage[name].as_u64().expect("a count")).sum()
}

fn content_from_message(message: &Value) -> Content {
    let blocks = || message["content"].as_array().expect("content").iter();
    let text = blocks().filter_map(|block| block["text"].as_str()).collect();
    let calls = blocks().filter(|block| block["type"] == "tool_use");
    let calls = calls.map(|call| (text_of(&call["id"]), text_of(&call["name"]), call["input"].clone()));
    (text, calls.collect(), message["stop_reason"].clone(), tokens_of_message(&message["usage"]))
}

fn content_from_events(events: &[Value]) -> Content {
    let (mut text, mut calls, mut reason, mut tokens) = (String::new(), Vec::new(), Value::Null, 0);
    for event in events {
        let (block, delta) = (&event["content_block"], &event["delta"]);
        if block["type"] == "tool_use" {
            calls.push((text_of(&block["id"]), text_of(&block["name"]), String::new()));
        }
        text += delta["text"].as_str().unwrap_or_default();
        if let (Some(piece), Some(call)) = (delta["partial_json"].as_str(), calls.last_mut()) {
            call.2 += piece;
        }
        if event["type"] == "message_delta" {
            (reason, tokens) = (delta["stop_reason"].clone(), tokens_of_message(&event["usage"]));
        }
    }
    let calls = calls.into_iter().map(|(id, name, input)| (id, name, parsed(&json!(input))));
    (text, calls.collect(), reason, tokens)
}

proptest! {
    #[test]
    fn a_conversation_reaches_the_model_unchanged_from_every_dialect(rounds in prop::collection::vec(round(), 1..4)) {
        let tools = [json!({"name": "t", "description": "d", "input_schema": {"type": "object"}})];
        let function = json!({"name": "t", "description": "d", "parameters": {"type": "object"}});
        let chat = json!({"model": "m", "max_tokens": 9, "temperature": 0.5, "stop": ["END"],
            "tools": [{"type": "function", "function": function}], "messages": chat_messages(&rounds)});
        let messages = json!({"model": "m", "max_tokens": 9, "temperature": 0.5, "stop_sequences": ["END"],
            "system": "Be kind.", "tools": tools, "messages": turns(&rounds, anthropic_block)});
        let spec = json!({"name": "t", "inputSchema": {"json": {"type": "object"}}, "description": "d"});
        let converse = json!({"system": [{"text": "Be kind."}], "messages": turns(&rounds, converse_block),
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "stopSequences": ["END"]},
            "toolConfig": {"tools": [{"toolSpec": spec}]}});
        let mut bodies = [(Api::ChatCompletions, chat), (Api::Messages, messages), (Api::Converse, converse)]
            .map(|(api, request)| body(&parse(api, &request)).clone());
        // Only Anthropic's API reports which sequence stopped the model.
        bodies[1].shift_remove("additionalModelResponseFieldPaths");
        prop_assert_eq!(&bodies[0], &bodies[2]);
        prop_assert_eq!(&bodies[1], &bodies[2]);
    }

    #[test]
    fn an_answer_reaches_every_caller_unchanged_whole_or_streamed(answer in model_answer()) {
        let calls: Vec<(String, String, Value)> = answer.calls.iter().enumerate()
            .map(|(number, call)| (id(0, number), call.name.clone(), call.input.clone())).collect();
        let usage = &answer.usage;
        let tokens = usage.all_input_tokens() + usage.output_tokens;
        let (finish_reason, stop_reason) = match answer.stop_reason {
            "tool_use" => ("tool_calls", "tool_use"),
            "max_tokens" => ("length", "max_tokens"),
            "stop_sequence" => ("stop", "stop_sequence"),
            "guardrail_intervened" => ("content_filter", "refusal"),
            _ => ("stop", "end_turn"),
        };
        let expected = |reason: &str| (answer.texts.concat(), calls.clone(), json!(reason), tokens);
        let with_usage = AnswerContext { echo: Echo { include_usage: true, ..Echo::default() }, ..context() };
        let chat = rendered(Api::ChatCompletions, &answer.whole());
        prop_assert_eq!(content_from_chat(&chat), expected(finish_reason));
        let chunks = payloads(&streamed(Api::ChatCompletions, with_usage, &answer.events()));
        prop_assert_eq!(content_from_chunks(&chunks), expected(finish_reason));
        let message = rendered(Api::Messages, &answer.whole());
        prop_assert_eq!(content_from_message(&message), expected(stop_reason));
        let events = payloads(&streamed(Api::Messages, context(), &answer.events()));
        prop_assert_eq!(content_from_events(&events), expected(stop_reason));
    }
}
