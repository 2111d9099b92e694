//! Uploads to and downloads from a bucket that is slow or silent, over real sockets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spillway::{
    app::{Clients, Endpoints, loopback},
    blobs::Blobs,
    config::BedrockEndpoints,
    connections::Patience,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How the bucket treats each connection.
#[derive(Clone, Copy)]
enum Bucket {
    /// It reads a part of the body each 100 ms, and answers at the end.
    Slow,
    /// It reads a part of the body and nothing more.
    StopsToRead,
    /// It sends a part of the object each 500 ms.
    SendsSlowly,
    /// It sends a part of the object and nothing more.
    StopsToSend,
}

/// Size of the body: more than the buffers of the sockets hold.
const BYTES: usize = 24 * 1024 * 1024;

/// Time that a slow bucket takes at least.
const SLOW_TIME: Duration = Duration::from_millis(3_500);

/// Time after which a caller must have its answer. A build for tests needs a second to sign a body.
const MAX_TIME: Duration = Duration::from_millis(4_500);

async fn start(bucket: Bucket) -> Blobs {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client may end first.
            tokio::spawn(async move { drop(serve(stream, bucket).await) });
        }
    });
    let [dynamodb, sqs, s3, bedrock_runtime] = [(); 4].map(|()| url.clone());
    let endpoints = Endpoints { dynamodb, sqs, s3, bedrock_runtime };
    let clients = Clients::new(&loopback().await, Some(&endpoints), BedrockEndpoints::default()).expect("clients");
    Blobs::new(clients.s3, "bucket")
}

async fn serve(mut stream: TcpStream, bucket: Bucket) -> std::io::Result<()> {
    let mut part = vec![0; BYTES / 40];
    match bucket {
        Bucket::Slow => {
            let mut left = BYTES;
            while left > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let wanted = part.len().min(left);
                left -= stream.read_exact(&mut part[..wanted]).await?;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            // The head of the request is still unread.
            while stream.read(&mut part).await? > 0 {}
        }
        Bucket::StopsToRead => {
            stream.read_exact(&mut part).await?;
            std::future::pending::<()>().await;
        }
        Bucket::SendsSlowly | Bucket::StopsToSend => {
            let _ = stream.read(&mut part).await?;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 8 * part.len());
            stream.write_all(head.as_bytes()).await?;
            for sent in 0..8 {
                stream.write_all(&part).await?;
                if sent == 1 && matches!(bucket, Bucket::StopsToSend) {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    Ok(())
}

/// Runs `operation` for a caller. Returns its result and its time.
async fn timed<T>(operation: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let result = Patience::default().scope(operation).await;
    (result, started.elapsed())
}

#[tokio::test]
async fn a_large_upload_may_take_longer_than_a_caller_waits_for_silence() {
    let blobs = start(Bucket::Slow).await;
    let (result, time) = timed(blobs.put("key", Bytes::from(vec![7; BYTES]))).await;
    assert_eq!(result, Ok(()));
    assert!(time > SLOW_TIME, "{time:?}");
}

#[tokio::test]
async fn an_upload_that_stops_ends_within_three_seconds() {
    let blobs = start(Bucket::StopsToRead).await;
    let (result, time) = timed(blobs.put("key", Bytes::from(vec![7; BYTES / 2]))).await;
    assert!(result.is_err() && time < MAX_TIME, "{result:?} after {time:?}");
}

#[tokio::test]
async fn a_download_may_take_longer_than_a_caller_waits_for_silence() {
    let blobs = start(Bucket::SendsSlowly).await;
    let (result, time) = timed(blobs.get("key")).await;
    assert_eq!(result.map(|body| body.map(|body| body.len())), Ok(Some(8 * (BYTES / 40))));
    assert!(time > SLOW_TIME, "{time:?}");
}

#[tokio::test]
async fn a_download_that_stops_ends_within_three_seconds() {
    let blobs = start(Bucket::StopsToSend).await;
    let (result, time) = timed(blobs.get("key")).await;
    assert!(result.is_err() && time < MAX_TIME, "{:?} after {time:?}", result.map(|_| ()));
}
