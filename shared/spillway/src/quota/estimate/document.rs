//! Tokens of documents, videos and sound.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{Tally, image_tokens, inflate::Inflater, members, office, pdf};

/// Tokens of the text of a page (Anthropic, "PDF support": 1,500 to 3,000). Its image is added.
const PAGE_TEXT_TOKENS: u64 = 3_000;

/// Maximum pages of a PDF (Anthropic, "PDF support").
const MAX_PAGES: u64 = 600;

/// Maximum tokens of a file: the context of the largest models that read files. They refuse more.
const MAX_FILE_TOKENS: u64 = 1_000_000;

/// Bytes of base64 per token of a video, of sound, and of documents in Word's and Excel's old
/// formats.
const BYTES_PER_TOKEN: u64 = 12;

/// Minimum tokens of such a file: ten seconds of video have 2,880 (Amazon Nova User Guide, "Video
/// understanding").
const MIN_FILE_TOKENS: u64 = 3_000;

impl Tally {
    /// Counts a document: its content, and the members that describe it to the model.
    pub(super) fn document(&mut self, document: &Value) {
        let Value::Object(fields) = document else { return self.json(document) };
        for (name, value) in fields {
            match name.as_str() {
                "source" => self.source(value, fields.get("format").and_then(Value::as_str)),
                "format" => {}
                "context" => self.value(value),
                name => self.field(name, value),
            }
        }
    }

    /// Counts a video or sound.
    pub(super) fn media(&mut self, media: &Value) {
        let is_elsewhere = media.get("source").is_some_and(|source| source.get("s3Location").is_some());
        self.tokens += if is_elsewhere { MAX_FILE_TOKENS } else { binary_tokens(string_bytes(media)) };
    }

    fn source(&mut self, source: &Value, format: Option<&str>) {
        let Value::Object(fields) = source else { return self.value(source) };
        let member = |name: &str| fields.get(name).and_then(Value::as_str);
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("data", Value::String(text)) if member("type") == Some("text") => self.text(text),
                ("bytes" | "data", Value::String(file)) => self.file(file, member("media_type").or(format)),
                // The size of a file that is not in the body is not known.
                ("url" | "file_id" | "s3Location", _) => self.tokens += MAX_FILE_TOKENS,
                ("media_type" | "type", Value::String(_)) => {}
                (name, value) if members::is_container(name) => self.value(value),
                (_, value) => self.json(value),
            }
        }
    }

    /// Counts a file of this `format`, which is an extension in Converse, and a media type in
    /// Anthropic's format. The content decides where the format does not.
    fn file(&mut self, base64: &str, format: Option<&str>) {
        // What is not base64, Bedrock refuses.
        let Ok(file) = STANDARD.decode(base64) else { return self.text(base64) };
        let format = format.unwrap_or_default();
        if matches!(format, "txt" | "md" | "csv" | "html") || format.starts_with("text/") {
            return self.text(&String::from_utf8_lossy(&file));
        }
        if format.ends_with("pdf") || file.starts_with(b"%PDF-") {
            self.tokens += self.pdf_tokens(&file);
        } else if file.starts_with(office::SIGNATURE) {
            self.office(&file);
        } else if let Ok(text) = str::from_utf8(&file) {
            self.text(text);
        } else {
            self.tokens += binary_tokens(base64.len() as u64);
        }
    }

    /// Returns the tokens of a PDF. A page is read as text and as an image.
    fn pdf_tokens(&self, file: &[u8]) -> u64 {
        let pages = pdf::pages(file, &mut Inflater::default()).unwrap_or(MAX_PAGES).max(1);
        pages.saturating_mul(PAGE_TEXT_TOKENS + image_tokens(self.tokenizer)).min(MAX_FILE_TOKENS)
    }

    /// Counts a document of Word or Excel: the text of its parts, and their images.
    fn office(&mut self, file: &[u8]) {
        let mut inflater = Inflater::default();
        let parts = office::parts(file, &mut inflater);
        if inflater.is_exhausted() {
            self.tokens += MAX_FILE_TOKENS;
            return;
        }
        for part in parts {
            match String::from_utf8(part) {
                Ok(xml) => self.text(&office::without_tags(&xml)),
                Err(_) => self.tokens += image_tokens(self.tokenizer),
            }
        }
    }
}

fn binary_tokens(base64_bytes: u64) -> u64 {
    (base64_bytes / BYTES_PER_TOKEN).max(MIN_FILE_TOKENS)
}

fn string_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(string_bytes).sum(),
        Value::Object(fields) => fields.values().map(string_bytes).sum(),
        _ => 0,
    }
}
