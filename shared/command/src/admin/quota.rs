//! Use of a tenant's limits.

use std::{io::Write, time::Duration};

use anyhow::{Context, bail};
use spillway::{
    app::App,
    broker,
    quota::{Attribute, Image, LimitState},
    store::refusal_log::RefusalCount,
    tenant::Tenant,
    units::UnixMs,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::show::table;

/// Prints the limits of tenant `name` and of its parent with their use and the time until they are
/// free again, the settled totals, and the latest refusals.
pub async fn show(app: &App, name: &str, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(tenant) = app.registry.tenant(name).await? else { bail!("there is no tenant {name}") };
    writeln!(out, "tenant {name}, class {}", tenant.class.name())?;
    print_account(app, &tenant, now, out).await?;
    if let Some(parent) = &tenant.parent {
        writeln!(out, "\nparent {parent}")?;
        let found = app.registry.tenant(parent).await?;
        let parent =
            found.with_context(|| format!("the parent {parent} does not exist, so every request is refused"))?;
        print_account(app, &parent, now, out).await?;
    }
    print_refusals(&app.refusals.for_tenant(name).await?, out)
}

async fn print_account(app: &App, tenant: &Tenant, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    let account = broker::account_for(tenant);
    let images = app.ledger.images(&account).await?;
    let states = account.states(&images, now);
    match states.is_empty() {
        true => writeln!(out, "no limits")?,
        false => table(["LIMIT", "CAP", "USED", "LEFT", "ALL FREE"], states.into_iter().map(row), out)?,
    }
    let total = |attribute| images.iter().map(|image: &Image| image.get(attribute)).sum::<u64>();
    writeln!(out, "in flight: {}", total(Attribute::InFlight))?;
    writeln!(
        out,
        "settled: {} requests, {} input tokens, {} output tokens, {} micro-USD",
        total(Attribute::SettledRequests),
        total(Attribute::SettledInput),
        total(Attribute::SettledOutput),
        total(Attribute::SettledCost)
    )?;
    let regained = total(Attribute::Regained);
    if regained > 0 {
        writeln!(out, "regained by right-sizing: {regained} quota tokens")?;
    }
    Ok(())
}

fn row(state: LimitState) -> [String; 5] {
    let free_in = match state.resets_in.as_ms() {
        0 => "now".to_owned(),
        reset_ms => format!("{:?}", Duration::from_secs(reset_ms.div_ceil(1_000))),
    };
    [
        state.limit.name().to_owned(),
        state.cap.to_string(),
        state.used.to_string(),
        state.remaining().to_string(),
        free_in,
    ]
}

fn print_refusals(refused: &[RefusalCount], out: &mut impl Write) -> anyhow::Result<()> {
    if refused.is_empty() {
        return Ok(writeln!(out, "\nnever refused")?);
    }
    writeln!(out)?;
    let row = |refused: &RefusalCount| {
        let last = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(refused.last_at.as_ms() / 1_000 * 1_000);
        let last = last.format(&Rfc3339).unwrap_or_default();
        [refused.limit.to_string(), refused.count.to_string(), last]
    };
    table(["REFUSED BY", "TIMES", "LAST"], refused.iter().map(row), out)
}
