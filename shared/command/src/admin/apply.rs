//! Changes of tenants and models.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
};

use anyhow::{Context, bail};
use spillway::{
    broker,
    pool::{Catalogue, Model},
    store::registry::{Registry, Written},
    tenant::Tenant,
};

use super::file::Entries;

/// An entry that is different now, with its new version, and how many items its accounts were spread over before.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A tenant.
    Tenant { tenant: Tenant, former_shards: u64 },
    /// A model; its pools by name.
    Model { model: Model, former_shards: HashMap<String, u64> },
}

/// Writes the tenants of a file.
pub async fn tenants(registry: &Registry, entries: &Entries, out: &mut impl Write) -> anyhow::Result<Vec<Change>> {
    if entries.tenants.is_empty() {
        bail!("the file has no [[tenants]]");
    }
    check_parents(&registry.tenants().await?, &entries.tenants)?;
    warn_of_unknown_models(registry, entries, out).await?;
    let mut changes = Vec::new();
    for tenant in &entries.tenants {
        let name = &tenant.name;
        let former = registry.tenant(name).await?;
        let written = registry.put_tenant(tenant).await.with_context(|| format!("writing tenant {name}"))?;
        if let Some(version) = tell(out, "tenant", name, written)? {
            let former_shards = former.map_or(0, |former| broker::account_of(&former).shards);
            changes.push(Change::Tenant { tenant: Tenant { version, ..tenant.clone() }, former_shards });
        }
    }
    Ok(changes)
}

/// Writes the models of a file, unless together with those that are there an id would mean two of them.
pub async fn models(registry: &Registry, entries: &Entries, out: &mut impl Write) -> anyhow::Result<Vec<Change>> {
    if entries.models.is_empty() {
        bail!("the file has no [[models]]");
    }
    let applied: HashSet<&str> = entries.models.iter().map(|model| model.name.as_str()).collect();
    let there = registry.catalogue().await?;
    let kept = there.models().filter(|model| !applied.contains(model.name.as_str())).map(|model| (**model).clone());
    let clashes = Catalogue::new(entries.models.iter().cloned().chain(kept)).clashes();
    if !clashes.is_empty() {
        bail!("with the models that are there, and nothing was changed:\n{}", clashes.join("\n"));
    }
    let mut changes = Vec::new();
    for model in &entries.models {
        let name = &model.name;
        let written = registry.put_model(model).await.with_context(|| format!("writing model {name}"))?;
        if let Some(version) = tell(out, "model", name, written)? {
            let former = there.models().find(|former| former.name == *name);
            let pools = former.iter().flat_map(|former| former.ladder.iter().map(|pool| (*former, pool)));
            let former_shards =
                pools.map(|(former, pool)| (pool.name.clone(), broker::account_of_pool(former, pool, 100).shards));
            changes.push(Change::Model {
                former_shards: former_shards.collect(),
                model: Model { version, ..model.clone() },
            });
        }
    }
    Ok(changes)
}

/// Deletes a tenant, its keys, its callers and its webhooks.
pub async fn delete_tenant(registry: &Registry, name: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let tenants = registry.tenants().await?;
    let members: Vec<&str> = members(&tenants, name).map(|member| member.name.as_str()).collect();
    if !members.is_empty() {
        bail!("tenant {name} is the parent of {}, and nothing was changed", members.join(", "));
    }
    if !registry.delete_tenant(name).await? {
        bail!("there is no tenant {name}");
    }
    Ok(writeln!(out, "deleted tenant {name}, its keys, its callers and its webhooks")?)
}

/// Deletes a model.
pub async fn delete_model(registry: &Registry, name: &str, out: &mut impl Write) -> anyhow::Result<()> {
    if !registry.delete_model(name).await? {
        bail!("there is no model {name}");
    }
    Ok(writeln!(out, "deleted model {name}")?)
}

/// An organisation has members, but is no member itself: a request is charged to two tenants at most.
fn check_parents(there: &[Tenant], applied: &[Tenant]) -> anyhow::Result<()> {
    let is_applied = |name: &str| applied.iter().any(|tenant| tenant.name == name);
    let kept = there.iter().filter(|tenant| !is_applied(&tenant.name)).cloned();
    let all: Vec<Tenant> = applied.iter().cloned().chain(kept).collect();
    let mut wrong = Vec::new();
    for (tenant, parent) in all.iter().filter_map(|tenant| Some((tenant, tenant.parent.as_ref()?))) {
        match all.iter().find(|other| other.name == *parent) {
            None => wrong.push(format!("tenant {:?}: parent: there is no tenant {parent:?}", tenant.name)),
            Some(Tenant { parent: Some(above), .. }) => wrong.push(format!(
                "tenant {:?}: parent: {parent:?} has the parent {above:?}, and there are only two levels",
                tenant.name
            )),
            Some(_) => {}
        }
    }
    if !wrong.is_empty() {
        bail!("with the tenants that are there, and nothing was changed:\n{}", wrong.join("\n"));
    }
    Ok(())
}

fn members<'a>(tenants: &'a [Tenant], parent: &'a str) -> impl Iterator<Item = &'a Tenant> {
    tenants.iter().filter(move |tenant| tenant.parent.as_deref() == Some(parent))
}

/// Prints what became of an entry; gives its new version, if it has one.
fn tell(out: &mut impl Write, kind: &str, name: &str, written: Written) -> anyhow::Result<Option<u64>> {
    let (what, version, changed) = match written {
        Written::Created { version } => ("created", version, Some(version)),
        Written::Updated { version } => ("updated", version, Some(version)),
        Written::Unchanged { version } => ("unchanged", version, None),
    };
    writeln!(out, "{what} {kind} {name} (version {version})")?;
    Ok(changed)
}

/// A tenant may be written before its models; it is told because a typing error looks the same.
async fn warn_of_unknown_models(registry: &Registry, entries: &Entries, out: &mut impl Write) -> anyhow::Result<()> {
    let there = registry.catalogue().await?;
    let known: HashSet<&str> = there
        .models()
        .map(|model| &model.name)
        .chain(entries.models.iter().map(|model| &model.name))
        .map(String::as_str)
        .collect();
    for tenant in &entries.tenants {
        for model in tenant.models.iter().filter(|model| !known.contains(model.as_str())) {
            writeln!(out, "warning: tenant {} may call model {model}, which does not exist yet", tenant.name)?;
        }
    }
    Ok(())
}
