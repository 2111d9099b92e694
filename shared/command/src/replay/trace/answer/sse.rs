//! Reads server-sent events of the OpenAI and Anthropic dialects line by line.

use std::borrow::Cow;

use serde::Deserialize;

use super::{ErrorObject, Progress, Usage};

/// Reader of server-sent events. Lines are parsed in place; only a line that is split between two
/// pieces is copied.
#[derive(Debug, Default)]
pub struct ServerSentEvents {
    unfinished_line: Vec<u8>,
    pub(super) progress: Progress,
}

impl ServerSentEvents {
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            if self.unfinished_line.is_empty() {
                self.progress.line(line);
            } else {
                self.unfinished_line.extend_from_slice(line);
                self.progress.line(&self.unfinished_line);
                self.unfinished_line.clear();
            }
            piece = rest;
        }
        self.unfinished_line.extend_from_slice(piece);
    }
}

impl Progress {
    fn line(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return };
        if data == b"[DONE]" {
            self.ended = true;
            return;
        }
        match serde_json::from_slice::<Event>(data) {
            Ok(event) => self.event(event),
            Err(_) => self.error = Some("unreadable event".to_owned()),
        }
    }

    fn event(&mut self, event: Event) {
        self.usage(event.usage);
        self.usage(event.message.and_then(|message| message.usage));
        let has_content = |choice: &Choice| choice.delta.content.as_deref().is_some_and(|text| !text.is_empty());
        self.content |= event.choices.iter().flatten().any(has_content);
        match event.kind.as_deref() {
            Some("content_block_delta") => self.content = true,
            Some("message_stop") => self.ended = true,
            _ => {}
        }
        if event.error.is_some() || event.kind.as_deref() == Some("error") {
            let name = event.error.and_then(|error| error.name());
            self.error = Some(name.unwrap_or_else(|| "unnamed".to_owned()));
        }
    }
}

/// The fields of an event that matter, in either dialect.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    message: Option<Started>,
    usage: Option<Usage>,
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Delta<'a>,
}

#[derive(Deserialize, Default)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Started {
    usage: Option<Usage>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::replay::trace::answer::{Reader, Usage};

    const OPENAI: &str = concat!(
        ": waiting in line\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a \\\"b\\\"\"}}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\r\n\r\n",
        "data: [DONE]\n\n",
    );
    const ANTHROPIC: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":2}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    fn read(stream: &str, size: usize) -> Reader {
        let mut reader = Reader::new("text/event-stream; charset=utf-8");
        stream.as_bytes().chunks(size).for_each(|piece| reader.push(Bytes::copy_from_slice(piece)));
        reader
    }

    fn check(stream: &str, expected: Result<Option<Usage>, &str>) {
        for size in [1, 5, 17, 4096] {
            assert_eq!(read(stream, size).finish(), expected.map_err(str::to_owned), "in pieces of {size}");
        }
    }

    #[test]
    fn both_dialects_end_with_their_usage() {
        check(OPENAI, Ok(Some(Usage { input_tokens: 5, output_tokens: 2 })));
        check(ANTHROPIC, Ok(Some(Usage { input_tokens: 5, output_tokens: 2 })));
    }

    #[test]
    fn only_content_that_is_not_empty_counts_as_the_first_token() {
        for (stream, first) in [(OPENAI, "a \\\"b"), (ANTHROPIC, "text_delta")] {
            let position = stream.find(first).unwrap();
            assert!(!read(&stream[..position], 4096).has_streamed_content());
            assert!(read(stream, 4096).has_streamed_content());
        }
    }

    #[test]
    fn a_stream_without_its_last_event_is_cut_short() {
        check(OPENAI.trim_end().trim_end_matches("data: [DONE]"), Err("stream cut short"));
        check(&ANTHROPIC[..ANTHROPIC.rfind("event:").unwrap()], Err("stream cut short"));
        check("", Err("stream cut short"));
    }

    #[test]
    fn an_error_inside_a_stream_is_named() {
        check(
            "data: {\"error\":{\"type\":\"server_error\"}}\n\ndata: [DONE]\n",
            Err("error in the stream: server_error"),
        );
        check(
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            Err("error in the stream: overloaded_error"),
        );
        check("data: {\"choices\n", Err("error in the stream: unreadable event"));
    }
}
