//! The form in which a file is uploaded (RFC 7578).

use bytes::Bytes;
use futures_util::stream;
use multer::{Field, Multipart};

use crate::{
    batch::{FILE_RETENTION_RANGE_S, FILE_RETENTION_S},
    problem::{Kind, Problem},
};

/// The longest name of a file, in characters.
const LONGEST_NAME: usize = 255;

/// What was uploaded.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    pub content: Bytes,
    pub name: String,
    pub purpose: String,
    /// How long it is to be kept, in seconds.
    pub kept_s: u64,
}

/// Reads the whole form.
///
/// # Errors
/// It is none, or something in it is missing, unknown or cannot be meant.
pub async fn read(content_type: &str, body: Bytes) -> Result<Form, Problem> {
    let boundary = multer::parse_boundary(content_type).map_err(|_| {
        Problem::new(Kind::Invalid, "A file is uploaded as multipart/form-data with the parts file and purpose.")
    })?;
    let mut form = Multipart::new(stream::iter([Ok::<_, std::convert::Infallible>(body)]), boundary);
    let (mut file, mut purpose, mut kept_s) = (None, None, FILE_RETENTION_S);
    while let Some(field) = form.next_field().await.map_err(|_| broken())? {
        match field.name().unwrap_or_default() {
            "file" => {
                let name = field.file_name().unwrap_or("file").chars().take(LONGEST_NAME).collect();
                file = Some((name, field.bytes().await.map_err(|_| broken())?));
            }
            "purpose" => purpose = Some(text(field).await?),
            "expires_after[anchor]" => anchor(&text(field).await?)?,
            "expires_after[seconds]" => kept_s = seconds("expires_after.seconds", text(field).await?.parse().ok())?,
            _ => {
                return Err(Problem::new(
                    Kind::Invalid,
                    "The form has a part that is not file, purpose or expires_after.",
                ));
            }
        }
    }
    let (name, content) = file.ok_or_else(|| Problem::invalid("file", "The form has no part file."))?;
    let purpose = purpose.filter(|purpose| purpose == "batch");
    let purpose = purpose.ok_or_else(|| Problem::invalid("purpose", "The purpose must be batch."))?;
    Ok(Form { content, name, purpose, kept_s })
}

fn anchor(given: &str) -> Result<(), Problem> {
    let told = "The anchor must be created_at.";
    if given == "created_at" { Ok(()) } else { Err(Problem::invalid("expires_after.anchor", told)) }
}

/// How long something is to be kept.
///
/// # Errors
/// It is no number of seconds that can be meant.
pub fn seconds(param: &str, given: Option<u64>) -> Result<u64, Problem> {
    given.filter(|seconds| FILE_RETENTION_RANGE_S.contains(seconds)).ok_or_else(|| {
        let (least, most) = (FILE_RETENTION_RANGE_S.start(), FILE_RETENTION_RANGE_S.end());
        Problem::invalid(param, format!("The seconds must be a whole number from {least} to {most}."))
    })
}

async fn text(field: Field<'_>) -> Result<String, Problem> {
    field.text().await.map_err(|_| broken())
}

fn broken() -> Problem {
    Problem::new(Kind::Invalid, "The form is not well-formed multipart/form-data.")
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
    async fn a_form_is_a_file_and_its_purpose() {
        let parts = [("purpose", "batch"), ("file", "a\r\nb"), ("expires_after[seconds]", "3600")];
        let form = read_parts(&parts).await.expect("a form");
        assert_eq!((form.content, form.purpose.as_str(), form.kept_s), (Bytes::from("a\r\nb"), "batch", 3_600));
    }

    #[tokio::test]
    async fn what_cannot_be_meant_is_refused_by_name() {
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

    proptest! {
        #[test]
        fn any_bytes_are_a_form_or_refused(body: Vec<u8>, inside: bool) {
            let body = if inside { [b"--b\r\n".to_vec(), body].concat() } else { body };
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let _ = runtime.block_on(read(TYPE, body.into()));
        }
    }
}
