//! The ledger against what happened: counters recomputed from the events of requests.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write, stdin},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Deserialize;
use spillway::{
    app::App,
    quota::{Attribute, Audit, Charge, Charged, Drift, EPOCH_MS, Image, flaws},
    store::ledger::{pool_account, tenant_account},
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// What to compare with.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Events of requests, as the broker prints them, one to a line; - for standard input. Other lines are passed over.
    /// Without any, only what must hold in any case is checked
    #[arg(long, value_name = "FILE")]
    events: Vec<PathBuf>,
    /// Since when all events are there, such as 2026-11-24T00:00:00Z; from the beginning when absent. What began to count
    /// earlier is not compared
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
}

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("{text} is not a time such as 2026-11-24T00:00:00Z"))
}

/// What an event says of the charges of its request; the names are those of `spillway::telemetry::RequestEvent`.
#[derive(Deserialize)]
struct Event {
    tenant: Option<String>,
    parent: Option<String>,
    model: Option<String>,
    pool: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    #[serde(flatten)]
    fields: BTreeMap<String, serde_json::Value>,
}

/// Compares all accounts with the events, and prints what differs.
///
/// # Errors
/// Something differs, a file cannot be read, or the ledger cannot be reached.
pub async fn run(app: &App, args: &Args, now_ms: u64, out: &mut impl Write) -> anyhow::Result<()> {
    let mut audits = BTreeMap::new();
    let mut outcomes = 0;
    for file in &args.events {
        outcomes += read(file, &mut audits).with_context(|| format!("reading {}", file.display()))?;
    }
    if outcomes == 0 && !args.events.is_empty() {
        bail!("there is no event of a charged request in the files: spillway local prints them with --events");
    }
    let since_ms = args.since.map_or(0, |since| u64::try_from(since.unix_timestamp()).unwrap_or(0) * 1_000);
    let accounts = app.ledger.accounts().await?;
    let (mut compared, mut wrong) = (0, 0);
    for (name, images) in &accounts {
        for flaw in images.iter().flat_map(flaws) {
            wrong += 1;
            writeln!(out, "{name}: {flaw}")?;
        }
        if args.events.is_empty() {
            continue;
        }
        let findings = audits.remove(name).unwrap_or_default().compare(images, since_ms, now_ms);
        compared += findings.compared;
        wrong += findings.drifts.len();
        for drift in findings.drifts {
            writeln!(out, "{name}: {}", told(&drift, images))?;
        }
    }
    for name in audits.keys() {
        wrong += 1;
        writeln!(out, "{name}: it has outcomes, but no counters")?;
    }
    let accounts = accounts.len();
    writeln!(out, "{accounts} accounts, {outcomes} outcomes, {compared} counters compared: {wrong} differences")?;
    if wrong > 0 {
        bail!("the ledger is not what the outcomes make it");
    }
    Ok(())
}

/// Adds the outcomes of a file to the audits of their accounts; how many there were.
fn read(file: &Path, audits: &mut BTreeMap<String, Audit>) -> anyhow::Result<u64> {
    let lines: Box<dyn BufRead> = match file.to_str() {
        Some("-") => Box::new(stdin().lock()),
        _ => Box::new(BufReader::new(File::open(file)?)),
    };
    let mut outcomes = 0;
    for line in lines.lines() {
        // A log holds other lines as well.
        let Ok(event) = serde_json::from_str::<Event>(&line?) else { continue };
        let usage = event.input_tokens.zip(event.output_tokens);
        let pool = event.model.as_deref().zip(event.pool.as_deref()).map(|(model, pool)| pool_account(model, pool));
        let payers = [
            ("tenant", event.tenant.as_deref().map(tenant_account)),
            ("parent", event.parent.as_deref().map(tenant_account)),
            ("pool", pool),
        ];
        for (of, account) in payers {
            if let (Some(account), Some(charged)) = (account, event.charged(of)) {
                audits.entry(account).or_default().add(&charged, usage);
                outcomes += u64::from(of == "tenant");
            }
        }
    }
    Ok(outcomes)
}

impl Event {
    fn charged(&self, of: &str) -> Option<Charged> {
        let field = |what: &str| self.fields.get(&format!("{of}_charged_{what}"))?.as_u64();
        let charge = Charge {
            requests: 1,
            minute_tokens: field("minute_tokens")?,
            day_tokens: field("day_tokens")?,
            cost_microusd: field("microusd")?,
        };
        Some(Charged { at_ms: field("at_ms")?, charge })
    }
}

fn told(drift: &Drift, images: &[Image]) -> String {
    let Drift { attribute, recorded, recomputed } = *drift;
    let in_flight: u64 = images.iter().map(|image| image.get(Attribute::InFlight)).sum();
    let counter = match attribute {
        Attribute::Requests(start) => format!("requests of the minute from {}", moment(start * EPOCH_MS / 1_000)),
        Attribute::Tokens(start) => format!("tokens of the minute from {}", moment(start * EPOCH_MS / 1_000)),
        Attribute::Day(day) => format!("tokens of the day from {}", moment(day * 86_400)),
        Attribute::Month(month) => format!("micro-USD of {}-{:02}", month / 12, month % 12 + 1),
        Attribute::SettledRequests => "requests settled".to_owned(),
        Attribute::SettledInput => "input tokens settled".to_owned(),
        Attribute::SettledOutput => "output tokens settled".to_owned(),
        Attribute::SettledCost => "micro-USD settled".to_owned(),
        other => other.name(),
    };
    let reason = match recorded - recomputed {
        more if more > 0 && in_flight > 0 => format!("{more} more, of which {in_flight} requests in flight hold some"),
        more if more > 0 => format!("{more} charged without an outcome"),
        less => format!("{} less than the outcomes", -less),
    };
    format!("{counter}: {recorded}, recomputed {recomputed}: {reason}")
}

fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::UNIX_EPOCH.checked_add(Duration::seconds(seconds));
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}
