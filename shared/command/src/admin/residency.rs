//! Warnings of tenants whose residency leaves them no pool of a model that they list.

use std::{collections::HashSet, io::Write, sync::Arc};

use spillway::{pool::Model, tenant::Tenant};

/// Warns of each of `tenants` whose residency, or its parent's, permits no pool of a model that it
/// lists by name. Parents are among `tenants` or `stored`. Of two entries with one name, the first
/// counts. A pool without a region is taken as permitted if `own_region` is not known.
///
/// # Errors
/// Returns an error if the warning cannot be written.
pub fn warn(
    tenants: &[Tenant],
    stored: &[Tenant],
    models: impl Iterator<Item = Arc<Model>>,
    own_region: Option<&str>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut names = HashSet::new();
    let models: Vec<_> = models.filter(|model| names.insert(model.name.clone())).collect();
    let mut names = HashSet::new();
    for tenant in tenants.iter().filter(|tenant| names.insert(&tenant.name)) {
        let is_parent = |candidate: &&Tenant| tenant.parent.as_ref() == Some(&candidate.name);
        let parent = tenants.iter().chain(stored).find(is_parent);
        let payers: Vec<&Tenant> = [Some(tenant), parent].into_iter().flatten().collect();
        for model in models.iter().filter(|model| tenant.models.contains(&model.name)) {
            let has_unknown_region = own_region.is_none() && model.ladder.iter().any(|pool| pool.region.is_none());
            if let (false, Err(problem)) = (has_unknown_region, Arc::clone(model).permitted_to(&payers, own_region)) {
                writeln!(out, "warning: tenant {} cannot call model {}: {problem}", tenant.name, model.name)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Entries;

    fn warnings(text: &str, own_region: Option<&str>) -> String {
        let entries = Entries::parse(text).expect("entries");
        let mut out = Vec::new();
        let models = entries.models.into_iter().map(Arc::new);
        warn(&entries.tenants, &[], models, own_region, &mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_tenant_whose_residency_permits_no_pool_of_a_listed_model_is_reported() {
        let file = r#"
            [[tenants]]
            name = "all"
            residency = { scopes = ["in_region"] }
            [[tenants]]
            name = "acme"
            residency = { scopes = ["eu"], regions = ["eu-west-1"] }
            [[tenants]]
            name = "member"
            parent = "acme"
            models = ["far", "near", "unlisted"]
            [[models]]
            name = "far"
            ladder = [{ name = "a", kind = "on_demand", model_id = "global.amazon.nova-2-lite-v1:0", region = "eu-west-1" }]
            [[models]]
            name = "near"
            ladder = [{ name = "a", kind = "on_demand", model_id = "eu.amazon.nova-lite-v1:0" }]
        "#;
        let far = "warning: tenant member cannot call model far: Model far has no pool that the setting residency of \
                   tenant acme permits.\n";
        assert_eq!(warnings(file, Some("eu-west-1")), far);
        assert_eq!(warnings(file, None), far);
        assert!(warnings(file, Some("us-east-1")).contains("cannot call model near"));
    }
}
