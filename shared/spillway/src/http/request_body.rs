//! Reads the body of a request: whole, decompressed, and of bounded size.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{
    dialect::MAX_REQUEST_BYTES,
    problem::{Kind, Problem},
};

/// The content encodings that are read (RFC 9110, 8.4.1).
pub const ENCODINGS: [&str; 2] = ["gzip", "deflate"];

/// Maximum of characters of an unknown encoding that an error repeats.
const MAX_SHOWN_CHARS: usize = 40;

/// Reads `body`, and decompresses it if `headers` say that it is compressed.
///
/// # Errors
/// Returns an error if the body is incomplete or larger than [`MAX_REQUEST_BYTES`], if it has an
/// encoding that is not read, or if it does not have the encoding that the headers name.
pub async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    let body = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large("")),
        Err(_) => return Err(Problem::new(Kind::Invalid, "The request body ended before it was complete.")),
    };
    match encoding(headers)?.as_str() {
        "" => Ok(body),
        "gzip" | "x-gzip" => decompress(MultiGzDecoder::new(&body[..]), "gzip"),
        "deflate" => decompress(ZlibDecoder::new(&body[..]), "deflate"),
        unknown => Err(unsupported(unknown)),
    }
}

/// Returns the encoding of a body in lower case; empty for none. Several encodings are one unknown
/// encoding.
fn encoding(headers: &HeaderMap) -> Result<String, Problem> {
    let mut encodings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| unsupported("?"))?;
        encodings.extend(value.split(',').map(|name| name.trim().to_ascii_lowercase()));
    }
    encodings.retain(|name| !name.is_empty() && name != "identity");
    Ok(encodings.join(", "))
}

/// Reads at most one byte more than a body may have, so that a small body that expands to a huge
/// one costs no more memory than a large body.
fn decompress(decoder: impl Read, encoding: &str) -> Result<Bytes, Problem> {
    let mut body = Vec::new();
    let max = u64::try_from(MAX_REQUEST_BYTES).unwrap_or(u64::MAX);
    match decoder.take(max + 1).read_to_end(&mut body) {
        Ok(_) if body.len() > MAX_REQUEST_BYTES => Err(too_large(" when decompressed")),
        Ok(_) => Ok(body.into()),
        Err(_) => {
            let message = format!("The request body is not complete and valid {encoding}, as Content-Encoding says.");
            Err(Problem { param: Some("Content-Encoding".to_owned()), ..Problem::new(Kind::Invalid, message) })
        }
    }
}

fn too_large(when: &str) -> Problem {
    let message = format!(
        "The request body is larger than {MAX_REQUEST_BYTES} bytes{when}. Split it into several requests. Send a larger \
         file of a batch in parts: POST /v1/uploads."
    );
    Problem::new(Kind::TooLarge, message)
}

fn unsupported(encoding: &str) -> Problem {
    let shown: String = encoding.chars().take(MAX_SHOWN_CHARS).collect();
    let message = format!(
        "A request body with the Content-Encoding {shown} cannot be read. Use one of {}, or none.",
        ENCODINGS.join(", ")
    );
    Problem { param: Some("Content-Encoding".to_owned()), ..Problem::new(Kind::UnsupportedEncoding, message) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).expect("written");
        encoder.finish().expect("finished")
    }

    fn deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).expect("written");
        encoder.finish().expect("finished")
    }

    /// Reads a body that is sent with these `Content-Encoding` headers.
    fn read_with(encodings: &[&str], body: Vec<u8>) -> Result<Bytes, Problem> {
        let mut headers = HeaderMap::new();
        for encoding in encodings {
            headers.append(CONTENT_ENCODING, encoding.parse().expect("a header value"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(read(&headers, Full::new(Bytes::from(body))))
    }

    proptest! {
        #[test]
        fn a_compressed_body_is_read_like_a_plain_one(body: Vec<u8>) {
            for (encodings, sent) in [
                (vec![], body.clone()),
                (vec!["identity"], body.clone()),
                (vec!["gzip"], gzip(&body)),
                (vec!["X-GZIP, identity"], gzip(&body)),
                (vec!["gzip"], [gzip(&body[..body.len() / 2]), gzip(&body[body.len() / 2..])].concat()),
                (vec!["Deflate"], deflate(&body)),
            ] {
                prop_assert_eq!(read_with(&encodings, sent), Ok(Bytes::from(body.clone())));
            }
        }

        #[test]
        fn any_bytes_are_a_body_or_are_refused(body: Vec<u8>, is_gzip: bool) {
            let encoding = if is_gzip { "gzip" } else { "deflate" };
            if let Err(problem) = read_with(&[encoding], body) {
                prop_assert_eq!(problem.kind, Kind::Invalid);
            }
        }
    }

    #[test]
    fn a_broken_body_is_not_read() {
        let whole = gzip(b"a body");
        for (encoding, body) in
            [("gzip", whole[..whole.len() - 1].to_vec()), ("gzip", b"{}".to_vec()), ("deflate", whole.clone())]
        {
            assert_eq!(read_with(&[encoding], body).map_err(|problem| problem.kind), Err(Kind::Invalid), "{encoding}");
        }
    }

    #[test]
    fn an_encoding_that_is_not_read_is_refused_by_name() {
        for encodings in [&["zstd"][..], &["br"], &["gzip, gzip"], &["gzip", "deflate"], &["gzip;q=1"]] {
            let problem = read_with(encodings, gzip(b"{}")).expect_err("not read");
            assert_eq!(problem.kind, Kind::UnsupportedEncoding);
            assert!(problem.message.contains(&encodings.join(", ")), "{}", problem.message);
        }
    }

    #[test]
    fn a_body_may_be_as_large_compressed_as_it_may_be_plain() {
        let largest = vec![b'a'; MAX_REQUEST_BYTES];
        let too_large = vec![b'a'; MAX_REQUEST_BYTES + 1];
        let bomb = gzip(&vec![0; 64 * MAX_REQUEST_BYTES]);
        assert!(bomb.len() < MAX_REQUEST_BYTES);
        assert_eq!(read_with(&["gzip"], gzip(&largest)).map(|body| body.len()), Ok(MAX_REQUEST_BYTES));
        for body in [gzip(&too_large), bomb] {
            let problem = read_with(&["gzip"], body).expect_err("too large");
            assert_eq!(problem.kind, Kind::TooLarge);
        }
    }
}
