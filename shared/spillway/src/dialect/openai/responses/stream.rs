//! Encodes ConverseStream events as response stream events.
//!
//! Converse does not announce text blocks and reports the stop reason only at the end. OpenAI's
//! clients expect every item to be opened, filled and closed with its status, so an item stays open
//! until the next item begins or the message ends.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    background::{ResponseState, error_code},
    item::{MESSAGE, OutputItem, TextEvents},
    response::{self, COMPLETED, IN_PROGRESS, QUEUED, ResponseStatus},
};
use crate::{
    chat::StreamEvent,
    dialect::{
        AnswerContext,
        json::object_of,
        openai,
        reply::{self, ConverseEvent},
        sse,
    },
    problem::Problem,
    usage::Usage,
};

/// Encoder of one stream of response events.
#[derive(Debug)]
pub struct ResponseStream {
    context: AnswerContext,
    /// Number of the next event.
    sequence: u64,
    /// Complete items.
    closed: Vec<Value>,
    /// Item that receives deltas.
    open: Option<OpenItem>,
    usage: Option<Usage>,
    status: ResponseStatus,
    is_announced: bool,
    has_started: bool,
    is_over: bool,
}

#[derive(Debug)]
struct OpenItem {
    /// Number of the block in Converse.
    block: u64,
    id: String,
    item: OutputItem,
}

impl OpenItem {
    /// Appends the text of a delta.
    fn push(&mut self, delta: &str) {
        match &mut self.item {
            OutputItem::Message(text) | OutputItem::Reasoning { text, .. } | OutputItem::Call { input: text, .. } => {
                text.push_str(delta);
            }
            OutputItem::Redacted(_) => {}
        }
    }
}

impl ResponseStream {
    pub fn new(context: AnswerContext) -> Self {
        Self {
            context,
            sequence: 0,
            closed: Vec::new(),
            open: None,
            usage: None,
            status: COMPLETED,
            is_announced: false,
            has_started: false,
            is_over: false,
        }
    }

    /// Encodes the events of a background response while it waits. Returns no bytes for other
    /// responses.
    pub fn announce(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        if self.context.echo.response.background {
            self.create(&mut out);
        }
        out.freeze()
    }

    /// Continues after `events` events that have been sent on another connection.
    pub fn skip(&mut self, events: u64) {
        let before_start = if self.context.echo.response.background { 2 } else { 1 };
        self.sequence = events;
        self.is_announced = events > 0;
        self.has_started = events > before_start;
    }

    /// Ends the stream of a response without an answer.
    pub fn end_as(&mut self, state: &ResponseState) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.create(&mut out);
            // OpenAI has no event for a cancelled response; the status in the response shows it.
            let is_failed = matches!(state, ResponseState::Failed { .. });
            let name = if is_failed { "response.failed" } else { "response.incomplete" };
            self.send(name, object_of([("response", state.response(&self.context))]), &mut out);
        }
        out.freeze()
    }

    /// Ends the connection but not the response. The error is not an event of the response, so it
    /// repeats the number of the last event, after which the caller can resume the stream.
    pub fn interrupt(&mut self, problem: &Problem) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.sequence = self.sequence.saturating_sub(1);
            self.send("error", error_event(problem), &mut out);
        }
        out.freeze()
    }

    pub fn event(&mut self, event: &StreamEvent) -> Bytes {
        let StreamEvent::Converse { name, payload } = event else { return Bytes::new() };
        let mut out = BytesMut::new();
        if !self.is_over {
            match reply::event(name, payload) {
                ConverseEvent::Other => {}
                event => {
                    self.start(&mut out);
                    self.converse_event(event, &mut out);
                }
            }
        }
        out.freeze()
    }

    /// Sends the problem in two events: OpenAI's SDKs raise an exception at an `error`, and other
    /// clients wait for the end of the response.
    pub fn problem(&mut self, problem: &Problem) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.start(&mut out);
            self.send("error", error_event(problem), &mut out);
            let code = error_code(problem.kind);
            let mut response = self.response(ResponseStatus::new("failed"));
            response["error"] = json!({"code": code, "message": problem.message});
            self.send("response.failed", object_of([("response", response)]), &mut out);
        }
        out.freeze()
    }

    pub fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            self.start(&mut out);
            self.close(self.status.name, &mut out);
            let name =
                if self.status.incomplete_reason.is_some() { "response.incomplete" } else { "response.completed" };
            let response = self.response(self.status);
            self.send(name, object_of([("response", response)]), &mut out);
        }
        out.freeze()
    }

    fn create(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.is_announced, true) {
            return;
        }
        let (status, names) = match self.context.echo.response.background {
            true => (QUEUED, &["response.created", "response.queued"][..]),
            false => (IN_PROGRESS, &["response.created"][..]),
        };
        for name in names {
            self.send(name, object_of([("response", self.response(status))]), out);
        }
    }

    fn start(&mut self, out: &mut BytesMut) {
        self.create(out);
        if !std::mem::replace(&mut self.has_started, true) {
            let response = self.response(IN_PROGRESS);
            self.send("response.in_progress", object_of([("response", response)]), out);
        }
    }

    fn converse_event(&mut self, event: ConverseEvent, out: &mut BytesMut) {
        match event {
            ConverseEvent::MessageStart | ConverseEvent::BlockStop { .. } | ConverseEvent::Other => {}
            ConverseEvent::ToolUseStart { block, id, name } => {
                self.open(
                    block,
                    OutputItem::Call { id: id.to_owned(), name: name.to_owned(), input: String::new() },
                    out,
                );
            }
            ConverseEvent::Text { text: "", .. } => {}
            ConverseEvent::Text { block, text } => {
                if !matches!(self.open, Some(OpenItem { item: OutputItem::Message(_), .. })) {
                    self.open(block, OutputItem::Message(String::new()), out);
                }
                self.delta(text, out);
            }
            ConverseEvent::ToolInput { block, json } => {
                if matches!(&self.open, Some(open) if open.block == block && matches!(open.item, OutputItem::Call { .. }))
                {
                    self.delta(json, out);
                }
            }
            ConverseEvent::Reasoning { block, text } => {
                self.ensure_reasoning(block, out);
                self.delta(text, out);
            }
            ConverseEvent::Signature { block, signature: signed } => {
                self.ensure_reasoning(block, out);
                if let Some(OpenItem { item: OutputItem::Reasoning { signature, .. }, .. }) = &mut self.open {
                    signature.push_str(signed);
                }
            }
            ConverseEvent::Redacted { block, data } => self.open(block, OutputItem::Redacted(data.to_owned()), out),
            ConverseEvent::MessageStop { reason, .. } => {
                self.status = ResponseStatus::from_stop_reason(reason);
                self.close(self.status.name, out);
            }
            ConverseEvent::Metadata(usage) => self.usage = Some(usage),
        }
    }

    fn ensure_reasoning(&mut self, wanted: u64, out: &mut BytesMut) {
        let is_open = |open: &OpenItem| open.block == wanted && matches!(open.item, OutputItem::Reasoning { .. });
        if !self.open.as_ref().is_some_and(is_open) {
            self.open(wanted, OutputItem::Reasoning { text: String::new(), signature: String::new() }, out);
        }
    }

    fn open(&mut self, block: u64, item: OutputItem, out: &mut BytesMut) {
        self.close(COMPLETED.name, out);
        let echo = &self.context.echo.response;
        let id = item.id(&self.context.request_id, self.closed.len(), echo);
        let shape = item.render(&id, IN_PROGRESS.name, echo);
        self.send("response.output_item.added", json!({"output_index": self.closed.len(), "item": shape}), out);
        self.open = Some(OpenItem { block, id, item });
    }

    fn delta(&mut self, delta: &str, out: &mut BytesMut) {
        let Some(mut open) = self.open.take() else { return };
        let echo = &self.context.echo.response;
        let events = TextEvents::for_item(&open.item, echo);
        let first_part = open.item.part("", echo).filter(|_| open.item.text(echo).is_empty());
        if let Some(part) = first_part.filter(|_| !delta.is_empty()) {
            self.send_text(&open, &events, &format!("{}.added", events.part), json!({"part": part}), out);
        }
        open.push(delta);
        if !delta.is_empty() && events.has_deltas {
            self.send_text(&open, &events, &format!("{}.delta", events.text), json!({"delta": delta}), out);
        }
        self.open = Some(open);
    }

    fn close(&mut self, status: &str, out: &mut BytesMut) {
        let Some(mut open) = self.open.take() else { return };
        let events = TextEvents::for_item(&open.item, &self.context.echo.response);
        // A call of a tool without parameters has no input at all, but callers parse the arguments
        // as JSON.
        if matches!(&open.item, OutputItem::Call { input, .. } if input.is_empty()) && events.has_deltas {
            open.push("{}");
            self.send_text(&open, &events, &format!("{}.delta", events.text), json!({"delta": "{}"}), out);
        }
        let echo = &self.context.echo.response;
        let text = open.item.text(echo).into_owned();
        let (part, item) = (open.item.part(&text, echo), open.item.render(&open.id, status, echo));
        if !text.is_empty() {
            if !events.has_deltas {
                self.send_text(&open, &events, &format!("{}.delta", events.text), json!({"delta": text}), out);
            }
            self.send_text(&open, &events, &format!("{}.done", events.text), json!({events.whole: text}), out);
            if let Some(part) = part {
                self.send_text(&open, &events, &format!("{}.done", events.part), json!({"part": part}), out);
            }
        }
        let done = json!({"output_index": self.closed.len(), "item": item});
        self.closed.push(item);
        self.send("response.output_item.done", done, out);
    }

    /// Sends an event about the text of the open item.
    fn send_text(&mut self, open: &OpenItem, events: &TextEvents, name: &str, members: Value, out: &mut BytesMut) {
        let mut event = json!({"item_id": open.id, "output_index": self.closed.len()});
        if let Some(index) = events.index {
            event[index] = json!(0);
        }
        if name.starts_with(MESSAGE.text) {
            event["logprobs"] = json!([]);
        }
        merge(&mut event, members);
        self.send(name, event, out);
    }

    fn send(&mut self, name: &str, members: Value, out: &mut BytesMut) {
        let mut event = json!({"type": name, "sequence_number": self.sequence});
        self.sequence += 1;
        merge(&mut event, members);
        sse::append(out, name, &event);
    }

    fn response(&self, status: ResponseStatus) -> Value {
        response::response(&self.context, status, self.closed.clone(), self.usage.as_ref())
    }
}

/// Renders a problem as an event. It has its members in both places where OpenAI's SDKs look for
/// them.
fn error_event(problem: &Problem) -> Value {
    let mut event = openai::problem(problem);
    for name in ["code", "message", "param"] {
        event[name] = event["error"][name].clone();
    }
    event
}

fn merge(event: &mut Value, members: Value) {
    if let (Value::Object(event), Value::Object(members)) = (event, members) {
        event.extend(members);
    }
}
