//! Event mode: sends sample events through the handlers of the Lambda functions, to a demo in this
//! process.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use spillway::{
    dialect::Api,
    drain,
    job::{NewJob, Priority, StoredCall},
    lambda::{self, FunctionEvent},
    stored_headers::StoredHeaders,
    telemetry::Telemetry,
    tenant::CallerRecord,
    units::Millis,
};

use crate::{
    settings::Settings,
    world::{Options, World},
};

/// Tenant whose key and job replace `${KEY}` and `${JOB}`.
const TENANT: &str = "roomy";

/// IAM role of the tenant in events with verified signatures.
const ROLE: &str = "arn:aws:iam::123456789012:role/Roomy";

/// Result of an event.
#[derive(Debug)]
pub struct Replayed {
    /// File name of the event.
    pub file: String,
    /// Method and path of the request, or `drain`.
    pub sent: String,
    /// Status and pool of the response, or the number of failed messages.
    pub got: String,
    /// Body of the response.
    pub body: String,
}

/// Sends every event in `path`, a file or a directory, and prints a line for each; with `bodies`
/// also the response body.
///
/// # Errors
/// Returns an error if the path cannot be read or a file is not an event.
pub async fn run(path: &Path, bodies: bool) -> anyhow::Result<()> {
    let print = |Replayed { file, sent, got, body }| {
        println!("{file:44} {sent} -> {got}, {} bytes", body.len());
        if bodies && !body.is_empty() {
            println!("{body}");
        }
    };
    replay(path, print).await
}

/// Sends every event in `path`, a file or a directory, in the order of file names. Calls
/// `on_result` with each result.
///
/// # Errors
/// Returns an error if the path cannot be read or a file is not an event.
pub async fn replay(path: &Path, mut on_result: impl FnMut(Replayed)) -> anyhow::Result<()> {
    let files = files(path)?;
    let mut settings = Settings::demo()?;
    settings.simulator.time_to_first_token_ms = 0;
    settings.simulator.tokens_per_second = 0;
    let key = settings.keys.get(TENANT).cloned().context("the demo has no key for its tenant")?;
    let options = Options {
        settings,
        apply_settings: true,
        data: None,
        port: 0,
        tls_port: None,
        allowed_hosts: Vec::new(),
        drain_concurrency: spillway::drain::DEFAULT_CONCURRENCY,
        telemetry: Telemetry::off(),
    };
    let world = World::start(options).await?;
    let role = CallerRecord { id: ROLE.into(), tenant: TENANT.into() };
    world.app.registry.put_caller(&role).await?;
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let job = if text.contains("${JOB}") { waiting_job(&world).await? } else { String::new() };
        let text = text.replace("${KEY}", &key).replace("${JOB}", &job);
        let event = FunctionEvent::parse(&text).with_context(|| format!("{} is not an event", path.display()))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        on_result(send(&world, file, event).await?);
    }
    world.stop().await;
    Ok(())
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    if files.is_empty() {
        bail!("{} holds no .json file", path.display());
    }
    Ok(files)
}

/// Stores a job without sending a message for it, so that only the replayed event runs it.
async fn waiting_job(world: &World) -> anyhow::Result<String> {
    let now = world.app.clock.now();
    let body = r#"{"model":"demo-chat","max_tokens":32,"messages":[{"role":"user","content":"Hello from a job"}]}"#;
    let job = NewJob {
        id: None,
        tenant: TENANT.into(),
        call: StoredCall {
            api: Api::ChatCompletions,
            model: None,
            path: "/v1/chat/completions".into(),
            base_path: String::new(),
            headers: StoredHeaders::default(),
            stream: false,
        },
        body: body.into(),
        created_at: now,
        ready_at: now,
        expires_at: now + Millis::from_s(3_600),
        is_parked: false,
        priority: Priority::Normal,
        class: spillway::tenant::Class::Batch,
        member: None,
        wait: None,
    };
    Ok(world.app.jobs.submit(&job).await?.id)
}

async fn send(world: &World, file: String, event: FunctionEvent) -> anyhow::Result<Replayed> {
    match event {
        FunctionEvent::Http(request) => {
            let sent = format!("{} {}", request.method(), request.uri().path());
            let response = lambda::answer(&world.app, *request).await;
            let pool = response.headers().get("x-spillway-pool").and_then(|pool| pool.to_str().ok());
            let pool = pool.map(|pool| format!(" from {pool}")).unwrap_or_default();
            let got = format!("{}{pool}", response.status());
            let body = response.into_body().collect().await?.to_bytes();
            Ok(Replayed { file, sent, got, body: String::from_utf8_lossy(&body).into_owned() })
        }
        FunctionEvent::Queue(event) => {
            let response = drain::handle(&world.app, event, None).await?;
            let got = format!("{} failed", response.batch_item_failures.len());
            Ok(Replayed { file, sent: "drain".into(), got, body: serde_json::to_string(&response)? })
        }
    }
}
