//! Memory that one request adds to a broker: bounded for a tenant, next to nothing for a stranger.

mod shapes;

use std::time::Duration;

use bytes::Bytes;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::{
    app::App,
    dialect::Api,
    job::{JobStatus, NewJob},
    units::Millis,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    answer::{Answer, within},
    chat,
    jobs::new_job,
    key,
    process::ServeProcess,
    time::happens_within,
};

/// Maximum of memory that a request of a tenant adds, in MB.
const MAX_REQUEST_MB: u64 = 60;

/// Maximum of memory that a request of a stranger adds, in MB.
const MAX_STRANGER_MB: u64 = 5;

/// Maximum of memory that eight requests of a tenant at the same time add, in MB.
const MAX_EIGHT_MB: u64 = 250;

fn settings() -> String {
    let models = [
        ("m", "sim.model"),
        ("claude", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("titan", "amazon.titan-embed-text-v2:0"),
    ];
    let model = |(name, model_id): (&str, &str)| {
        format!(
            "[[models]]\nname = \"{name}\"\ntimeout_ms = 600000\n[[models.ladder]]\nname = \"only\"\nkind = \"on_demand\"\n\
             model_id = \"{model_id}\"\n"
        )
    };
    let tenants = "[[tenants]]\nname = \"t\"\n[[tenants]]\nname = \"u\"\n";
    format!("[keys]\nt = \"{}\"\nu = \"{}\"\n{tenants}{}", key("t"), key("u"), models.map(model).concat())
}

/// Starts a broker without a drain, and warms it up. Returns it with its memory.
async fn start() -> (ServeProcess, u64) {
    let broker = ServeProcess::start(&settings(), &["--drain-concurrency", "0"], async |_: &App| ()).await;
    for _ in 0..3 {
        let answer = Answer::to(broker.post("/v1/chat/completions", chat(5, 5).to_string())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let memory = broker.memory();
    (broker, memory)
}

/// Sends `request`. Returns its status, its body, and what the broker took more than `before`.
async fn measured(broker: &ServeProcess, before: u64, request: RequestBuilder) -> (u16, String, u64) {
    broker.reset_peak();
    let answer = Answer::read(request.send().await.expect("an answer")).await;
    (answer.status, answer.text(), broker.peak().saturating_sub(before))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_shape_of_a_body_takes_more_than_its_bound_on_any_route() {
    let (broker, before) = start().await;
    let mut most = (0, String::new());
    let shapes = shapes::all();
    assert!(shapes.len() >= 40);
    for (index, shape) in shapes.iter().enumerate() {
        // Each shape goes to two routes, and each route gets shapes of several kinds.
        for (path, template) in shapes::ROUTES.iter().cycle().skip(3 * index).take(2) {
            let (body, content_type) = shapes::body(path, template, &shape.fragment);
            let body = if index % 8 == 7 { shapes::gzip(&body) } else { body };
            let encoding = if index % 8 == 7 { "gzip" } else { "identity" };
            let request = broker.post(path, body).header("content-type", content_type);
            let (status, text, mb) = measured(&broker, before, request.header("content-encoding", encoding)).await;
            assert!(mb <= MAX_REQUEST_MB, "{} to {path} took {mb} MB ({status}: {text:.200})", shape.name);
            assert!(status < 500 && status != 429, "{} to {path}: {status} {text:.200}", shape.name);
            most = most.max((mb, format!("{} to {path}", shape.name)));
        }
    }
    println!("the most for one request: {most:?} MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_requests_that_are_served_stay_within_the_bound() {
    let (broker, before) = start().await;
    for (path, body) in shapes::allowed() {
        let bytes = body.len();
        let (status, text, mb) = measured(&broker, before, broker.post(path, body)).await;
        println!("{path}: {bytes} bytes, {status}, {mb} MB");
        assert!(mb <= MAX_REQUEST_MB, "{path} took {mb} MB ({status}: {text:.200})");
        // The stand-in refuses some, but they have been sent to it.
        assert!(status == 200 || text.contains("Bedrock: "), "{path}: {status} {text:.300}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_exceeds_a_bound_is_refused_by_the_name_of_the_bound() {
    let (broker, _) = start().await;
    let deep = "[".repeat(70) + &"]".repeat(70);
    let many = format!("[{}0]", "0,".repeat(150_000));
    let json_routes = shapes::ROUTES.iter().filter(|(_, template)| *template != "X");
    for (path, template) in json_routes.filter(|(path, _)| !path.starts_with("/guardrail")) {
        for (fragment, expected) in [(&deep, "nested deeper than 64 levels"), (&many, "more than 150000 JSON values")] {
            let (body, _) = shapes::body(path, template, fragment);
            let answer = Answer::to(broker.post(path, body)).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            assert!(answer.text().contains(expected), "{path}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_makes_the_broker_read_nothing() {
    let (broker, before) = start().await;
    let poison = Bytes::from(shapes::array("[0]"));
    let strangers = |path: &str| {
        let request = broker.http.post(format!("{}{path}", broker.url)).body(poison.clone());
        [request.try_clone().expect("a request"), request.bearer_auth(key("absent"))]
    };
    for (path, _) in shapes::ROUTES {
        for request in strangers(path) {
            let (status, text, mb) = measured(&broker, before, request).await;
            assert!(matches!(status, 401 | 403), "{path}: {status} {text}");
            assert!(mb <= MAX_STRANGER_MB, "{path} took {mb} MB");
        }
    }
    let unread = [("/nowhere", 404), ("/v1/quota", 405), ("/v1/responses/r/cancel", 404), ("/healthz", 405)];
    for (path, expected) in unread {
        let (status, text, mb) = measured(&broker, before, broker.post(path, poison.clone())).await;
        assert_eq!(status, expected, "{path}: {text}");
        assert!(mb <= MAX_STRANGER_MB, "{path} took {mb} MB");
    }
    broker.reset_peak();
    let mut at_once = JoinSet::new();
    for request in (0..4).flat_map(|_| strangers("/v1/chat/completions")) {
        at_once.spawn(async move { Answer::to(request).await.status });
    }
    assert_eq!(at_once.join_all().await, [401; 8]);
    let mb = broker.peak().saturating_sub(before);
    assert!(mb <= 8 * MAX_STRANGER_MB, "eight strangers took {mb} MB");
}

/// Writes a request to a socket: head, whole body, and only then reads the response.
async fn write_then_read(url: &str, head: &str, body: &[u8]) -> String {
    let address = url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("connected");
    let head = format!("{head}\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.expect("the head is taken");
    socket.write_all(body).await.expect("the body is taken");
    let mut response = vec![0; 4_096];
    let read = within(socket.read(&mut response)).await.expect("a response, not a reset");
    String::from_utf8_lossy(&response[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_its_whole_body_first_still_reads_the_refusal() {
    let (broker, _) = start().await;
    let body = vec![b' '; 6_000_000];
    let response = write_then_read(&broker.url, "POST /v1/messages HTTP/1.1", &body).await;
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    let response = write_then_read(&broker.url, "POST /nowhere HTTP/1.1", &body).await;
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    let head = format!("POST /v1/messages HTTP/1.1\r\nx-api-key: {}", key("t"));
    let response = write_then_read(&broker.url, &head, &vec![b' '; 7_000_000]).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    // A client that waits for a 100 Continue is answered without its body.
    let response = write_then_read(&broker.url, "POST /v1/messages HTTP/1.1\r\nexpect: 100-continue", &[]).await;
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_of_the_worst_requests_at_once_stay_within_the_bound() {
    let (broker, before) = start().await;
    let slowly = |body: &str| body.replacen("hi", "hi [[output_tokens=40]]", 1);
    for (path, body) in shapes::allowed().into_iter().filter(|(path, _)| !path.contains("batches")).skip(4).step_by(4) {
        let body = Bytes::from(slowly(&body));
        broker.reset_peak();
        let mut at_once = JoinSet::new();
        for _ in 0..8 {
            let request = broker.post(path, body.clone());
            at_once.spawn(async move { Answer::read(request.send().await.expect("an answer")).await.status });
        }
        let statuses = at_once.join_all().await;
        let mb = broker.peak().saturating_sub(before);
        println!("eight to {path}: {statuses:?}, {mb} MB");
        assert!(mb <= MAX_EIGHT_MB, "eight to {path} took {mb} MB");
        // On a busy machine, some find no place or no answer in time.
        assert!(statuses.iter().all(|status| matches!(status, 200 | 429 | 503 | 504)), "{path}: {statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_bodies_of_a_tenant_take_its_share_and_no_more() {
    let (broker, before) = start().await;
    let head = format!("POST /v1/messages HTTP/1.1\r\nx-api-key: {}\r\ncontent-length: 6000000\r\n", key("t"));
    let address = broker.url.trim_start_matches("http://").to_owned();
    let mut sockets = Vec::new();
    for _ in 0..60 {
        let mut socket = TcpStream::connect(&address).await.expect("connected");
        socket.write_all(format!("{head}host: {address}\r\n\r\n").as_bytes()).await.expect("the head is taken");
        sockets.push(socket);
    }
    // What the broker does not read stays in the buffers of the kernel.
    let part = Bytes::from(vec![b' '; 5_900_000]);
    let writers = sockets.into_iter().map(|mut socket| {
        let part = part.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(Duration::from_secs(4), socket.write_all(&part)).await;
            socket
        })
    });
    let _sockets = futures_util::future::join_all(writers).await;
    let mb = broker.peak().saturating_sub(before);
    assert!(mb <= 170, "unfinished bodies take {mb} MB");
    let request = broker.http.post(format!("{}/v1/chat/completions", broker.url)).bearer_auth(key("u"));
    assert_eq!(Answer::to(request.body(chat(5, 5).to_string())).await.status, 200, "another tenant is served");
}

/// A job as an older version stored it: its body was not checked.
fn unchecked_job(app: &App, tenant: &str, body: Bytes) -> NewJob {
    NewJob { tenant: tenant.to_owned(), body, ..new_job(Api::ChatCompletions, &Value::Null, app.clock.now()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_fails_alone_and_the_drain_serves_the_others() {
    let mut ids = Vec::new();
    let (_, idle) = start().await;
    let plant = async |app: &App| {
        let valid = |text: &str| {
            let mut body = chat(5, 5);
            body["metadata"] = json!(text);
            Bytes::from(body.to_string())
        };
        let (template, poison) = (shapes::ROUTES[0].1, shapes::array("[0]"));
        let poison = Bytes::from(template.replacen('X', &poison, 1));
        for index in 0..20 {
            let (tenant, body) = if index % 5 == 2 { ("t", poison.clone()) } else { ("u", valid("a")) };
            let job = app.jobs.submit(&unchecked_job(app, tenant, body)).await.expect("stored");
            let queue = app.queue.as_ref().expect("a queue");
            queue.send(&job.id, tenant, Millis::ZERO).await.expect("sent");
            ids.push((job.id, tenant));
        }
    };
    let broker = ServeProcess::start(&settings(), &["--drain-concurrency", "20"], plant).await;
    for (id, tenant) in &ids {
        let expected = if *tenant == "t" { JobStatus::Failed } else { JobStatus::Succeeded };
        let is_ended = async || {
            let job = broker.app.jobs.get(id).await.expect("the store").expect("a job");
            assert!(!job.status.is_final() || job.status == expected, "{:?}: {:?}", job.status, job.error);
            if *tenant == "t" && job.status.is_final() {
                let error = job.error.unwrap_or_default();
                assert!(error.contains("more than 150000 JSON values"), "{error}");
            }
            job.status.is_final()
        };
        assert!(happens_within(Duration::from_secs(60), is_ended).await, "a job does not end");
    }
    let mb = broker.peak().saturating_sub(idle);
    println!("a drain with four poison jobs: {mb} MB");
    assert!(mb <= MAX_REQUEST_MB, "the drain took {mb} MB");
}
