//! Path and body of a planned request in its dialect.

use reqwest::Url;
use serde::Serialize;
use spillway::dialect::Dialect;
use spillway_stand_ins::bedrock::tokens::sized_prompt;

use super::plan::Planned;

/// Returns the URL of the request.
pub fn url(base: &Url, planned: &Planned) -> Url {
    let mut url = base.clone();
    // `Broker::new` rejects a base URL that cannot have a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        match planned.dialect {
            Dialect::OpenAi => path.extend(["v1", "chat", "completions"]),
            Dialect::Anthropic => path.extend(["v1", "messages"]),
            Dialect::Bedrock if planned.streams => path.extend(["model", &planned.model, "converse-stream"]),
            Dialect::Bedrock => path.extend(["model", &planned.model, "converse"]),
        };
    }
    url
}

/// Returns the JSON body of the request.
///
/// # Errors
/// Never returns an error in practice: the types below always serialise.
pub fn body(planned: &Planned) -> serde_json::Result<Vec<u8>> {
    let prompt = sized_prompt(planned.input_tokens, planned.output_tokens);
    match planned.dialect {
        Dialect::OpenAi => serde_json::to_vec(&OpenAi {
            model: &planned.model,
            messages: [Message { role: "user", content: &prompt }],
            max_completion_tokens: planned.max_tokens,
            stream: planned.streams,
            stream_options: planned.streams.then_some(StreamOptions { include_usage: true }),
        }),
        Dialect::Anthropic => serde_json::to_vec(&Anthropic {
            model: &planned.model,
            messages: [Message { role: "user", content: &prompt }],
            max_tokens: planned.max_tokens,
            stream: planned.streams,
        }),
        Dialect::Bedrock => serde_json::to_vec(&Bedrock {
            messages: [Message { role: "user", content: [Text { text: &prompt }] }],
            inference_config: InferenceConfig { max_tokens: planned.max_tokens },
        }),
    }
}

#[derive(Serialize)]
struct Message<C> {
    role: &'static str,
    content: C,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    model: &'a str,
    messages: [Message<&'a str>; 1],
    max_completion_tokens: u64,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    model: &'a str,
    messages: [Message<&'a str>; 1],
    max_tokens: u64,
    stream: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bedrock<'a> {
    messages: [Message<[Text<'a>; 1]>; 1],
    inference_config: InferenceConfig,
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InferenceConfig {
    max_tokens: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn planned(dialect: Dialect, streams: bool) -> Planned {
        Planned {
            due: Duration::ZERO,
            authorization: HeaderValue::from_static("Bearer key"),
            model: "anthropic/claude:1".into(),
            dialect,
            streams,
            may_queue: true,
            input_tokens: 40,
            output_tokens: 9,
            max_tokens: 64,
        }
    }

    fn written(planned: &Planned) -> (String, Value) {
        let base = "http://localhost:1/prefix/".parse().unwrap();
        (url(&base, planned).to_string(), serde_json::from_slice(&body(planned).unwrap()).unwrap())
    }

    #[test]
    fn openai_requests_ask_for_the_usage_of_a_stream() {
        let (url, body) = written(&planned(Dialect::OpenAi, true));
        assert_eq!(url, "http://localhost:1/prefix/v1/chat/completions");
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
        assert_eq!(body["max_completion_tokens"], 64);
        assert_eq!(body["messages"][0]["content"], sized_prompt(40, 9));
        assert!(written(&planned(Dialect::OpenAi, false)).1.get("stream_options").is_none());
    }

    #[test]
    fn anthropic_requests_go_to_messages() {
        let (url, body) = written(&planned(Dialect::Anthropic, true));
        assert_eq!(url, "http://localhost:1/prefix/v1/messages");
        assert_eq!((&body["stream"], &body["max_tokens"]), (&json!(true), &json!(64)));
    }

    #[test]
    fn bedrock_requests_have_the_encoded_model_in_the_path() {
        let (url, body) = written(&planned(Dialect::Bedrock, true));
        assert_eq!(url, "http://localhost:1/prefix/model/anthropic%2Fclaude:1/converse-stream");
        assert_eq!(body["inferenceConfig"], json!({"maxTokens": 64}));
        assert_eq!(body["messages"][0]["content"][0]["text"], sized_prompt(40, 9));
        assert!(written(&planned(Dialect::Bedrock, false)).0.ends_with("/converse"));
    }
}
