//! API keys of tenants.

use std::{io::Write, time::Duration};

use anyhow::{Context, bail};
use spillway::{
    store::registry::Registry,
    tenant::{ApiKey, KeyRecord},
    units::{Millis, UnixMs},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::show;

/// Maximum lifetime of a key that expires: ten years.
const MAX_LIFETIME: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// Creates a key and prints it on a line without other text.
pub async fn create(
    registry: &Registry,
    tenant: &str,
    expires_in: Option<Duration>,
    now: UnixMs,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if registry.tenant(tenant).await?.is_none() {
        bail!("there is no tenant {tenant}; create it first with `spillway tenants apply`");
    }
    let expires_at = expires_in.map(|lifetime| now + Millis::from(lifetime));
    let key = ApiKey::generate().context("the system cannot generate random bytes")?;
    registry.put_key(&KeyRecord::new(&key, tenant, expires_at)).await?;
    Ok(writeln!(out, "{}", key.expose())?)
}

/// Revokes a key.
pub async fn revoke(registry: &Registry, id: &str, out: &mut impl Write) -> anyhow::Result<()> {
    // The argument may be the whole key; it is not printed.
    let key = ApiKey::parse(id);
    let id = key.as_ref().map_or(id, ApiKey::id);
    if !registry.revoke_key(id).await? {
        bail!("there is no key {id}");
    }
    Ok(writeln!(out, "revoked key {id}")?)
}

/// Lists the keys of a tenant without their secrets.
pub async fn list(registry: &Registry, tenant: &str, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    let keys = registry.keys_of(tenant).await?;
    let rows = keys.iter().map(|key| Ok([key.id.clone(), expiry(key.expires_at, now)?]));
    show::table(["KEY ID", "EXPIRES"], rows.collect::<anyhow::Result<Vec<_>>>()?, out)
}

fn expiry(expires_at: Option<UnixMs>, now: UnixMs) -> anyhow::Result<String> {
    let Some(expires_at) = expires_at else { return Ok("never".to_owned()) };
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(expires_at.as_s())?)?.format(&Rfc3339)?;
    Ok(if expires_at <= now { format!("{time} (expired)") } else { time })
}

/// Reads a time such as `90d`, `12h`, `30m` or `45s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || "must be a whole number followed by d, h, m or s, such as 90d, and at most 3650d".to_owned();
    let unit_s = match text.chars().next_back() {
        Some('d') => 24 * 60 * 60,
        Some('h') => 60 * 60,
        Some('m') => 60,
        Some('s') => 1,
        _ => return Err(invalid()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| invalid())?;
    let time = Duration::from_secs(number.saturating_mul(unit_s));
    if time.is_zero() || time > MAX_LIFETIME { Err(invalid()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(7_776_000)));
        assert_eq!(parse_duration("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(parse_duration("45s"), Ok(Duration::from_secs(45)));
        for text in ["", "d", "30", "0d", "-1d", "1.5h", "3651d", "99999999999999999999d", "1ä", "1 d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_expiry_is_printed_as_a_date() {
        let (start, expires_at) = (UnixMs::default(), Some(UnixMs::from_ms(1_800_000_000_000)));
        assert_eq!(expiry(None, start).expect("a date"), "never");
        assert_eq!(expiry(expires_at, start).expect("a date"), "2027-01-15T08:00:00Z");
        assert_eq!(expiry(expires_at, UnixMs::MAX).expect("a date"), "2027-01-15T08:00:00Z (expired)");
    }
}
