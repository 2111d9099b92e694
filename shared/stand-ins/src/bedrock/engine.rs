//! The model itself: a prompt in, always the same answer out.
//!
//! `[[output_tokens=N]]` in the last user message asks for exactly N tokens, `[[tool=NAME]]` or `[[tool=NAME {json}]]`
//! for a call of that tool if the request offers it. Otherwise the answer echoes the question.

use serde_json::Value;

use super::prompt::Prompt;
use super::tokens;

/// A complete answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub content: Content,
    pub stop_reason: &'static str,
    pub stop_sequence: Option<String>,
    pub output_tokens: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Text(String),
    ToolUse(ToolUse),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolUse {
    pub id: String,
    pub name: String,
    pub input: Value,
}

/// Answers with at most `max_tokens`, and with `default_tokens` if the prompt asks for no other length.
pub(super) fn answer(prompt: &Prompt, default_tokens: u64, max_tokens: u64) -> Answer {
    let (echo, directives) = read_directives(&prompt.question);
    if let Some(answer) = tool_answer(prompt, &directives, max_tokens) {
        return answer;
    }
    let wanted = directives.output_tokens.unwrap_or(default_tokens);
    let text = tokens::text_of(&beginning(&echo, max_tokens.min(wanted)), wanted.min(max_tokens));
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
    let output_tokens = tokens::text_tokens(&text);
    Answer { content: Content::Text(text), stop_reason, stop_sequence, output_tokens }
}

fn tool_answer(prompt: &Prompt, directives: &Directives, max_tokens: u64) -> Option<Answer> {
    let empty = || Value::Object(serde_json::Map::new());
    let (name, input) = match &directives.tool {
        Some((name, input)) if prompt.tools.contains(name) => (name, input.clone().unwrap_or_else(empty)),
        _ => (prompt.forced_tool.as_ref()?, empty()),
    };
    let output_tokens = tokens::tool_use_tokens(name, &input.to_string());
    if output_tokens > max_tokens {
        return None;
    }
    let id = format!("tooluse_{:016x}", prompt.fingerprint());
    Some(Answer {
        content: Content::ToolUse(ToolUse { id, name: name.clone(), input }),
        stop_reason: "tool_use",
        stop_sequence: None,
        output_tokens,
    })
}

/// The echo is ASCII, so that every cut between bytes is one between characters.
fn beginning(echo: &str, tokens: u64) -> String {
    let room = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(tokens::TOKEN_BYTES);
    let words = echo.chars().filter(char::is_ascii).map(|c| if c.is_ascii_control() { ' ' } else { c });
    "You said: ".chars().chain(words).take(room).collect()
}

#[derive(Debug, Default, PartialEq)]
struct Directives {
    output_tokens: Option<u64>,
    tool: Option<(String, Option<Value>)>,
}

/// Separates what is said from what is directed.
fn read_directives(question: &str) -> (String, Directives) {
    let mut directives = Directives::default();
    let mut said = String::new();
    let mut rest = question;
    while let Some(at) = rest.find("[[") {
        said.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        match read_directive(inside, &mut directives) {
            Some(after) => rest = after.trim_start(),
            None => {
                said.push_str("[[");
                rest = inside;
            }
        }
    }
    said.push_str(rest);
    (said, directives)
}

/// Reads one directive and returns what follows it, or nothing if it is none.
fn read_directive<'a>(inside: &'a str, directives: &mut Directives) -> Option<&'a str> {
    if let Some(number) = inside.strip_prefix("output_tokens=") {
        let (number, after) = number.split_once("]]")?;
        directives.output_tokens = Some(number.parse().ok()?);
        return Some(after);
    }
    let call = inside.strip_prefix("tool=")?;
    let end = call.find([' ', ']'])?;
    let (name, rest) = call.split_at(end);
    let (input, rest) = read_input(rest.trim_start());
    let after = rest.trim_start().strip_prefix("]]")?;
    directives.tool = Some((name.to_owned(), input));
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

    fn ask(question: &str) -> Prompt {
        Prompt { question: question.to_owned(), ..Prompt::default() }
    }

    fn text(answer: &Answer) -> &str {
        match &answer.content {
            Content::Text(text) => text,
            Content::ToolUse(_) => panic!("a text was expected"),
        }
    }

    #[test]
    fn an_answer_echoes_the_question_without_its_directives() {
        let prompt = ask("[[output_tokens=12]] Good\nmorning [[ you ]]");
        let answer = answer(&prompt, 64, 1_000);
        assert!(text(&answer).starts_with("You said: Good morning [[ you ]] the quick"));
        assert_eq!((answer.output_tokens, answer.stop_reason), (12, "end_turn"));
    }

    #[test]
    fn an_answer_ends_at_the_maximum() {
        let answer = answer(&ask("hi"), 64, 3);
        assert_eq!((answer.output_tokens, answer.stop_reason), (3, "max_tokens"));
        assert_eq!(text(&answer), "You said: h.");
    }

    #[test]
    fn an_answer_ends_before_the_first_stop_sequence() {
        let prompt = Prompt { stop_sequences: vec!["fox".into(), "three".into()], ..ask("one two three four") };
        let answer = answer(&prompt, 64, 1_000);
        assert_eq!(text(&answer), "You said: one two ");
        assert_eq!((answer.stop_sequence.as_deref(), answer.output_tokens), (Some("three"), 5));
    }

    #[test]
    fn a_directive_calls_a_tool_that_is_offered() {
        let question = r#"[[tool=weather {"places": [["Oslo"]]}]] please"#;
        let offered = Prompt { tools: vec!["weather".into()], ..ask(question) };
        let input = json!({"places": [["Oslo"]]});
        match answer(&offered, 64, 1_000).content {
            Content::ToolUse(call) => assert_eq!((call.name.as_str(), call.input), ("weather", input)),
            Content::Text(_) => panic!("a tool call was expected"),
        }
        assert_eq!(answer(&ask(question), 64, 1_000).stop_reason, "end_turn");
    }

    #[test]
    fn a_forced_tool_is_called_unless_it_does_not_fit() {
        let forced = Prompt { forced_tool: Some("pick".into()), ..ask("hi") };
        assert_eq!(answer(&forced, 64, 1_000).stop_reason, "tool_use");
        assert_eq!(answer(&forced, 64, 2).stop_reason, "max_tokens");
    }

    proptest! {
        #[test]
        fn any_question_is_answered_with_exactly_the_tokens_reported(
            question in ".{0,200}", wanted in 0u64..500, max in 1u64..500, stop in "[a-z]{1,3}",
        ) {
            let prompt = Prompt { stop_sequences: vec![stop], ..ask(&question) };
            let first = answer(&prompt, wanted, max);
            prop_assert_eq!(tokens::text_tokens(text(&first)), first.output_tokens);
            prop_assert!(first.output_tokens <= max);
            prop_assert_eq!(first, answer(&prompt, wanted, max));
        }

        #[test]
        fn a_prompt_made_to_measure_gets_its_tokens(input in 0u64..2_000, output in 0u64..2_000) {
            let answer = answer(&ask(&tokens::prompt_of(input, output)), 64, 64_000);
            prop_assert_eq!(answer.output_tokens, output);
        }
    }
}
