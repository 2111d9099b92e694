//! Bodies of a given size for the benchmarks of the data path, without a network.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use spillway::{
    chat::{Answer, Format, NativeReply, Output, Overlaid, StreamEvent},
    dialect::{AnswerContext, Api, Echo, Rendered},
    stored_headers::StoredHeaders,
    units::UnixMs,
    usage::Usage,
};

const TEXT: &str = "An operator that pays for capacity wants to see it used before \"anything else\" is bought.\n";

fn text(bytes: usize) -> String {
    TEXT.chars().cycle().take(bytes).collect()
}

fn context() -> AnswerContext {
    AnswerContext {
        request_id: "r1".into(),
        model: "model".into(),
        created_at: UnixMs::from_ms(1_700_000_000_000),
        echo: Echo::default(),
    }
}

/// A body as it comes from a caller.
pub struct Asked {
    api: Api,
    format: Option<Format>,
    body: Vec<u8>,
}

impl Asked {
    /// One message with a text of `bytes`.
    pub fn text(api: Api, bytes: usize) -> Self {
        Self::content(
            api,
            match api {
                Api::Converse => json!([{"text": text(bytes)}]),
                _ => json!(text(bytes)),
            },
        )
    }

    /// One message with a question and an image of `bytes` in base64.
    pub fn image(api: Api, bytes: usize) -> Self {
        let data = "iVBORw0KGgo+".chars().cycle().take(bytes / 4 * 4).collect::<String>();
        Self::content(
            api,
            match api {
                Api::Converse => {
                    json!([{"text": TEXT}, {"image": {"format": "png", "source": {"bytes": data}}}])
                }
                Api::Messages => json!([
                    {"type": "text", "text": TEXT},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
                ]),
                _ => json!([
                    {"type": "text", "text": TEXT},
                    {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}},
                ]),
            },
        )
    }

    /// The same for a model that takes Anthropic's messages as they are.
    pub fn for_claude(self) -> Self {
        Self { format: Some(Format::Messages), ..self }
    }

    fn content(api: Api, content: Value) -> Self {
        let messages = json!([{"role": "user", "content": content}]);
        let body = match api {
            Api::Converse => json!({"messages": messages, "inferenceConfig": {"maxTokens": 256}}),
            _ => json!({"model": "model", "max_tokens": 256, "messages": messages}),
        };
        Self { api, format: None, body: body.to_string().into_bytes() }
    }

    /// The body that the model is sent, with another output limit.
    pub fn send(&self) -> Vec<u8> {
        let draft = self.api.read(&self.body, Some("model"), false).expect("a right request");
        let (request, _) = draft.request(self.format, &HeaderMap::new()).expect("a right request");
        let body = &request.input.bodies()[0];
        let members = request.input.with_max_tokens(body, 128).into_iter().collect();
        serde_json::to_vec(&Overlaid { body, members }).expect("JSON")
    }
}

/// A complete answer as it comes from the model.
pub struct Answered {
    api: Api,
    context: AnswerContext,
    answer: Answer,
}

impl Answered {
    /// An answer of Converse with a text of `bytes`.
    pub fn text(api: Api, bytes: usize) -> Self {
        let output = Output::Converse(json!({
            "output": {"message": {"role": "assistant", "content": [{"text": text(bytes)}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 10, "outputTokens": 20, "totalTokens": 30},
        }));
        Self { api, context: context(), answer: Answer { output, usage: Some(Usage::default()) } }
    }

    /// Claude's own answer with a text of `bytes`.
    pub fn of_claude(bytes: usize) -> Self {
        let body = json!({"type": "message", "content": [{"type": "text", "text": text(bytes)}]}).to_string();
        let output = Output::Native(vec![NativeReply { headers: StoredHeaders::default(), body: body.into() }]);
        Self { api: Api::Messages, context: context(), answer: Answer { output, usage: Some(Usage::default()) } }
    }

    /// The caller's answer.
    pub fn render(&self) -> Rendered {
        self.api.answer(&self.context, &self.answer)
    }
}

/// A thousand events of a stream, each with a few words.
pub struct Streamed {
    api: Api,
    events: Vec<StreamEvent>,
}

impl Streamed {
    /// Deltas of ConverseStream.
    pub fn text(api: Api) -> Self {
        let payload = json!({"contentBlockIndex": 0, "delta": {"text": "before anything else "}});
        Self { api, events: vec![StreamEvent::Converse { name: "contentBlockDelta".to_owned(), payload }; 1_000] }
    }

    /// Claude's own deltas.
    pub fn of_claude() -> Self {
        let delta = json!({"type": "text_delta", "text": "before anything else "});
        let event = json!({"type": "content_block_delta", "index": 0, "delta": delta}).to_string();
        Self { api: Api::Messages, events: vec![StreamEvent::Native(Bytes::from(event)); 1_000] }
    }

    /// How many bytes the caller is sent.
    pub fn encode(&self) -> usize {
        let mut encoder = self.api.stream(context());
        self.events.iter().map(|event| encoder.event(event).len()).sum()
    }
}
