//! Documents in a prompt, in Converse's and in Anthropic's format.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{prompt::Prompt, tokens::PAGE_TOKENS};

/// Adds a document: the texts that describe it, and its content. A text counts as a text, a PDF by
/// its pages, and any other file as one page.
pub(super) fn add(prompt: &mut Prompt, document: &Map<String, Value>) {
    for name in ["name", "title", "context"] {
        if let Some(text) = document.get(name).and_then(Value::as_str) {
            prompt.add_text(text);
        }
    }
    let source = document.get("source").unwrap_or(&Value::Null);
    if let Some(text) = source["text"].as_str().or(source["content"].as_str()) {
        return prompt.add_text(text);
    }
    if let Some(texts) = source["content"].as_array() {
        return texts.iter().for_each(|block| prompt.add_text(block["text"].as_str().unwrap_or_default()));
    }
    let data = source["bytes"].as_str().or(source["data"].as_str()).unwrap_or_default();
    if source["type"] == "text" {
        return prompt.add_text(data);
    }
    let file = STANDARD.decode(data).unwrap_or_default();
    let format = source["media_type"].as_str().or(document.get("format").and_then(Value::as_str)).unwrap_or_default();
    match format {
        "txt" | "md" | "csv" | "html" | "text/plain" => prompt.add_text(&String::from_utf8_lossy(&file)),
        "pdf" | "application/pdf" => prompt.add_fixed(PAGE_TOKENS * pages(&file).max(1), document),
        _ => prompt.add_fixed(PAGE_TOKENS, document),
    }
}

/// Counts the page objects of a PDF that are not compressed.
fn pages(file: &[u8]) -> u64 {
    const PAGE: &[u8] = b"/Type/Page";
    let is_page = |at: &usize| file[*at..].starts_with(PAGE) && file.get(at + PAGE.len()) != Some(&b's');
    (0..file.len()).filter(is_page).count() as u64
}
