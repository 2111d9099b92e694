//! Images and documents of a request. Callers send base64 with a media type; Converse takes the
//! name of a format.

use std::io;

use base64::{engine::general_purpose::STANDARD, read::DecoderReader};
use serde_json::Value;

use super::json::{Path, Read, object_of, sanitized};

/// Builds the document blocks of one request. Converse requires names, so documents without a name
/// are numbered.
#[derive(Debug, Default)]
pub struct DocumentBuilder {
    unnamed: usize,
}

impl DocumentBuilder {
    /// Builds a document block; `title` may be the caller's file name.
    pub fn block(&mut self, format: &str, title: Option<&str>, source: Value) -> Value {
        object_of([("format", format.into()), ("name", self.name(title).into()), ("source", source)])
    }

    /// Returns a name that Converse accepts: letters, digits, single spaces, hyphens, parentheses
    /// and square brackets.
    fn name(&mut self, title: Option<&str>) -> String {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "-()[]".contains(c) { c } else { ' ' };
        let spaced: String = title.unwrap_or_default().chars().take(200).map(allowed).collect();
        let name = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
        if name.is_empty() {
            self.unnamed += 1;
            return format!("document-{}", self.unnamed);
        }
        name
    }
}

/// Splits `data:MEDIA/TYPE;base64,DATA` into the media type and the data.
pub fn data_url(url: &str, at: &Path) -> Read<(String, String)> {
    let Some(rest) = url.strip_prefix("data:") else {
        return Err(at.error("is not a data: URL; Bedrock fetches no URLs, so send data:MEDIA/TYPE;base64,DATA"));
    };
    let (head, data) = rest.split_once(',').ok_or_else(|| at.error("has no comma after its media type"))?;
    let media_type = head.strip_suffix(";base64").ok_or_else(|| at.error("must be base64: data:TYPE;base64,DATA"))?;
    let media_type = media_type.split(';').next().unwrap_or_default();
    Ok((media_type.to_ascii_lowercase(), data.to_owned()))
}

/// Builds an image block.
pub fn image(media_type: &str, data: String, at: &Path) -> Read<Value> {
    let format = match media_type {
        "image/png" => "png",
        "image/jpeg" | "image/jpg" => "jpeg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        unknown => {
            let expected = "expected image/png, image/jpeg, image/gif or image/webp";
            return Err(at.error(format_args!("media type {} is not supported; {expected}", sanitized(unknown))));
        }
    };
    let source = object_of([("bytes", base64_data(data, at)?.into())]);
    Ok(object_of([("image", object_of([("format", format.into()), ("source", source)]))]))
}

/// Returns the Converse format of a document's media type.
pub fn document_format(media_type: &str, at: &Path) -> Read<&'static str> {
    Ok(match media_type {
        "application/pdf" => "pdf",
        "text/plain" => "txt",
        "text/csv" => "csv",
        "text/html" => "html",
        "text/markdown" => "md",
        "application/msword" => "doc",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        unknown => {
            return Err(at.error(format_args!("media type {} is not supported for documents", sanitized(unknown))));
        }
    })
}

/// Checks that `data` is padded standard base64, the only variant that Bedrock reads. Removes white
/// space.
pub fn base64_data(data: String, at: &Path) -> Read<String> {
    let data = match data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        true => data.split_ascii_whitespace().collect(),
        false => data,
    };
    match io::copy(&mut DecoderReader::new(data.as_bytes(), &STANDARD), &mut io::sink()) {
        Ok(0) => Err(at.error("is empty")),
        Ok(_) => Ok(data),
        Err(_) => Err(at.error("is not valid base64 (standard alphabet, padded)")),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_base64_check_agrees_with_decoding(
            bytes in prop::collection::vec(any::<u8>(), 0..5_000),
            position in any::<prop::sample::Index>(),
            damage in prop::option::of(prop::sample::select(vec!["=", "-", "A", "é"])),
        ) {
            let mut data = STANDARD.encode(bytes);
            if let Some(damage) = damage {
                data.insert_str(position.index(data.len() + 1), damage);
            }
            let is_valid = STANDARD.decode(&data).is_ok_and(|bytes| !bytes.is_empty());
            prop_assert_eq!(base64_data(data.clone(), &Path::Root).ok(), is_valid.then_some(data));
        }
    }
}
