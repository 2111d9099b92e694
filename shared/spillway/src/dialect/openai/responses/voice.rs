//! The events in which a stream tells the text of an item.

use super::echo::ResponseEcho;
use super::item::Item;

/// How the text of one kind of item is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// What announces and ends the part that the text is; empty where an item has no parts.
    pub part: &'static str,
    /// What the number of the part is called.
    pub index: Option<&'static str>,
    /// What tells the text.
    pub text: &'static str,
    /// What the whole text is called when it is told at the end.
    pub whole: &'static str,
    /// Whether pieces of the text can be told as they come.
    pub tells_deltas: bool,
}

/// What the model says.
pub const TEXT: Voice = Voice {
    part: "response.content_part",
    index: Some("content_index"),
    text: "response.output_text",
    whole: "text",
    tells_deltas: true,
};

const REASONING: Voice = Voice { text: "response.reasoning_text", ..TEXT };

const SUMMARY: Voice = Voice {
    part: "response.reasoning_summary_part",
    index: Some("summary_index"),
    text: "response.reasoning_summary_text",
    ..TEXT
};

const ARGUMENTS: Voice =
    Voice { part: "", index: None, text: "response.function_call_arguments", whole: "arguments", tells_deltas: true };

/// The model writes it inside JSON, so it can be read only when it is complete.
const FREE_TEXT: Voice =
    Voice { text: "response.custom_tool_call_input", whole: "input", tells_deltas: false, ..ARGUMENTS };

impl Voice {
    /// The one for an item.
    pub fn of(item: &Item, echo: &ResponseEcho) -> Self {
        match item {
            Item::Message(_) => TEXT,
            Item::Reasoning { .. } | Item::Redacted(_) if echo.summarizes => SUMMARY,
            Item::Reasoning { .. } | Item::Redacted(_) => REASONING,
            Item::Call { name, .. } if echo.is_custom(name) => FREE_TEXT,
            Item::Call { .. } => ARGUMENTS,
        }
    }
}
