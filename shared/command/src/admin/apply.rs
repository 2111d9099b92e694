//! Changes to tenants and models.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    sync::Arc,
};

use anyhow::{Context, bail};
use spillway::{
    broker,
    pool::{Catalogue, Model},
    store::registry::{Registry, Written},
    tenant::Tenant,
};

use super::{file::Entries, residency};

/// A changed entry with its new version, and the number of items that its accounts had before.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A tenant.
    Tenant { tenant: Box<Tenant>, former_shards: u64 },
    /// A model, with the former number of items of each pool by the pool's name.
    Model { model: Model, former_shards: HashMap<String, u64> },
}

/// Writes the tenants in a file.
pub async fn tenants(registry: &Registry, entries: &Entries, out: &mut impl Write) -> anyhow::Result<Vec<Change>> {
    if entries.tenants.is_empty() {
        bail!("the file has no [[tenants]]");
    }
    check_parents(&registry.tenants().await?, &entries.tenants)?;
    warn_of_unknown_models(registry, entries, out).await?;
    let (stored, catalogue) = (registry.tenants().await?, registry.latest_catalogue().await?);
    let models = entries.models.iter().cloned().map(Arc::new).chain(catalogue.models().cloned());
    residency::warn(&entries.tenants, &stored, models, registry.own_region(), out)?;
    let mut changes = Vec::new();
    for tenant in &entries.tenants {
        let name = &tenant.name;
        let former = registry.tenant(name).await?;
        let written = registry.put_tenant(tenant).await.with_context(|| format!("writing tenant {name}"))?;
        if let Some(version) = print_written(out, "tenant", name, written)? {
            let former_shards = former.map_or(0, |former| broker::account_for(&former).shards);
            changes.push(Change::Tenant { tenant: Box::new(Tenant { version, ..tenant.clone() }), former_shards });
        }
    }
    Ok(changes)
}

/// Refuses tenants that list `own_bucket`, in which the broker keeps the bodies of all tenants.
/// Their requests would be refused.
pub fn check_buckets(entries: &Entries, own_bucket: Option<&str>) -> anyhow::Result<()> {
    let Some(own_bucket) = own_bucket else { return Ok(()) };
    let lists_it = |tenant: &&Tenant| tenant.buckets.iter().any(|bucket| bucket == own_bucket);
    match entries.tenants.iter().find(lists_it) {
        Some(tenant) => bail!(
            "tenant {} lists the bucket {own_bucket}, which has the files of all tenants; nothing was changed",
            tenant.name
        ),
        None => Ok(()),
    }
}

/// Writes the models in a file, unless an ID would then resolve to two models.
pub async fn models(registry: &Registry, entries: &Entries, out: &mut impl Write) -> anyhow::Result<Vec<Change>> {
    if entries.models.is_empty() {
        bail!("the file has no [[models]]");
    }
    let applied: HashSet<&str> = entries.models.iter().map(|model| model.name.as_str()).collect();
    let catalogue = registry.latest_catalogue().await?;
    let kept = catalogue.models().filter(|model| !applied.contains(model.name.as_str())).map(|model| (**model).clone());
    let clashes = Catalogue::new(entries.models.iter().cloned().chain(kept)).clashes();
    if !clashes.is_empty() {
        bail!("the file conflicts with models in the registry; nothing was changed:\n{}", clashes.join("\n"));
    }
    let tenants: Vec<Tenant> = entries.tenants.iter().cloned().chain(registry.tenants().await?).collect();
    residency::warn(&tenants, &[], entries.models.iter().cloned().map(Arc::new), registry.own_region(), out)?;
    let mut changes = Vec::new();
    for model in &entries.models {
        let name = &model.name;
        let written = registry.put_model(model).await.with_context(|| format!("writing model {name}"))?;
        if let Some(version) = print_written(out, "model", name, written)? {
            let former = catalogue.models().find(|former| former.name == *name);
            let pools = former.iter().flat_map(|former| former.ladder.iter().map(|pool| (*former, pool)));
            let former_shards =
                pools.map(|(former, pool)| (pool.name.clone(), broker::account_for_pool(former, pool, 100).shards));
            changes.push(Change::Model {
                former_shards: former_shards.collect(),
                model: Model { version, ..model.clone() },
            });
        }
    }
    Ok(changes)
}

/// Deletes a tenant with its keys, callers and webhooks.
pub async fn delete_tenant(registry: &Registry, name: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let tenants = registry.tenants().await?;
    let members: Vec<&str> = members(&tenants, name).map(|member| member.name.as_str()).collect();
    if !members.is_empty() {
        bail!("tenant {name} is the parent of {}; nothing was changed", members.join(", "));
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

/// Checks that a parent has no parent: a request is charged to at most two tenants.
fn check_parents(stored: &[Tenant], applied: &[Tenant]) -> anyhow::Result<()> {
    let is_applied = |name: &str| applied.iter().any(|tenant| tenant.name == name);
    let kept = stored.iter().filter(|tenant| !is_applied(&tenant.name)).cloned();
    let tenants: Vec<Tenant> = applied.iter().cloned().chain(kept).collect();
    let mut errors = Vec::new();
    for (tenant, parent) in tenants.iter().filter_map(|tenant| Some((tenant, tenant.parent.as_ref()?))) {
        match tenants.iter().find(|candidate| candidate.name == *parent) {
            None => errors.push(format!("tenant {:?}: parent: there is no tenant {parent:?}", tenant.name)),
            Some(Tenant { parent: Some(grandparent), .. }) => errors.push(format!(
                "tenant {:?}: parent: {parent:?} has the parent {grandparent:?}, but only two levels are allowed",
                tenant.name
            )),
            Some(_) => {}
        }
    }
    if !errors.is_empty() {
        bail!("the file conflicts with tenants in the registry; nothing was changed:\n{}", errors.join("\n"));
    }
    Ok(())
}

fn members<'a>(tenants: &'a [Tenant], parent: &'a str) -> impl Iterator<Item = &'a Tenant> {
    tenants.iter().filter(move |tenant| tenant.parent.as_deref() == Some(parent))
}

/// Prints how an entry was written. Returns its new version if it changed.
fn print_written(out: &mut impl Write, kind: &str, name: &str, written: Written) -> anyhow::Result<Option<u64>> {
    let (verb, version, changed) = match written {
        Written::Created { version } => ("created", version, Some(version)),
        Written::Updated { version } => ("updated", version, Some(version)),
        Written::Unchanged { version } => ("unchanged", version, None),
    };
    writeln!(out, "{verb} {kind} {name} (version {version})")?;
    Ok(changed)
}

/// Warns of models that do not exist. It is not an error, because a tenant may be written before
/// its models, but a misspelt name looks the same.
async fn warn_of_unknown_models(registry: &Registry, entries: &Entries, out: &mut impl Write) -> anyhow::Result<()> {
    let catalogue = registry.latest_catalogue().await?;
    let known: HashSet<&str> = catalogue
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tenant_lists_the_bucket_of_the_broker() {
        let entries =
            Entries::parse("[[tenants]]\nname = \"a\"\nbuckets = [\"media\", \"own-bodies\"]").expect("entries");
        assert!(check_buckets(&entries, None).is_ok() && check_buckets(&entries, Some("other")).is_ok());
        let error = check_buckets(&entries, Some("own-bodies")).expect_err("the broker's bucket");
        assert!(error.to_string().starts_with("tenant a lists the bucket own-bodies"), "{error}");
    }
}
