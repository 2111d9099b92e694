//! Reads the body of a request: whole, decompressed, and of bounded size.

use std::{io::Read, pin::Pin, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT},
};
use http_body_util::BodyExt;

use super::Call;
use crate::{
    app::App,
    dialect::MAX_REQUEST_BYTES,
    heavy_work,
    problem::{Kind, Problem},
};

/// The content encodings that are read (RFC 9110, 8.4.1).
pub const ENCODINGS: [&str; 2] = ["gzip", "deflate"];

/// Maximum of characters of an unknown encoding that an error repeats.
const MAX_SHOWN_CHARS: usize = 40;

/// Maximum of bytes of an unwanted body that are dropped before its request is answered.
const MAX_DISCARDED_BYTES: usize = 2 * MAX_REQUEST_BYTES;

/// Maximum time to drop an unwanted body before its request is answered.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(10);

/// A body until it is read.
pub type Unread<'b, B> = Option<Pin<&'b mut B>>;

/// Reads the body of `call` as [`read`] does, and takes the memory to parse it. Both are held as
/// long as the body.
///
/// # Errors
/// Returns the errors of [`read`].
pub async fn read_to_parse<B>(app: &App, call: &Call, body: &mut Unread<'_, B>) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data: Send> + Send,
{
    let body = read(app, call, body).await?;
    app.body_memory.to_parse(&call.tenant.name, body).await
}

/// Reads the body of `call`, and decompresses it if its headers say that it is compressed.
///
/// # Errors
/// Returns an error if the body is incomplete or larger than [`MAX_REQUEST_BYTES`], if it has an
/// encoding that is not read, if it does not have the encoding that the headers name, or if there
/// is no memory for it in time.
pub async fn read<B>(app: &App, call: &Call, body: &mut Unread<'_, B>) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data: Send> + Send,
{
    let headers = &call.head.parts.headers;
    let encoding = Encoding::from_headers(headers)?;
    let announced = body.as_ref().and_then(|body| announced(headers, body));
    if announced.is_some_and(|bytes| bytes > MAX_REQUEST_BYTES) {
        return Err(too_large(""));
    }
    let max_bytes = announced.filter(|_| encoding == Encoding::Identity).unwrap_or(MAX_REQUEST_BYTES);
    let mut room = app.body_memory.to_read(&call.tenant.name, max_bytes).await?;
    let body = match body.take() {
        Some(body) => collect(body, announced).await?,
        None => Bytes::new(),
    };
    let body = heavy_work::run(max_bytes, || encoding.decode(body))?;
    room.shrink_to(body.len());
    Ok(room.hold(body))
}

/// Returns the size of a body, if it is known before it is read.
fn announced<B: http_body::Body>(headers: &HeaderMap, body: &B) -> Option<usize> {
    let in_head = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    let bytes: u64 = body.size_hint().exact().or_else(in_head)?;
    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Reads a body as it was sent. `announced` is its size, if that is known.
async fn collect<B>(mut body: Pin<&mut B>, announced: Option<usize>) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data: Send> + Send,
{
    let mut whole = Vec::with_capacity(announced.unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let incomplete = |_| Problem::new(Kind::Invalid, "The request body ended before it was complete.");
        let Ok(mut data) = frame.map_err(incomplete)?.into_data() else { continue };
        if whole.len() + data.remaining() > MAX_REQUEST_BYTES {
            return Err(too_large(""));
        }
        if whole.is_empty() && body.is_end_stream() {
            // Without a copy, if the data are bytes.
            return Ok(data.copy_to_bytes(data.remaining()));
        }
        whole.put(data);
    }
    Ok(whole.into())
}

/// Drops an unread body, so that a client that sends it reads the response: if the connection were
/// closed with bytes unread, the response could be lost. A client that waits for a `100 Continue`
/// has sent nothing.
pub async fn discard<B: http_body::Body>(headers: &HeaderMap, unread: Unread<'_, B>) {
    let Some(mut body) = unread else { return };
    let drop_rest = async {
        let mut dropped = 0;
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.into_data().map_or(0, |data| data.remaining());
            if dropped > MAX_DISCARDED_BYTES {
                break;
            }
        }
    };
    if !headers.contains_key(EXPECT) {
        // Without a result: the rest of a body that takes longer stays unread.
        let _ = tokio::time::timeout(MAX_DISCARD_TIME, drop_rest).await;
    }
}

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    /// Reads the encoding of a body. Several encodings are one unknown encoding.
    fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut encodings = Vec::new();
        for value in headers.get_all(CONTENT_ENCODING) {
            let value = value.to_str().map_err(|_| unsupported("?"))?;
            encodings.extend(value.split(',').map(|name| name.trim().to_ascii_lowercase()));
        }
        encodings.retain(|name| !name.is_empty() && name != "identity");
        match encodings.join(", ").as_str() {
            "" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            unknown => Err(unsupported(unknown)),
        }
    }

    fn decode(self, body: Bytes) -> Result<Bytes, Problem> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => decompress(MultiGzDecoder::new(&body[..]), "gzip"),
            Self::Deflate => decompress(ZlibDecoder::new(&body[..]), "deflate"),
        }
    }
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
    use std::{io::Write, pin::pin};

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
        let encoding = Encoding::from_headers(&headers)?;
        encoding.decode(runtime.block_on(collect(pin!(Full::new(Bytes::from(body))), None))?)
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
