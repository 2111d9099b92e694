//! Prints the entries of the registry.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;
use spillway::{
    pool::{Model, PoolKind},
    quota::Limits,
    store::registry::Registry,
    tenant::Tenant,
};

/// Lists all tenants.
pub async fn tenants(registry: &Registry, out: &mut impl Write) -> anyhow::Result<()> {
    let row = |tenant: Tenant| {
        [tenant.name, tenant.version.to_string(), tenant.class.name().to_owned(), limits(&tenant.limits)]
    };
    table(["TENANT", "VERSION", "CLASS", "LIMITS"], registry.tenants().await?.into_iter().map(row), out)
}

/// Lists all models.
pub async fn models(registry: &Registry, out: &mut impl Write) -> anyhow::Result<()> {
    let catalogue = registry.latest_catalogue().await?;
    let rows = catalogue.models().map(|model| {
        let ladder: Vec<_> = model.rungs().map(|pool| format!("{} ({})", pool.name, kind(pool.kind))).collect();
        [model.name.clone(), model.version.to_string(), ladder.join(", ")]
    });
    table(["MODEL", "VERSION", "LADDER"], rows, out)
}

/// Prints a tenant as a file for `spillway tenants apply`.
pub async fn tenant(registry: &Registry, name: &str, out: &mut impl Write) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct File<'a> {
        tenants: [&'a Tenant; 1],
    }
    let tenant = registry.tenant(name).await?.with_context(|| format!("there is no tenant {name}"))?;
    print(&File { tenants: [&tenant] }, out)
}

/// Prints a model as a file for `spillway models apply`. `id` is any ID that resolves to the model.
pub async fn model(registry: &Registry, id: &str, out: &mut impl Write) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct File<'a> {
        models: [&'a Model; 1],
    }
    let model = registry.latest_catalogue().await?.resolve(id).with_context(|| format!("there is no model {id}"))?;
    print(&File { models: [&model] }, out)
}

fn print(file: &impl Serialize, out: &mut impl Write) -> anyhow::Result<()> {
    Ok(write!(out, "{}", toml::to_string(file)?)?)
}

/// Prints rows below `headers`. Each column is as wide as its longest cell.
pub fn table<const COLUMNS: usize>(
    headers: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let rows: Vec<_> = std::iter::once(headers.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for row in &rows {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn kind(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Provisioned => "provisioned",
        PoolKind::OnDemand => "on-demand",
    }
}

fn limits(limits: &Limits) -> String {
    let shown: Vec<_> = limits.iter().map(|(limit, value)| format!("{value} {}", limit.label())).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}
