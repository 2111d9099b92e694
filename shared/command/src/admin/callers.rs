//! Callers of tenants.

use std::io::Write;

use anyhow::{Context, bail};
use spillway::{
    store::registry::Registry,
    tenant::{CallerRecord, caller_id},
};

use super::show;

/// Allows a caller to call as a tenant.
pub async fn allow(registry: &Registry, identity: &str, tenant: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let id = parse(identity)?;
    if registry.tenant(tenant).await?.is_none() {
        bail!("there is no tenant {tenant}; create it first with `spillway tenants apply`");
    }
    registry.put_caller(&CallerRecord { id: id.clone(), tenant: tenant.to_owned() }).await?;
    Ok(writeln!(out, "allowed caller {id} for tenant {tenant}")?)
}

/// Revokes a caller.
pub async fn revoke(registry: &Registry, identity: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let id = parse(identity)?;
    if !registry.revoke_caller(&id).await? {
        bail!("there is no caller {id}");
    }
    Ok(writeln!(out, "revoked caller {id}")?)
}

/// Lists all callers.
pub async fn list(registry: &Registry, out: &mut impl Write) -> anyhow::Result<()> {
    let rows = registry.callers().await?.into_iter().map(|caller| [caller.id, caller.tenant]);
    show::table(["CALLER", "TENANT"], rows, out)
}

fn parse(identity: &str) -> anyhow::Result<String> {
    let must_be = "must be the ARN of an IAM identity or an access key ID, of 1 to 1024 visible ASCII characters";
    caller_id(identity).with_context(|| format!("{identity:?} {must_be}"))
}
