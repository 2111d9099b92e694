//! The pools of a model that a tenant may use.

use std::sync::Arc;

use super::{Model, Pool};
use crate::{
    problem::{Kind, Problem, SkippedPool, SkippedPools},
    tenant::{Residency, Tenant},
};

impl Model {
    /// Returns the model with only the pools that all `payers`, a tenant and its parent, permit. So
    /// no code that serves a request sees another pool. Tokenizer and format stay the whole
    /// model's. `own_region` is the region of pools without one; `None` if it is not known.
    ///
    /// # Errors
    /// Returns an error if no pool is permitted.
    pub fn permitted_to(self: Arc<Self>, payers: &[&Tenant], own_region: Option<&str>) -> Result<Arc<Self>, Problem> {
        let reason = |pool: &Pool| payers.iter().find_map(|payer| why_withheld(pool, payer, own_region));
        if self.ladder.iter().all(|pool| reason(pool).is_none()) {
            return Ok(self);
        }
        let mut model = Self { tokenizer: Some(self.tokenizer()), format: self.format(), ..(*self).clone() };
        model.ladder.retain(|pool| {
            let reason = reason(pool);
            model.withheld.extend(reason.map(|reason| SkippedPool::passed_over(&pool.name, reason)));
            reason.is_none()
        });
        if model.ladder.is_empty() { Err(not_permitted(model, payers)) } else { Ok(Arc::new(model)) }
    }
}

/// Returns the setting of `payer` that keeps it from `pool`; `None` if it may use the pool.
fn why_withheld(pool: &Pool, payer: &Tenant, own_region: Option<&str>) -> Option<&'static str> {
    let residency = &payer.residency;
    let region = pool.region.as_deref().or(own_region);
    let is_permitted = *residency == Residency::default() || residency.permits(region, pool.scope().as_ref());
    match is_permitted {
        false => Some("residency"),
        true => (pool.substitute && !payer.substitutes).then_some("substitutes"),
    }
}

/// No pool of `model` is permitted to `payers`.
fn not_permitted(model: Model, payers: &[&Tenant]) -> Problem {
    let restricts = |payer: &&&Tenant| payer.residency != Residency::default() || !payer.substitutes;
    let names: Vec<&str> = payers.iter().filter(restricts).map(|payer| payer.name.as_str()).collect();
    let mut settings: Vec<&str> = model.withheld.iter().map(|pool| pool.reason).collect();
    settings.sort_unstable();
    settings.dedup();
    let (settings, names) = (settings.join(" and "), names.join(" and "));
    let message = format!("Model {} has no pool that the setting {settings} of tenant {names} permits.", model.name);
    let skipped = Some(Box::new(SkippedPools { pools: model.withheld, is_whole_ladder: false }));
    Problem { param: Some("model".into()), skipped, ..Problem::new(Kind::Forbidden, message) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ids, each with its scope; empty if the id does not show one.
    const IDS: [(&str, &str); 7] = [
        ("arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc", "in_region"),
        ("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc", ""),
        ("anthropic.claude-opus-4-7", "in_region"),
        ("eu.anthropic.claude-opus-4-7", "eu"),
        ("us.anthropic.claude-opus-4-7", "us"),
        ("global.anthropic.claude-opus-4-7", "global"),
        ("no-such-id", ""),
    ];
    const REGIONS: [&str; 3] = ["eu-west-1", "eu-central-1", "us-east-1"];
    const SCOPES: [&str; 4] = ["in_region", "eu", "us", "global"];

    type Lists = (Option<Vec<&'static str>>, Option<Vec<&'static str>>);

    fn lists() -> impl Strategy<Value = Lists> {
        let some = |names: &[&'static str]| proptest::sample::subsequence(names.to_vec(), 1..=names.len());
        (proptest::option::of(some(&REGIONS)), proptest::option::of(some(&SCOPES)))
    }

    fn tenant(name: &str, (regions, scopes): &Lists) -> Tenant {
        let mut residency = serde_json::Map::new();
        residency.extend(regions.as_ref().map(|regions| ("regions".to_owned(), serde_json::json!(regions))));
        residency.extend(scopes.as_ref().map(|scopes| ("scopes".to_owned(), serde_json::json!(scopes))));
        serde_json::from_value(serde_json::json!({"name": name, "residency": residency})).expect("a tenant")
    }

    proptest! {
        /// The ladder of a request has exactly the pools that both lists of both payers permit, in
        /// the order of the model. The others are withheld.
        #[test]
        fn a_ladder_has_exactly_the_pools_that_every_payer_permits(
            pools in proptest::collection::vec(
                (proptest::sample::select(IDS.to_vec()), proptest::option::of(proptest::sample::select(REGIONS.to_vec())),
                    proptest::option::of(proptest::sample::select(SCOPES.to_vec()))),
                1..8,
            ),
            payers in proptest::collection::vec(lists(), 1..3),
            own_region in proptest::option::of(proptest::sample::select(REGIONS.to_vec())),
        ) {
            let ladder = pools.iter().enumerate().map(|(rung, ((id, _), region, scope))| serde_json::json!({
                "name": rung.to_string(), "kind": "on_demand", "model_id": id, "region": region, "scope": scope,
            }));
            let ladder: Vec<_> = ladder.collect();
            let model = serde_json::from_value(serde_json::json!({"name": "m", "ladder": ladder}));
            let model: Model = model.expect("a model");
            let is_permitted = |((_, of_id), region, set): &((&str, &'static str), Option<&str>, Option<&'static str>)| {
                let scope = if of_id.is_empty() { *set } else { Some(*of_id) };
                let region = region.or(own_region);
                payers.iter().all(|(regions, scopes)| {
                    regions.as_ref().is_none_or(|regions| region.is_some_and(|region| regions.contains(&region)))
                        && scopes.as_ref().is_none_or(|scopes| scope.is_some_and(|scope| scopes.contains(&scope)))
                })
            };
            let wanted: Vec<String> =
                pools.iter().enumerate().filter(|(_, pool)| is_permitted(pool)).map(|(rung, _)| rung.to_string()).collect();
            let tenants: Vec<Tenant> = payers.iter().map(|lists| tenant("t", lists)).collect();
            let (tokenizer, format) = (model.tokenizer(), model.format());
            match Arc::new(model).permitted_to(&tenants.iter().collect::<Vec<_>>(), own_region) {
                Ok(permitted) => {
                    let left: Vec<String> = permitted.ladder.iter().map(|pool| pool.name.clone()).collect();
                    prop_assert_eq!(&left, &wanted);
                    prop_assert_eq!(left.len() + permitted.withheld.len(), pools.len());
                    prop_assert_eq!((permitted.tokenizer(), permitted.format()), (tokenizer, format));
                }
                Err(problem) => {
                    prop_assert!(wanted.is_empty());
                    prop_assert_eq!(problem.kind, Kind::Forbidden);
                }
            }
        }
    }
}
