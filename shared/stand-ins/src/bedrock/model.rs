//! The simulated model. The same prompt always gets the same answer.
//!
//! Directives in the last user message control the answer. `[[output_tokens=N]]` requests a text of
//! exactly N tokens. `[[tool=NAME]]` or `[[tool=NAME {json}]]` requests a call of that tool if the
//! request offers it; several of them request several calls in the same answer.
//! `[[thinking_tokens=N]]` sets the length of the thinking if the request enables thinking. Without
//! directives, the answer echoes the question or satisfies the JSON schema of the request.

use serde_json::Value;

use super::{json_schema, output_members::AnswerCount, prompt::Prompt, thinking, tokens};

/// A complete answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// Content in order.
    pub blocks: Vec<Block>,
    /// Reason for the end, with the name of Anthropic's Messages format.
    pub stop_reason: &'static str,
    /// Stop sequence that ended the answer.
    pub stop_sequence: Option<String>,
    /// Output tokens of all answers, including thinking.
    pub output_tokens: u64,
    /// Tokens of the thinking of all answers.
    pub thinking_tokens: u64,
    /// Number of times that the answer is in the response, if its format has choices.
    pub choices: u64,
}

/// A non-empty content block of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Block {
    Thinking(String),
    Text(String),
    ToolUse(ToolUse),
}

/// A tool call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolUse {
    /// Id of the call.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// Arguments.
    pub input: Value,
}

impl Answer {
    /// Creates an answer without tokens.
    pub fn empty(stop_reason: &'static str) -> Self {
        let (output_tokens, thinking_tokens) = (0, 0);
        Self { blocks: Vec::new(), stop_reason, stop_sequence: None, output_tokens, thinking_tokens, choices: 1 }
    }

    /// Returns the text without thinking and tool calls.
    pub fn text(&self) -> String {
        let text = |block: &Block| match block {
            Block::Text(text) => Some(text.clone()),
            Block::Thinking(_) | Block::ToolUse(_) => None,
        };
        self.blocks.iter().filter_map(text).collect()
    }

    /// Returns the tool calls in order.
    pub fn tool_uses(&self) -> impl Iterator<Item = &ToolUse> {
        self.blocks.iter().filter_map(|block| match block {
            Block::ToolUse(call) => Some(call),
            Block::Thinking(_) | Block::Text(_) => None,
        })
    }
}

/// Answers a prompt with at most `max_tokens` in each answer, and with `default_tokens` if the
/// prompt does not request a length.
pub(super) fn answer(prompt: &Prompt, default_tokens: u64, max_tokens: u64) -> Answer {
    let (echo, directives) = read_directives(&prompt.question);
    let thinking_text = thinking::thinking_text(prompt, directives.thinking_tokens, max_tokens);
    let thinking_tokens = tokens::text_tokens(&thinking_text);
    let room = max_tokens - thinking_tokens;
    let mut answer = tool_answer(prompt, &directives, room).unwrap_or_else(|| match &prompt.schema {
        Some(schema) => json_answer(schema, room),
        None => text_answer(prompt, &echo, directives.output_tokens.unwrap_or(default_tokens), room),
    });
    if thinking_tokens > 0 {
        answer.blocks.insert(0, Block::Thinking(thinking_text));
        answer.thinking_tokens = thinking_tokens;
        answer.output_tokens += thinking_tokens;
    }
    let AnswerCount { returned, generated } = prompt.answers;
    Answer {
        output_tokens: answer.output_tokens.saturating_mul(generated),
        thinking_tokens: answer.thinking_tokens.saturating_mul(generated),
        choices: returned,
        ..answer
    }
}

fn text_answer(prompt: &Prompt, echo: &str, wanted: u64, max_tokens: u64) -> Answer {
    let text = tokens::sized_text(&echo_start(echo, max_tokens.min(wanted)), wanted.min(max_tokens));
    let stop = prompt
        .stop_sequences
        .iter()
        .filter(|sequence| !sequence.is_empty())
        .filter_map(|sequence| text.find(sequence.as_str()).map(|at| (at, sequence)))
        .min_by_key(|(at, _)| *at);
    let (text, stop_reason, stop_sequence) = match stop {
        Some((at, sequence)) => (text[..at].to_owned(), "stop_sequence", Some(sequence.clone())),
        None if wanted > max_tokens => (text, "max_tokens", None),
        None => (text, "end_turn", None),
    };
    Answer { stop_sequence, ..text_only(text, stop_reason) }
}

fn json_answer(schema: &Value, max_tokens: u64) -> Answer {
    let mut text = json_schema::example(schema).to_string();
    let room = usize::try_from(max_tokens).unwrap_or(usize::MAX).saturating_mul(tokens::TOKEN_BYTES);
    if text.len() <= room {
        return text_only(text, "end_turn");
    }
    text.truncate(text.floor_char_boundary(room));
    text_only(text, "max_tokens")
}

fn text_only(text: String, stop_reason: &'static str) -> Answer {
    let output_tokens = tokens::text_tokens(&text);
    let blocks = if text.is_empty() { Vec::new() } else { vec![Block::Text(text)] };
    Answer { blocks, output_tokens, ..Answer::empty(stop_reason) }
}

fn tool_answer(prompt: &Prompt, directives: &Directives, max_tokens: u64) -> Option<Answer> {
    let empty = || Value::Object(serde_json::Map::new());
    let offered = directives.tools.iter().filter(|(name, _)| prompt.tools.contains(name));
    let mut calls: Vec<_> = offered.map(|(name, input)| (name, input.clone().unwrap_or_else(empty))).collect();
    if calls.is_empty() {
        calls.push((prompt.forced_tool.as_ref()?, empty()));
    }
    if prompt.single_tool {
        calls.truncate(1);
    }
    let output_tokens = calls.iter().map(|(name, input)| tokens::tool_use_tokens(name, &input.to_string())).sum();
    if output_tokens > max_tokens {
        return None;
    }
    let fingerprint = prompt.fingerprint();
    let call = |(at, (name, input)): (u64, (&String, Value))| {
        let id = format!("tooluse_{:016x}", fingerprint.wrapping_add(at));
        Block::ToolUse(ToolUse { id, name: name.clone(), input })
    };
    let blocks = (0..).zip(calls).map(call).collect();
    Some(Answer { blocks, output_tokens, ..Answer::empty("tool_use") })
}

/// Returns the start of the text. The echo is ASCII, so that each cut between bytes is a cut
/// between characters.
fn echo_start(echo: &str, tokens: u64) -> String {
    let room = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(tokens::TOKEN_BYTES);
    let words = echo.chars().filter(char::is_ascii).map(|c| if c.is_ascii_control() { ' ' } else { c });
    "You said: ".chars().chain(words).take(room).collect()
}

#[derive(Debug, Default, PartialEq)]
struct Directives {
    output_tokens: Option<u64>,
    thinking_tokens: Option<u64>,
    tools: Vec<(String, Option<Value>)>,
}

/// Separates the text of a question from its directives.
fn read_directives(question: &str) -> (String, Directives) {
    let mut directives = Directives::default();
    let mut text = String::new();
    let mut rest = question;
    while let Some(at) = rest.find("[[") {
        text.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        match read_directive(inside, &mut directives) {
            Some(after) => rest = after.trim_start(),
            None => {
                text.push_str("[[");
                rest = inside;
            }
        }
    }
    text.push_str(rest);
    (text, directives)
}

/// Parses a directive and returns the text after it, or `None` if the text is not a directive.
fn read_directive<'a>(inside: &'a str, directives: &mut Directives) -> Option<&'a str> {
    if let Some(number) = inside.strip_prefix("output_tokens=") {
        let (number, after) = number.split_once("]]")?;
        directives.output_tokens = Some(number.parse().ok()?);
        return Some(after);
    }
    if let Some(number) = inside.strip_prefix("thinking_tokens=") {
        let (number, after) = number.split_once("]]")?;
        directives.thinking_tokens = Some(number.parse().ok()?);
        return Some(after);
    }
    let call = inside.strip_prefix("tool=")?;
    let end = call.find([' ', ']'])?;
    let (name, rest) = call.split_at(end);
    let (input, rest) = read_input(rest.trim_start());
    let after = rest.trim_start().strip_prefix("]]")?;
    directives.tools.push((name.to_owned(), input));
    Some(after)
}

fn read_input(text: &str) -> (Option<Value>, &str) {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value @ Value::Object(_))) => (Some(value), text.get(values.byte_offset()..).unwrap_or_default()),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn prompt_with(question: &str) -> Prompt {
        Prompt { question: question.to_owned(), ..Prompt::default() }
    }

    fn calls(answer: &Answer) -> Vec<(&str, &Value)> {
        answer.tool_uses().map(|call| (call.name.as_str(), &call.input)).collect()
    }

    #[test]
    fn an_answer_echoes_the_question_without_its_directives() {
        let prompt = prompt_with("[[output_tokens=12]] Good\nmorning [[ you ]]");
        let answer = answer(&prompt, 64, 1_000);
        assert!(answer.text().starts_with("You said: Good morning [[ you ]] the quick"));
        assert_eq!((answer.output_tokens, answer.stop_reason), (12, "end_turn"));
    }

    #[test]
    fn all_answers_that_are_generated_are_output() {
        let answers = AnswerCount { returned: 2, generated: 3 };
        let answer = answer(&Prompt { answers, ..prompt_with("[[output_tokens=12]]") }, 64, 1_000);
        assert_eq!((answer.choices, answer.output_tokens), (2, 36));
    }

    #[test]
    fn an_answer_ends_at_max_tokens() {
        let answer = answer(&prompt_with("hi"), 64, 3);
        assert_eq!((answer.output_tokens, answer.stop_reason), (3, "max_tokens"));
        assert_eq!(answer.text(), "You said: h.");
    }

    #[test]
    fn an_answer_ends_before_the_first_stop_sequence() {
        let prompt = Prompt { stop_sequences: vec!["fox".into(), "three".into()], ..prompt_with("one two three four") };
        let answer = answer(&prompt, 64, 1_000);
        assert_eq!(answer.text(), "You said: one two ");
        assert_eq!((answer.stop_sequence.as_deref(), answer.output_tokens), (Some("three"), 5));
    }

    #[test]
    fn a_directive_calls_an_offered_tool() {
        let question = r#"[[tool=weather {"places": [["Oslo"]]}]] please"#;
        let offered = Prompt { tools: vec!["weather".into()], ..prompt_with(question) };
        let input = json!({"places": [["Oslo"]]});
        assert_eq!(calls(&answer(&offered, 64, 1_000)), [("weather", &input)]);
        assert_eq!(answer(&prompt_with(question), 64, 1_000).stop_reason, "end_turn");
    }

    #[test]
    fn several_directives_call_several_tools_unless_parallel_calls_are_disabled() {
        let question = r#"[[tool=weather {"place": "Oslo"}]] [[tool=unknown]] [[tool=time]] [[tool=weather]]"#;
        let offered = Prompt { tools: vec!["weather".into(), "time".into()], ..prompt_with(question) };
        let several = answer(&offered, 64, 1_000);
        let (place, empty) = (json!({"place": "Oslo"}), json!({}));
        assert_eq!(calls(&several), [("weather", &place), ("time", &empty), ("weather", &empty)]);
        let ids: std::collections::BTreeSet<_> = several.tool_uses().map(|call| &call.id).collect();
        assert_eq!(ids.len(), 3);
        let single = Prompt { single_tool: true, ..offered };
        assert_eq!(calls(&answer(&single, 64, 1_000)), [("weather", &place)]);
    }

    #[test]
    fn thinking_comes_first_and_counts_as_output() {
        let thinking = Some(thinking::Thinking { budget_tokens: Some(1_024) });
        let prompt = Prompt { thinking, ..prompt_with("[[thinking_tokens=20]] [[output_tokens=5]]") };
        let answer = answer(&prompt, 64, 2_000);
        assert!(matches!(&answer.blocks[..], [Block::Thinking(_), Block::Text(_)]));
        assert_eq!((answer.thinking_tokens, answer.output_tokens), (20, 25));
    }

    #[test]
    fn a_schema_is_answered_by_json_that_is_cut_at_max_tokens() {
        let schema = json!({"type": "object", "properties": {"colour": {"enum": ["grün"]}}});
        let prompt = Prompt { schema: Some(schema), ..prompt_with("hi") };
        assert_eq!(answer(&prompt, 64, 1_000).text(), r#"{"colour":"grün"}"#);
        let cut = answer(&prompt, 64, 3);
        assert_eq!((cut.text().as_str(), cut.stop_reason, cut.output_tokens), (r#"{"colour":"g"#, "max_tokens", 3));
    }

    #[test]
    fn a_forced_tool_is_called_unless_it_does_not_fit() {
        let forced = Prompt { forced_tool: Some("pick".into()), ..prompt_with("hi") };
        assert_eq!(answer(&forced, 64, 1_000).stop_reason, "tool_use");
        assert_eq!(answer(&forced, 64, 2).stop_reason, "max_tokens");
    }

    proptest! {
        #[test]
        fn the_reported_tokens_equal_the_tokens_of_the_text(
            question in ".{0,200}", wanted in 0u64..500, max in 1u64..500, stop in "[a-z]{1,3}",
        ) {
            let prompt = Prompt { stop_sequences: vec![stop], ..prompt_with(&question) };
            let first = answer(&prompt, wanted, max);
            prop_assert_eq!(tokens::text_tokens(&first.text()), first.output_tokens);
            prop_assert!(first.output_tokens <= max);
            prop_assert_eq!(first, answer(&prompt, wanted, max));
        }

        #[test]
        fn a_sized_prompt_gets_the_requested_output_tokens(input in 0u64..2_000, output in 0u64..2_000) {
            let answer = answer(&prompt_with(&tokens::sized_prompt(input, output)), 64, 64_000);
            prop_assert_eq!(answer.output_tokens, output);
        }
    }
}
