//! Jobs and dead letters: the commands show a job, and list, redrive or drop dead letters.

mod dead_letters;

use std::{collections::HashSet, io::Write, time::Duration};

use anyhow::{Context, bail};
use dead_letters::{Selection, select};
use futures_util::{StreamExt, stream};
use spillway::{
    app::App,
    job::Job,
    queue::{DeadLetter, Queue},
    store::jobs::RedriveOutcome,
    units::{Millis, UnixMs},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::show::table;

#[derive(Debug, clap::Subcommand)]
pub enum Jobs {
    /// Show a job without its request and response bodies
    Show {
        /// ID of the job
        #[arg(value_name = "JOB")]
        id: String,
    },
    /// List, redrive or drop dead letters: the messages of jobs that failed for good
    #[command(subcommand)]
    Dlq(Dlq),
}

#[derive(Debug, clap::Subcommand)]
pub enum Dlq {
    /// List dead letters and why their jobs failed
    List {
        #[command(flatten)]
        scope: Scope,
    },
    /// Queue failed jobs again, with a fresh count of attempts
    Redrive(Chosen),
    /// Delete dead letters; their jobs stay failed
    Drop(Chosen),
}

/// Dead letters to look at.
#[derive(Debug, clap::Args)]
pub struct Scope {
    /// Only dead letters of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Maximum number of messages to read from the queue
    #[arg(long = "most", value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_messages: u32,
}

/// Dead letters to change.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// IDs of the jobs, or of messages without a job
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All dead letters that are read; see --most
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    scope: Scope,
}

/// Number of jobs that are read concurrently.
const READ_CONCURRENCY: usize = 16;

/// Maximum length of an error in a table, in characters.
const MAX_ERROR_CHARS: usize = 80;

/// Runs `command`.
///
/// # Errors
/// Returns an error if a table or a queue is unavailable, or if a named job or message does not
/// exist.
pub async fn run(command: Jobs, app: &App, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Jobs::Show { id } => show(app, &id, out).await,
        Jobs::Dlq(Dlq::List { scope }) => list(app, &scope, now, out).await,
        Jobs::Dlq(Dlq::Redrive(chosen)) => redrive(app, &chosen, now, out).await,
        Jobs::Dlq(Dlq::Drop(chosen)) => drop_letters(app, &chosen, out).await,
    }
}

async fn show(app: &App, id: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(job) = app.jobs.get(id).await? else { bail!("there is no job {id}") };
    let at = |at: Option<UnixMs>| at.map_or_else(|| "-".to_owned(), moment);
    let rows = [
        ("id", job.id.clone()),
        ("tenant", job.tenant.clone()),
        ("status", job.status.name().to_owned()),
        ("route", route(&job)),
        ("class", job.class.name().to_owned()),
        (
            "batch",
            job.member.as_ref().map_or("-".to_owned(), |member| format!("{} line {}", member.batch_id, member.line)),
        ),
        ("created", moment(job.created_at)),
        ("ready", moment(job.ready_at)),
        ("started", at(job.started_at)),
        ("finished", at(job.finished_at)),
        ("expires", moment(job.expires_at)),
        ("attempts", job.attempts.to_string()),
        ("deferrals", job.deferrals.to_string()),
        ("waits for", job.wait.as_ref().map_or_else(|| "-".to_owned(), |wait| wait.text())),
        ("failures", job.wait.as_ref().map_or(0, |wait| wait.failures()).to_string()),
        ("resends", job.redelivery.resends.to_string()),
        ("fence", job.fence.to_string()),
        ("error", job.error.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<10}{value}")?;
    }
    Ok(())
}

async fn list(app: &App, scope: &Scope, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = dead_letters(app)?;
    let selection = select(queue, scope.max_messages, |letter| is_in_scope(letter, scope)).await?;
    // The messages become visible again before anything can fail, so that they are hidden only
    // briefly.
    selection.make_visible(queue).await?;
    let jobs = stream::iter(&selection.selected).map(|letter| app.jobs.get(&letter.body)).buffered(READ_CONCURRENCY);
    let jobs: Vec<_> = jobs.collect().await;
    let mut rows = Vec::new();
    for (letter, job) in selection.selected.iter().zip(jobs) {
        rows.push(row(letter, job?.as_ref(), now));
    }
    if !rows.is_empty() {
        table(["JOB", "TENANT", "REASON", "AGE", "STATUS", "ROUTE", "ERROR"], rows, out)?;
    }
    print_extent(&selection, out)
}

fn row(letter: &DeadLetter, job: Option<&Job>, now: UnixMs) -> [String; 7] {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let error = job.and_then(|job| job.error.as_deref()).map(|error| error.chars().take(MAX_ERROR_CHARS).collect());
    [
        // A message without a job may hold any text, also a prompt.
        if is_id(&letter.body) { letter.body.clone() } else { format!("(message {})", letter.id) },
        or_dash(letter.tenant.as_deref()),
        // SQS gives no reason when it moves a message that was received too often.
        letter.reason.clone().unwrap_or_else(|| "received_too_often".to_owned()),
        age(now - letter.since),
        job.map_or("gone", |job| job.status.name()).to_owned(),
        job.map_or_else(|| "-".to_owned(), route),
        error.unwrap_or_else(|| "-".to_owned()),
    ]
}

async fn redrive(app: &App, chosen: &Chosen, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = dead_letters(app)?;
    let jobs = app.queue.as_ref().context("SPILLWAY_QUEUE_URL is not set")?;
    let selection = select_chosen(queue, chosen).await?;
    let mut kept = Vec::new();
    for letter in &selection.selected {
        match app.jobs.redrive(&letter.body, now).await {
            Ok(RedriveOutcome::Queued(job)) => {
                jobs.send(&job.id, &job.tenant, Millis::ZERO).await?;
                queue.delete(&letter.receipt_handle).await?;
                writeln!(out, "queued {}", job.id)?;
            }
            Ok(RedriveOutcome::NotFailed(status)) => {
                if !status.is_final() {
                    // SQS moved the message that was to run the job, so the job needs a new
                    // message.
                    jobs.send(&letter.body, letter.tenant.as_deref().unwrap_or("none"), Millis::ZERO).await?;
                }
                queue.delete(&letter.receipt_handle).await?;
                writeln!(out, "{} is {}, not failed; dropped its dead letter", letter.body, status.name())?;
            }
            Ok(RedriveOutcome::Missing) => {
                kept.push(letter.clone());
                let id = if is_id(&letter.body) { letter.body.as_str() } else { letter.id.as_str() };
                writeln!(out, "{id} has no stored job; it can only be dropped")?;
            }
            Err(error) => {
                kept.push(letter.clone());
                writeln!(out, "kept {}: {error}", letter.body)?;
            }
        }
    }
    let count = selection.selected.len() - kept.len();
    queue.make_visible(&kept).await?;
    finish(queue, &selection, chosen, out).await?;
    if !kept.is_empty() {
        bail!("handled {count} dead letters, kept {}", kept.len());
    }
    Ok(())
}

async fn drop_letters(app: &App, chosen: &Chosen, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = dead_letters(app)?;
    let selection = select_chosen(queue, chosen).await?;
    for letter in &selection.selected {
        queue.delete(&letter.receipt_handle).await?;
        writeln!(out, "dropped {}", if is_id(&letter.body) { &letter.body } else { &letter.id })?;
    }
    finish(queue, &selection, chosen, out).await
}

async fn select_chosen(queue: &Queue, chosen: &Chosen) -> anyhow::Result<Selection> {
    let names = |letter: &DeadLetter| chosen.ids.contains(&letter.body) || chosen.ids.contains(&letter.id);
    select(queue, chosen.scope.max_messages, |letter| {
        is_in_scope(letter, &chosen.scope) && (chosen.all || names(letter))
    })
    .await
}

/// Makes unselected messages visible again, and reports the IDs that were not found.
async fn finish(queue: &Queue, selection: &Selection, chosen: &Chosen, out: &mut impl Write) -> anyhow::Result<()> {
    queue.make_visible(&selection.unselected).await?;
    print_extent(selection, out)?;
    let found: HashSet<&str> =
        selection.selected.iter().flat_map(|letter| [letter.body.as_str(), letter.id.as_str()]).collect();
    let missing: Vec<&str> = chosen.ids.iter().map(String::as_str).filter(|id| !found.contains(id)).collect();
    if !missing.is_empty() {
        bail!("found no dead letter for {}", missing.join(", "));
    }
    Ok(())
}

fn print_extent(selection: &Selection, out: &mut impl Write) -> anyhow::Result<()> {
    let selected = selection.selected.len();
    let read = selected + selection.unselected.len();
    match selection.is_complete {
        true => writeln!(out, "{selected} of {read} dead letters")?,
        false => writeln!(
            out,
            "{selected} of {read} dead letters; the queue holds about {}, and the rest was not read (see --most)",
            selection.approximate_count
        )?,
    }
    Ok(())
}

fn dead_letters(app: &App) -> anyhow::Result<&Queue> {
    app.dead_letters.as_ref().context("SPILLWAY_DEAD_LETTER_QUEUE_URL is not set")
}

fn is_in_scope(letter: &DeadLetter, scope: &Scope) -> bool {
    scope.tenant.is_none() || scope.tenant == letter.tenant
}

/// Whether the body is a job ID, which is not secret and may be printed.
fn is_id(body: &str) -> bool {
    body.len() == 36 && body.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn route(job: &Job) -> String {
    format!("POST {}", job.call.path)
}

fn age(age: Millis) -> String {
    let age_s = age.as_ms() / 1_000;
    match age_s {
        0..120 => format!("{age_s}s"),
        120..7_200 => format!("{}m", age_s / 60),
        7_200..172_800 => format!("{}h", age_s / 3_600),
        _ => format!("{}d", age_s / 86_400),
    }
}

fn moment(at: UnixMs) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(at.as_s());
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_printed_in_the_unit_that_fits() {
        let ages = [0, 119, 120, 7_199, 7_200, 172_800].map(|age_s| age(Millis::from_s(age_s)));
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }

    #[test]
    fn the_body_of_a_message_is_printed_only_if_it_is_a_job_id() {
        assert!(is_id("018f0000-0000-7000-8000-000000000000"));
        assert!(!is_id("please do not repeat that I wrote it!") && !is_id(""));
        let letter = DeadLetter {
            id: "m".into(),
            body: "my prompt".into(),
            receipt_handle: String::new(),
            tenant: None,
            reason: None,
            since: UnixMs::default(),
        };
        assert_eq!(row(&letter, None, UnixMs::from_ms(1_000))[..4], ["(message m)", "-", "received_too_often", "1s"]);
    }
}
