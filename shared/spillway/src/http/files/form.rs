//! The forms of file uploads (`multipart/form-data`, RFC 7578).

use bytes::Bytes;
use futures_util::stream;
use multer::{Field, Multipart};

use crate::{
    problem::{Kind, Problem},
    retention,
};

/// Maximum length of a file's name, in characters. Longer names are truncated.
const MAX_NAME_CHARS: usize = 255;

/// An uploaded file.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    /// Content of the file.
    pub content: Bytes,
    /// Name of the file.
    pub name: String,
    /// Purpose of the file: `batch`.
    pub purpose: String,
    /// How long the file is kept, in seconds.
    pub retention_s: u64,
}

/// Parses the form in `body`. `content_type` is the request's.
///
/// # Errors
/// Returns an error if the body is not a form, or if a part is missing, unknown or invalid.
pub async fn read(content_type: &str, body: Bytes) -> Result<Form, Problem> {
    let mut form = open(content_type, body, "file and purpose")?;
    let (mut file, mut purpose, mut retention_s) = (None, None, retention::FILE_S);
    while let Some(field) = form.next_field().await.map_err(|_| malformed())? {
        match field.name().unwrap_or_default() {
            "file" => {
                let name = shortened(field.file_name().unwrap_or("file"));
                file = Some((name, field.bytes().await.map_err(|_| malformed())?));
            }
            "purpose" => purpose = Some(text(field).await?),
            "expires_after[anchor]" => check_anchor(&text(field).await?)?,
            "expires_after[seconds]" => {
                retention_s = check_retention_s("expires_after.seconds", text(field).await?.parse().ok())?;
            }
            _ => {
                return Err(Problem::new(
                    Kind::Invalid,
                    "The form has an unknown part. Its parts are file, purpose and expires_after.",
                ));
            }
        }
    }
    let (name, content) = file.ok_or_else(|| Problem::invalid("file", "The form has no part named file."))?;
    Ok(Form { content, name, purpose: check_purpose(purpose)?, retention_s })
}

/// Parses the form with a part of an upload. Returns the content.
///
/// # Errors
/// Returns an error if the body is not a form, or if it has no part named `data`.
pub async fn read_part(content_type: &str, body: Bytes) -> Result<Bytes, Problem> {
    let mut form = open(content_type, body, "data")?;
    let mut data = None;
    while let Some(field) = form.next_field().await.map_err(|_| malformed())? {
        match field.name() {
            Some("data") => data = Some(field.bytes().await.map_err(|_| malformed())?),
            _ => return Err(Problem::new(Kind::Invalid, "The form has an unknown part. Its only part is data.")),
        }
    }
    data.ok_or_else(|| Problem::invalid("data", "The form has no part named data."))
}

/// Begins to parse a form that should have the parts `expected`.
fn open(content_type: &str, body: Bytes, expected: &str) -> Result<Multipart<'static>, Problem> {
    let boundary = multer::parse_boundary(content_type).map_err(|_| {
        let message = format!("The request body must be multipart/form-data with the parts {expected}.");
        Problem::new(Kind::Invalid, message)
    })?;
    Ok(Multipart::new(stream::iter([Ok::<_, std::convert::Infallible>(body)]), boundary))
}

/// Returns the name of a file without what exceeds the maximum.
pub fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}

/// Returns the purpose of a file, if it is `batch`.
///
/// # Errors
/// Returns an error if it is another one.
pub fn check_purpose(purpose: Option<String>) -> Result<String, Problem> {
    let purpose = purpose.filter(|purpose| purpose == "batch");
    purpose.ok_or_else(|| Problem::invalid("purpose", "The purpose must be batch."))
}

/// Checks from when on the retention of a file counts.
///
/// # Errors
/// Returns an error if it is not the creation of the file.
pub fn check_anchor(anchor: &str) -> Result<(), Problem> {
    if anchor == "created_at" {
        return Ok(());
    }
    Err(Problem::invalid("expires_after.anchor", "The anchor must be created_at."))
}

/// Returns how long a file is kept, in seconds. `seconds` is the value of `param`, if that is a
/// whole number.
///
/// # Errors
/// Returns an error if it is not a whole number in [`retention::FILE_RANGE_S`].
pub fn check_retention_s(param: &str, seconds: Option<u64>) -> Result<u64, Problem> {
    seconds.filter(|seconds| retention::FILE_RANGE_S.contains(seconds)).ok_or_else(|| {
        let (min, max) = (retention::FILE_RANGE_S.start(), retention::FILE_RANGE_S.end());
        Problem::invalid(param, format!("The seconds must be a whole number from {min} to {max}."))
    })
}

async fn text(field: Field<'_>) -> Result<String, Problem> {
    field.text().await.map_err(|_| malformed())
}

fn malformed() -> Problem {
    Problem::new(Kind::Invalid, "The request body is not well-formed multipart/form-data.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b";

    fn part(name: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    async fn read_parts(parts: &[(&str, &str)]) -> Result<Form, Problem> {
        let parts: String = parts.iter().map(|(name, value)| part(name, value)).collect();
        read(TYPE, format!("{parts}--b--\r\n").into()).await
    }

    #[tokio::test]
    async fn a_form_has_a_file_its_purpose_and_its_retention() {
        let parts = [("purpose", "batch"), ("file", "a\r\nb"), ("expires_after[seconds]", "3600")];
        let form = read_parts(&parts).await.expect("a form");
        assert_eq!((form.content, form.purpose.as_str(), form.retention_s), (Bytes::from("a\r\nb"), "batch", 3_600));
    }

    #[tokio::test]
    async fn a_missing_or_invalid_part_is_refused_by_name() {
        for (parts, param) in [
            (vec![("purpose", "batch")], Some("file")),
            (vec![("file", "")], Some("purpose")),
            (vec![("file", ""), ("purpose", "vision")], Some("purpose")),
            (vec![("expires_after[anchor]", "now")], Some("expires_after.anchor")),
            (vec![("expires_after[seconds]", "3599")], Some("expires_after.seconds")),
            (vec![("other", "")], None),
        ] {
            let refused = read_parts(&parts).await.expect_err("refused");
            assert_eq!((refused.kind, refused.param.as_deref()), (Kind::Invalid, param), "{parts:?}");
        }
        assert_eq!(read("application/json", Bytes::new()).await.map_err(|refused| refused.kind), Err(Kind::Invalid));
        assert_eq!(read(TYPE, Bytes::from("--b\r\n")).await.map_err(|refused| refused.kind), Err(Kind::Invalid));
    }

    #[tokio::test]
    async fn a_part_of_an_upload_is_the_only_part_of_its_form() {
        let read = async |parts: &[(&str, &str)]| {
            let parts: String = parts.iter().map(|(name, value)| part(name, value)).collect();
            read_part(TYPE, format!("{parts}--b--\r\n").into()).await
        };
        assert_eq!(read(&[("data", "a\r\nb")]).await, Ok(Bytes::from("a\r\nb")));
        assert_eq!(read(&[]).await.map_err(|refused| refused.param), Err(Some("data".to_owned())));
        assert_eq!(read(&[("file", "a")]).await.map_err(|refused| refused.kind), Err(Kind::Invalid));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_form_or_are_refused(body: Vec<u8>, has_boundary: bool) {
            let body = if has_boundary { [b"--b\r\n".to_vec(), body].concat() } else { body };
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let _ = runtime.block_on(read_part(TYPE, body.clone().into()));
            let _ = runtime.block_on(read(TYPE, body.into()));
        }
    }
}
