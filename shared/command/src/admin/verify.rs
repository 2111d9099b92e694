//! Verifies the ledger: recomputes its counters from request events.

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
    quota::{Attribute, Audit, CARRY_EPOCH, Charge, Charged, Drift, EPOCH, Image, flaws},
    store::ledger::{pool_account, tenant_account},
    units::UnixMs,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// Arguments of `spillway ledger verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File of request events as the broker prints them, one per line; - for standard input. Other
    /// lines are ignored. Can be repeated. Without events, only the counters' invariants are
    /// checked
    #[arg(long, value_name = "FILE")]
    events: Vec<PathBuf>,
    /// Time from which the events are complete, such as 2026-11-24T00:00:00Z; without it, from the
    /// beginning. Counters that started earlier are not compared
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
}

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("{text} is not a time such as 2026-11-24T00:00:00Z"))
}

/// Charges in a request event. The field names come from `spillway::telemetry::RequestEvent`.
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

/// Compares all accounts with the events, and prints the differences.
///
/// # Errors
/// Returns an error if a counter differs, a file cannot be read, or the ledger is unavailable.
pub async fn run(app: &App, args: &Args, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    let mut audits = BTreeMap::new();
    let mut outcomes = 0;
    for file in &args.events {
        outcomes += read(file, &mut audits).with_context(|| format!("reading {}", file.display()))?;
    }
    if outcomes == 0 && !args.events.is_empty() {
        bail!("the files hold no event of a charged request; `spillway local --events` prints such events");
    }
    let since_s = args.since.map_or(0, |since| u64::try_from(since.unix_timestamp()).unwrap_or(0));
    let since = UnixMs::from_ms(since_s * 1_000);
    let accounts = app.ledger.accounts().await?;
    let (mut compared, mut differences) = (0, 0);
    for (name, images) in &accounts {
        for flaw in images.iter().flat_map(flaws) {
            differences += 1;
            writeln!(out, "{name}: {flaw}")?;
        }
        if args.events.is_empty() {
            continue;
        }
        let findings = audits.remove(name).unwrap_or_default().compare(images, since, now);
        compared += findings.compared;
        differences += findings.drifts.len();
        for drift in findings.drifts {
            writeln!(out, "{name}: {}", describe(&drift, images))?;
        }
    }
    for name in audits.keys() {
        differences += 1;
        writeln!(out, "{name}: there are outcomes, but no counters")?;
    }
    let accounts = accounts.len();
    writeln!(out, "{accounts} accounts, {outcomes} outcomes, {compared} counters compared: {differences} differences")?;
    if differences > 0 {
        bail!("the ledger does not match the outcomes");
    }
    Ok(())
}

/// Adds the outcomes of a file to the audits of their accounts. Returns their number.
fn read(file: &Path, audits: &mut BTreeMap<String, Audit>) -> anyhow::Result<u64> {
    let lines: Box<dyn BufRead> = match file.to_str() {
        Some("-") => Box::new(stdin().lock()),
        _ => Box::new(BufReader::new(File::open(file)?)),
    };
    let mut outcomes = 0;
    for line in lines.lines() {
        // A log also holds other lines.
        let Ok(event) = serde_json::from_str::<Event>(&line?) else { continue };
        let usage = event.input_tokens.zip(event.output_tokens);
        let pool = event.model.as_deref().zip(event.pool.as_deref()).map(|(model, pool)| pool_account(model, pool));
        let payers = [
            ("tenant", event.tenant.as_deref().map(tenant_account)),
            ("parent", event.parent.as_deref().map(tenant_account)),
            ("pool", pool),
        ];
        for (payer, account) in payers {
            if let (Some(account), Some(charged)) = (account, event.charged(payer)) {
                audits.entry(account).or_default().add(&charged, usage);
                outcomes += u64::from(payer == "tenant");
            }
        }
    }
    Ok(outcomes)
}

impl Event {
    fn charged(&self, payer: &str) -> Option<Charged> {
        let field = |name: &str| self.fields.get(&format!("{payer}_charged_{name}"))?.as_u64();
        let charge = Charge {
            requests: field("requests").unwrap_or(1),
            minute_tokens: field("minute_tokens")?,
            day_tokens: field("day_tokens")?,
            cost_microusd: field("microusd")?,
            ..Charge::ZERO
        };
        // The events write true as 1.
        let carries_over = field("carries_over") == Some(1);
        Some(Charged { at: UnixMs::from_ms(field("at_ms")?), charge, carries_over })
    }
}

fn describe(drift: &Drift, images: &[Image]) -> String {
    let Drift { attribute, recorded, recomputed } = *drift;
    let in_flight: u64 = images.iter().map(|image| image.get(Attribute::InFlight)).sum();
    let counter = match attribute {
        Attribute::Requests(start) => {
            format!("requests of the minute from {}", moment((EPOCH * start).as_ms() / 1_000))
        }
        Attribute::Tokens(start) => format!("tokens of the minute from {}", moment((EPOCH * start).as_ms() / 1_000)),
        Attribute::CarriedTokens(start) => {
            format!("tokens of the five minutes from {}", moment((CARRY_EPOCH * start).as_ms() / 1_000))
        }
        Attribute::Day(day) => format!("tokens of the day from {}", moment(day * 86_400)),
        Attribute::Month(month) => format!("micro-USD of {}-{:02}", month / 12, month % 12 + 1),
        Attribute::SettledRequests => "requests settled".to_owned(),
        Attribute::SettledInput => "input tokens settled".to_owned(),
        Attribute::SettledOutput => "output tokens settled".to_owned(),
        Attribute::SettledCost => "micro-USD settled".to_owned(),
        attribute => attribute.name(),
    };
    let reason = match recorded - recomputed {
        excess if excess > 0 && in_flight > 0 => {
            format!("{excess} more; {in_flight} requests in flight hold a part of it")
        }
        excess if excess > 0 => format!("{excess} charged without an outcome"),
        difference => format!("{} less than the outcomes", -difference),
    };
    format!("{counter}: {recorded}, recomputed {recomputed}: {reason}")
}

fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::UNIX_EPOCH.checked_add(Duration::seconds(seconds));
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}
