//! Response stream events from ConverseStream events.
//!
//! Converse does not announce text blocks and says only at the end why it stopped. OpenAI's clients want every item
//! opened, filled and closed with its status, so an item stays open until the next one begins or the message ends.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::answer::{self, COMPLETED, End, QUEUED, UNDER_WAY};
use super::background::{Standing, error_code};
use super::item::Item;
use super::voice::{TEXT, Voice};
use crate::dialect::Context;
use crate::dialect::openai;
use crate::dialect::reply::{self, Step};
use crate::dialect::sse;
use crate::{chat::Event, problem::Problem, usage::Usage};

/// One stream of response events.
#[derive(Debug)]
pub struct Stream {
    context: Context,
    /// The number of the next event.
    sequence: u64,
    /// The items so far.
    closed: Vec<Value>,
    /// The item that takes deltas now.
    open: Option<Open>,
    usage: Option<Usage>,
    end: End,
    is_announced: bool,
    has_started: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Open {
    /// Converse's number of the block.
    block: u64,
    id: String,
    item: Item,
}

impl Open {
    /// The text that came with a delta.
    fn push(&mut self, delta: &str) {
        match &mut self.item {
            Item::Message(text) | Item::Reasoning { text, .. } | Item::Call { input: text, .. } => text.push_str(delta),
            Item::Redacted(_) => {}
        }
    }
}

impl Stream {
    pub fn new(context: Context) -> Self {
        Self {
            context,
            sequence: 0,
            closed: Vec::new(),
            open: None,
            usage: None,
            end: COMPLETED,
            is_announced: false,
            has_started: false,
            is_over: false,
        }
    }

    /// What is told of a background response before its turn comes; of others nothing is.
    pub fn announce(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        if self.context.echo.response.background {
            self.create(&mut out);
        }
        out.freeze()
    }

    /// Goes on after `events` events that were told elsewhere.
    pub fn skip(&mut self, events: u64) {
        let before_start = if self.context.echo.response.background { 2 } else { 1 };
        self.sequence = events;
        self.is_announced = events > 0;
        self.has_started = events > before_start;
    }

    /// Ends the stream of a response that has no answer.
    pub fn end_as(&mut self, standing: &Standing) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.create(&mut out);
            // OpenAI has no event for a cancelled response: its status tells.
            let is_failed = matches!(standing, Standing::Failed { .. });
            let name = if is_failed { "response.failed" } else { "response.incomplete" };
            self.send(name, json!({"response": standing.response(&self.context)}), &mut out);
        }
        out.freeze()
    }

    /// Ends the connection and not the response: the error is no event of the response, so it repeats the number of the last
    /// one, after which the stream can be asked for again.
    pub fn interrupt(&mut self, problem: &Problem) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.sequence = self.sequence.saturating_sub(1);
            self.send("error", told(problem), &mut out);
        }
        out.freeze()
    }

    pub fn event(&mut self, event: &Event) -> Bytes {
        let Event::Converse { name, payload } = event else { return Bytes::new() };
        let mut out = BytesMut::new();
        if !self.is_over {
            match reply::step(name, payload) {
                Step::Other => {}
                step => {
                    self.start(&mut out);
                    self.step(step, &mut out);
                }
            }
        }
        out.freeze()
    }

    /// Told twice: OpenAI's SDKs raise what has an `error`, others wait for the end of the response.
    pub fn problem(&mut self, problem: &Problem) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.start(&mut out);
            self.send("error", told(problem), &mut out);
            let code = error_code(problem.kind);
            let end = End { status: "failed", reason: None };
            let mut response = self.response(end);
            response["error"] = json!({"code": code, "message": problem.message});
            self.send("response.failed", json!({"response": response}), &mut out);
        }
        out.freeze()
    }

    pub fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.start(&mut out);
            self.close(self.end.status, &mut out);
            let name = if self.end.reason.is_some() { "response.incomplete" } else { "response.completed" };
            let response = self.response(self.end);
            self.send(name, json!({"response": response}), &mut out);
        }
        out.freeze()
    }

    fn create(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.is_announced, true) {
            return;
        }
        let is_queued = self.context.echo.response.background;
        let response = self.response(if is_queued { QUEUED } else { UNDER_WAY });
        self.send("response.created", json!({"response": response}), out);
        if is_queued {
            self.send("response.queued", json!({"response": response}), out);
        }
    }

    fn start(&mut self, out: &mut BytesMut) {
        self.create(out);
        if !std::mem::replace(&mut self.has_started, true) {
            let response = self.response(UNDER_WAY);
            self.send("response.in_progress", json!({"response": response}), out);
        }
    }

    fn step(&mut self, step: Step, out: &mut BytesMut) {
        match step {
            Step::MessageStart | Step::BlockStop { .. } | Step::Other => {}
            Step::ToolUseStart { block, id, name } => {
                self.open(block, Item::Call { id: id.to_owned(), name: name.to_owned(), input: String::new() }, out);
            }
            Step::Text { text: "", .. } => {}
            Step::Text { block, text } => {
                if !matches!(self.open, Some(Open { item: Item::Message(_), .. })) {
                    self.open(block, Item::Message(String::new()), out);
                }
                self.delta(text, out);
            }
            Step::ToolInput { block, json } => {
                if matches!(&self.open, Some(open) if open.block == block && matches!(open.item, Item::Call { .. })) {
                    self.delta(json, out);
                }
            }
            Step::Reasoning { block, text } => {
                self.ensure_reasoning(block, out);
                self.delta(text, out);
            }
            Step::Signature { block, signature: signed } => {
                self.ensure_reasoning(block, out);
                if let Some(Open { item: Item::Reasoning { signature, .. }, .. }) = &mut self.open {
                    signature.push_str(signed);
                }
            }
            Step::Redacted { block, data } => self.open(block, Item::Redacted(data.to_owned()), out),
            Step::MessageStop { reason, .. } => {
                self.end = answer::end(reason);
                self.close(self.end.status, out);
            }
            Step::Metadata(usage) => self.usage = Some(usage),
        }
    }

    fn ensure_reasoning(&mut self, wanted: u64, out: &mut BytesMut) {
        let is_open = |open: &Open| open.block == wanted && matches!(open.item, Item::Reasoning { .. });
        if !self.open.as_ref().is_some_and(is_open) {
            self.open(wanted, Item::Reasoning { text: String::new(), signature: String::new() }, out);
        }
    }

    fn open(&mut self, block: u64, item: Item, out: &mut BytesMut) {
        self.close(COMPLETED.status, out);
        let echo = &self.context.echo.response;
        let id = item.id(&self.context.request_id, self.closed.len(), echo);
        let shape = item.render(&id, UNDER_WAY.status, echo);
        self.send("response.output_item.added", json!({"output_index": self.closed.len(), "item": shape}), out);
        self.open = Some(Open { block, id, item });
    }

    fn delta(&mut self, delta: &str, out: &mut BytesMut) {
        let Some(mut open) = self.open.take() else { return };
        let echo = &self.context.echo.response;
        let voice = Voice::of(&open.item, echo);
        let first_part = open.item.part("", echo).filter(|_| open.item.text(echo).is_empty());
        if let Some(part) = first_part.filter(|_| !delta.is_empty()) {
            self.tell(&open, &voice, &format!("{}.added", voice.part), json!({"part": part}), out);
        }
        open.push(delta);
        if !delta.is_empty() && voice.tells_deltas {
            self.tell(&open, &voice, &format!("{}.delta", voice.text), json!({"delta": delta}), out);
        }
        self.open = Some(open);
    }

    fn close(&mut self, status: &str, out: &mut BytesMut) {
        let Some(mut open) = self.open.take() else { return };
        let voice = Voice::of(&open.item, &self.context.echo.response);
        // A tool that takes nothing gets no input at all, and callers parse the arguments as JSON.
        if matches!(&open.item, Item::Call { input, .. } if input.is_empty()) && voice.tells_deltas {
            open.push("{}");
            self.tell(&open, &voice, &format!("{}.delta", voice.text), json!({"delta": "{}"}), out);
        }
        let echo = &self.context.echo.response;
        let text = open.item.text(echo).into_owned();
        let (part, item) = (open.item.part(&text, echo), open.item.render(&open.id, status, echo));
        if !text.is_empty() {
            if !voice.tells_deltas {
                self.tell(&open, &voice, &format!("{}.delta", voice.text), json!({"delta": text}), out);
            }
            self.tell(&open, &voice, &format!("{}.done", voice.text), json!({voice.whole: text}), out);
            if let Some(part) = part {
                self.tell(&open, &voice, &format!("{}.done", voice.part), json!({"part": part}), out);
            }
        }
        let done = json!({"output_index": self.closed.len(), "item": item});
        self.closed.push(item);
        self.send("response.output_item.done", done, out);
    }

    /// An event about the text of the open item.
    fn tell(&mut self, open: &Open, voice: &Voice, name: &str, members: Value, out: &mut BytesMut) {
        let mut event = json!({"item_id": open.id, "output_index": self.closed.len()});
        if let Some(index) = voice.index {
            event[index] = json!(0);
        }
        if name.starts_with(TEXT.text) {
            event["logprobs"] = json!([]);
        }
        merge(&mut event, members);
        self.send(name, event, out);
    }

    fn send(&mut self, name: &str, members: Value, out: &mut BytesMut) {
        let mut event = json!({"type": name, "sequence_number": self.sequence});
        self.sequence += 1;
        merge(&mut event, members);
        out.extend_from_slice(&sse::named(name, &event.to_string()));
    }

    fn response(&self, end: End) -> Value {
        answer::response(&self.context, end, self.closed.clone(), self.usage.as_ref())
    }
}

/// A problem as an event: OpenAI's SDKs look for its parts in two places.
fn told(problem: &Problem) -> Value {
    let mut told = openai::problem(problem);
    for name in ["code", "message", "param"] {
        told[name] = told["error"][name].clone();
    }
    told
}

fn merge(event: &mut Value, members: Value) {
    if let (Value::Object(event), Value::Object(members)) = (event, members) {
        event.extend(members);
    }
}
