//! Jobs, and those that failed for good: the dead-letter queue, looked at, brought back or thrown away.

mod look;

use std::{collections::HashSet, io::Write, time::Duration};

use anyhow::{Context, bail};
use futures_util::{StreamExt, stream};
use look::{Look, look};
use spillway::{
    app::App,
    job::Job,
    queue::{DeadLetter, Queue},
    store::jobs::Redrive,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::show::table;

#[derive(Debug, clap::Subcommand)]
pub enum Jobs {
    /// Show what is known of a job, without its bodies
    Show { id: String },
    /// The messages of jobs that failed for good
    #[command(subcommand)]
    Dlq(Dlq),
}

#[derive(Debug, clap::Subcommand)]
pub enum Dlq {
    /// List them, and why their jobs failed
    List {
        #[command(flatten)]
        scope: Scope,
    },
    /// Queue failed jobs again, with all their attempts before them
    Redrive(Which),
    /// Delete messages; their jobs stay failed
    Drop(Which),
}

/// Whose messages, and how many.
#[derive(Debug, clap::Args)]
pub struct Scope {
    /// Only those of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// How many messages of the queue to look at, at most
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    most: u32,
}

/// Which messages.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The ids of the jobs
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All of them, as far as they are looked at
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    scope: Scope,
}

/// How many jobs are read at once.
const AT_ONCE: usize = 16;

/// The longest error that is shown in a table, in characters.
const LONGEST_ERROR: usize = 80;

/// Carries out `command`.
///
/// # Errors
/// A table or a queue could not be reached, or what was named is not there.
pub async fn run(command: Jobs, app: &App, now_ms: u64, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Jobs::Show { id } => show(app, &id, out).await,
        Jobs::Dlq(Dlq::List { scope }) => list(app, &scope, now_ms, out).await,
        Jobs::Dlq(Dlq::Redrive(which)) => redrive(app, &which, now_ms, out).await,
        Jobs::Dlq(Dlq::Drop(which)) => drop_letters(app, &which, out).await,
    }
}

async fn show(app: &App, id: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(job) = app.jobs.get(id).await? else { bail!("there is no job {id}") };
    let at = |at_ms: Option<u64>| at_ms.map_or_else(|| "-".to_owned(), moment);
    let rows = [
        ("id", job.id.clone()),
        ("tenant", job.tenant.clone()),
        ("status", job.status.name().to_owned()),
        ("route", route(&job)),
        ("class", job.class.name().to_owned()),
        (
            "batch",
            job.member.as_ref().map_or("-".to_owned(), |member| format!("{} line {}", member.batch, member.line)),
        ),
        ("created", moment(job.created_ms)),
        ("ready", moment(job.ready_ms)),
        ("started", at(job.started_ms)),
        ("finished", at(job.finished_ms)),
        ("expires", moment(job.expires_ms)),
        ("attempts", job.attempts.to_string()),
        ("deferrals", job.deferrals.to_string()),
        ("resends", job.resends.to_string()),
        ("fence", job.fence.to_string()),
        ("error", job.error.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<10}{value}")?;
    }
    Ok(())
}

async fn list(app: &App, scope: &Scope, now_ms: u64, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = dead_letters(app)?;
    let looked = look(queue, scope.most, |letter| is_of(letter, scope)).await?;
    // They are read before anything can fail, so that nobody else misses them for long.
    looked.show_again(queue).await?;
    let jobs = stream::iter(&looked.wanted).map(|letter| app.jobs.get(&letter.body)).buffered(AT_ONCE);
    let jobs: Vec<_> = jobs.collect().await;
    let mut rows = Vec::new();
    for (letter, job) in looked.wanted.iter().zip(jobs) {
        rows.push(row(letter, job?.as_ref(), now_ms));
    }
    if !rows.is_empty() {
        table(["JOB", "TENANT", "REASON", "AGE", "STATUS", "ROUTE", "ERROR"], rows, out)?;
    }
    tell_extent(&looked, out)
}

fn row(letter: &DeadLetter, job: Option<&Job>, now_ms: u64) -> [String; 7] {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let error = job.and_then(|job| job.error.as_deref()).map(|error| error.chars().take(LONGEST_ERROR).collect());
    [
        // A message that is no job's may hold anything.
        if is_id(&letter.body) { letter.body.clone() } else { format!("(message {})", letter.id) },
        or_dash(letter.tenant.as_deref()),
        // SQS says nothing when it moves what was received too often.
        letter.reason.clone().unwrap_or_else(|| "received_too_often".to_owned()),
        age(now_ms.saturating_sub(letter.since_ms)),
        job.map_or("gone", |job| job.status.name()).to_owned(),
        job.map_or_else(|| "-".to_owned(), route),
        error.unwrap_or_else(|| "-".to_owned()),
    ]
}

async fn redrive(app: &App, which: &Which, now_ms: u64, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = dead_letters(app)?;
    let jobs = app.queue.as_ref().context("SPILLWAY_QUEUE_URL is not set")?;
    let looked = chosen(queue, which).await?;
    let mut kept = Vec::new();
    for letter in &looked.wanted {
        match app.jobs.redrive(&letter.body, now_ms).await {
            Ok(Redrive::Queued(job)) => {
                jobs.send(&job.id, &job.tenant, 0).await?;
                queue.delete(&letter.receipt_handle).await?;
                writeln!(out, "queued {}", job.id)?;
            }
            Ok(Redrive::Not(status)) => {
                if !status.is_final() {
                    // Its message was received too often, and is missing.
                    jobs.send(&letter.body, letter.tenant.as_deref().unwrap_or("none"), 0).await?;
                }
                queue.delete(&letter.receipt_handle).await?;
                writeln!(out, "{} is {} and has not failed; its message is dropped", letter.body, status.name())?;
            }
            Ok(Redrive::Missing) => {
                kept.push(letter.clone());
                let what = if is_id(&letter.body) { letter.body.as_str() } else { letter.id.as_str() };
                writeln!(out, "{what} names no job that is kept; it can only be dropped")?;
            }
            Err(error) => {
                kept.push(letter.clone());
                writeln!(out, "{} stays: {error}", letter.body)?;
            }
        }
    }
    let count = looked.wanted.len() - kept.len();
    queue.show_again(&kept).await?;
    finish(queue, &looked, which, out).await?;
    if !kept.is_empty() {
        bail!("{count} messages were dealt with, {} stay", kept.len());
    }
    Ok(())
}

async fn drop_letters(app: &App, which: &Which, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = dead_letters(app)?;
    let looked = chosen(queue, which).await?;
    for letter in &looked.wanted {
        queue.delete(&letter.receipt_handle).await?;
        writeln!(out, "dropped {}", if is_id(&letter.body) { &letter.body } else { &letter.id })?;
    }
    finish(queue, &looked, which, out).await
}

async fn chosen(queue: &Queue, which: &Which) -> anyhow::Result<Look> {
    let names = |letter: &DeadLetter| which.ids.contains(&letter.body) || which.ids.contains(&letter.id);
    look(queue, which.scope.most, |letter| is_of(letter, &which.scope) && (which.all || names(letter))).await
}

/// Shows the others again, and tells what was not found.
async fn finish(queue: &Queue, looked: &Look, which: &Which, out: &mut impl Write) -> anyhow::Result<()> {
    queue.show_again(&looked.others).await?;
    tell_extent(looked, out)?;
    let found: HashSet<&str> =
        looked.wanted.iter().flat_map(|letter| [letter.body.as_str(), letter.id.as_str()]).collect();
    let missing: Vec<&str> = which.ids.iter().map(String::as_str).filter(|id| !found.contains(id)).collect();
    if !missing.is_empty() {
        bail!("no dead letter was found for {}", missing.join(", "));
    }
    Ok(())
}

fn tell_extent(looked: &Look, out: &mut impl Write) -> anyhow::Result<()> {
    let (seen, wanted) = (looked.wanted.len() + looked.others.len(), looked.wanted.len());
    match looked.is_whole {
        true => writeln!(out, "{wanted} of {seen} dead letters")?,
        false => writeln!(
            out,
            "{wanted} of {seen} dead letters; the queue holds about {}, of which the others were not looked at (see --most)",
            looked.about_held
        )?,
    }
    Ok(())
}

fn dead_letters(app: &App) -> anyhow::Result<&Queue> {
    app.dead_letters.as_ref().context("SPILLWAY_DEAD_LETTER_QUEUE_URL is not set")
}

fn is_of(letter: &DeadLetter, scope: &Scope) -> bool {
    scope.tenant.is_none() || scope.tenant == letter.tenant
}

/// Whether this is a job's id, which is no secret and may be shown.
fn is_id(body: &str) -> bool {
    body.len() == 36 && body.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn route(job: &Job) -> String {
    format!("POST {}", job.call.path)
}

fn age(age_ms: u64) -> String {
    let age_s = age_ms / 1_000;
    match age_s {
        0..120 => format!("{age_s}s"),
        120..7_200 => format!("{}m", age_s / 60),
        7_200..172_800 => format!("{}h", age_s / 3_600),
        _ => format!("{}d", age_s / 86_400),
    }
}

fn moment(at_ms: u64) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(at_ms / 1_000 * 1_000);
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_unit_that_fits() {
        let told = [0, 119_000, 120_000, 7_199_000, 7_200_000, 172_800_000].map(age);
        assert_eq!(told, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }

    #[test]
    fn only_an_id_is_shown_of_a_message() {
        assert!(is_id("018f0000-0000-7000-8000-000000000000"));
        assert!(!is_id("please tell nobody that I wrote this, ok") && !is_id(""));
        let letter = DeadLetter {
            id: "m".into(),
            body: "my prompt".into(),
            receipt_handle: String::new(),
            tenant: None,
            reason: None,
            since_ms: 0,
        };
        assert_eq!(row(&letter, None, 1_000)[..4], ["(message m)", "-", "received_too_often", "1s"]);
    }
}
