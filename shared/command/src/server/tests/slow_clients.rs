//! Clients that are silent or slow, in virtual time and with the default limits.

use std::{convert::Infallible, path::Path};

use futures_util::stream;
use http::Method;
use http_body_util::{Empty, StreamBody};
use hyper::{
    body::Frame,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::TokioExecutor;
use tokio::io::{DuplexStream, duplex};
use tokio_rustls::{
    TlsConnector, client,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::*;
use crate::tls;

/// Size of a request or response that is far larger than all buffers.
const LARGE: usize = 6_000_000;

/// Time for which the model of `/stream` is silent.
const SILENCE: Duration = Duration::from_secs(600);

/// Opens of HTTP/2: the preface and an empty SETTINGS frame.
const HTTP2: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Answers `/large` and `/stream` at once, and other paths when their body is complete.
async fn answer(request: Request<TimedBody>) -> Response<Body> {
    let body = match request.uri().path() {
        "/large" => Full::from(vec![b'a'; LARGE]).boxed_unsync(),
        "/stream" => {
            let parts = stream::unfold(0, |number| async move {
                tokio::time::sleep(SILENCE * u32::from(number == 1)).await;
                (number < 2).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from("part"))), number + 1))
            });
            StreamBody::new(parts).boxed_unsync()
        }
        _ => {
            let received = request.into_body().collect().await.map(|body| body.to_bytes().len());
            let text = received.map_or("incomplete".to_owned(), |bytes| format!("received {bytes}"));
            Full::from(text).boxed_unsync()
        }
    };
    Response::new(body)
}

/// A connection to a server with the default limits.
struct Line {
    client: DuplexStream,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

async fn open(tls: Option<TlsAcceptor>) -> Line {
    let (client, stream) = duplex(16 * 1024);
    let shutdown = CancellationToken::new();
    let server = Server { handler: answer, limits: ConnectionLimits::default(), shutdown: shutdown.clone() };
    let place = Connections::new(1).place().await;
    Line { client, shutdown, served: tokio::spawn(server.serve_connection(stream, tls, place)) }
}

async fn http2(client: DuplexStream) -> SendRequest<Empty<Bytes>> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(65_535).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake(TokioIo::new(client)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Response<Incoming> {
    let request = Request::builder().method(Method::GET).uri(format!("http://localhost{path}"));
    sender.send_request(request.body(Empty::new()).expect("a request")).await.expect("a response")
}

/// How a client misbehaves. It never closes its connection.
#[derive(Debug, Clone, Copy)]
enum Client {
    /// Sends these bytes, and reads only what it is sent at once.
    Sends(&'static str),
    SendsLargeHeader,
    /// Sends these bytes, and then a byte every ten seconds.
    SendsSlowly(&'static str),
    /// Asks for a large answer, and reads a byte every ten seconds.
    ReadsSlowly,
    /// Asks for a large answer over HTTP/2, and reads none of it. Answers pings.
    LeavesStreamUnread,
    /// Asks over HTTP/2, and is silent after the answer. Answers pings.
    IdlesInHttp2,
    /// Completes the TLS handshake.
    Handshakes,
}

async fn handshake(stream: DuplexStream, ca_file: &Path) -> client::TlsStream<DuplexStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

impl Client {
    /// Misbehaves for as long as the server lets it.
    async fn misbehave(self, mut client: DuplexStream, ca_file: &Path) {
        let request: &[&str] = match &self {
            Self::Sends(text) | Self::SendsSlowly(text) => &[text],
            Self::ReadsSlowly => &["GET /large HTTP/1.1\r\nhost: a\r\n\r\n"],
            _ => &[],
        };
        for text in request {
            client.write_all(text.as_bytes()).await.expect("sent");
        }
        match self {
            Self::Sends(_) => {}
            Self::SendsLargeHeader => {
                let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-large: ").await;
                let _ = client.write_all(&[b'a'; 300_000]).await;
            }
            Self::SendsSlowly(_) => {
                while client.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
            }
            Self::ReadsSlowly => {
                while client.read_u8().await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
            }
            Self::LeavesStreamUnread => {
                let mut sender = http2(client).await;
                let _unread = get(&mut sender, "/large").await;
                return std::future::pending().await;
            }
            Self::IdlesInHttp2 => {
                let mut sender = http2(client).await;
                let answer = get(&mut sender, "/").await.into_body();
                answer.collect().await.expect("an answer");
                return std::future::pending().await;
            }
            Self::Handshakes => {
                let _open = handshake(client, ca_file).await;
                return std::future::pending().await;
            }
        }
        // The connection stays open.
        let _open = client;
        std::future::pending().await
    }
}

/// Returns the seconds for which each client keeps a connection: from its start, and from a signal
/// to stop after a second.
async fn kept_s(client: Client, is_tls: bool) -> (u64, u64) {
    // The clock is virtual, so the listener is not used.
    let (listener, tls) = tls::bind("127.0.0.1".parse().expect("an address"), 0, None).await.expect("TLS");
    let mut kept = [0, 0];
    for (kept, is_stopped) in kept.iter_mut().zip([false, true]) {
        let line = open(listener.tls.clone().filter(|_| is_tls)).await;
        let ca_file = tls.ca_file.clone();
        let misbehaves = tokio::spawn(async move { client.misbehave(line.client, &ca_file).await });
        let mut start = Instant::now();
        if is_stopped {
            tokio::time::sleep(Duration::from_secs(1)).await;
            start = Instant::now();
            line.shutdown.cancel();
        }
        let served = tokio::time::timeout(Duration::from_secs(100_000), line.served).await;
        served.expect("an end").expect("no panic");
        *kept = start.elapsed().as_secs();
        misbehaves.abort();
    }
    kept.into()
}

#[tokio::test(start_paused = true)]
async fn no_client_keeps_a_connection_for_ever() {
    use Client::*;
    let half_head = "GET / HTTP/1.1\r\nhost";
    let half_headers = format!("{HTTP2}\0\0\x01\x01\0\0\0\0\x01\u{2}").leak();
    let no_body = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    let half_chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let large_body = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6000000\r\n\r\n";
    for (client, is_tls, kept, kept_after_stop) in [
        (Sends(""), false, 30, 0),
        (Sends("P"), false, 30, 0),
        (Sends("PRI * HTTP/2.0\r\n"), false, 30, 0),
        (Sends(half_head), false, 32, 2),
        (SendsSlowly(half_head), false, 32, 2),
        (SendsLargeHeader, false, 0, 0),
        (Sends(no_body), false, 30, 5),
        (Sends(half_chunked), false, 30, 5),
        (SendsSlowly(large_body), false, 30, 5),
        (Sends("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), false, 30, 0),
        (ReadsSlowly, false, 30, 29),
        (Sends(HTTP2), false, 32, 2),
        (Sends(half_headers), false, 32, 2),
        (IdlesInHttp2, false, 30, 0),
        (LeavesStreamUnread, false, 60, 29),
        (Sends(""), true, 30, 0),
        (Handshakes, true, 30, 0),
    ] {
        assert_eq!(kept_s(client, is_tls).await, (kept, kept_after_stop), "{client:?} TLS: {is_tls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_but_steady_upload_is_accepted() {
    let mut line = open(None).await;
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n");
    line.client.write_all(head.as_bytes()).await.expect("sent");
    for _ in 0..LARGE / 50_000 {
        line.client.write_all(&[b'a'; 50_000]).await.expect("sent");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut received = String::new();
    line.client.read_to_string(&mut received).await.expect("an answer");
    assert!(received.ends_with("received 6000000"), "{received}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_but_steady_reader_receives_the_whole_answer() {
    let mut line = open(None).await;
    line.client.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("sent");
    let (mut received, mut part) = (0, vec![0; 50_000]);
    while let bytes @ 1.. = line.client.read(&mut part).await.expect("a part") {
        received += bytes;
        tokio::time::sleep(Duration::from_micros(bytes as u64 * 20)).await;
    }
    assert!(received > LARGE, "{received}");

    let line = open(None).await;
    let mut sender = http2(line.client).await;
    let mut answer = get(&mut sender, "/large").await.into_body();
    let mut received = 0;
    while let Some(frame) = answer.frame().await {
        let bytes = frame.expect("a part").data_ref().map_or(0, Bytes::len);
        received += bytes;
        tokio::time::sleep(Duration::from_micros(bytes as u64 * 20)).await;
    }
    assert_eq!(received, LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_model_is_silent_is_not_cut_off() {
    let mut line = open(None).await;
    line.client.write_all(b"GET /stream HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut received = String::new();
    line.client.read_to_string(&mut received).await.expect("an answer");
    assert!(received.ends_with("4\r\npart\r\n4\r\npart\r\n0\r\n\r\n"), "{received}");

    let line = open(None).await;
    let answer = get(&mut http2(line.client).await, "/stream").await.into_body();
    assert_eq!(answer.collect().await.expect("an answer").to_bytes(), "partpart");
}

#[tokio::test(start_paused = true)]
async fn an_unread_stream_is_reset_and_the_others_of_its_connection_go_on() {
    let line = open(None).await;
    let mut sender = http2(line.client).await;
    let running = get(&mut sender, "/stream").await.into_body();
    let unread = get(&mut sender, "/large").await.into_body();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let error = unread.collect().await.expect_err("a reset stream");
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    assert_eq!(running.collect().await.expect("the rest").to_bytes(), "partpart");
}
