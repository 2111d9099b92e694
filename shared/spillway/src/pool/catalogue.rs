//! Catalogue: all models, by every id of theirs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::Model;
use crate::{
    problem::{Kind, Problem},
    tenant::Tenant,
};

/// Maximum length of a model id in an error message.
const MAX_SHOWN_CHARS: usize = 200;

/// The models of the registry.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    models: BTreeMap<String, Arc<Model>>,
    by_alias: HashMap<String, Arc<Model>>,
}

impl Catalogue {
    /// Indexes the models by their names, their aliases and the ids of their pools, without
    /// substitutes. If an id
    /// belongs to two models, a name takes precedence, then the model whose name sorts first.
    /// [`clashes`](Self::clashes) lists such ids.
    pub fn new(models: impl IntoIterator<Item = Model>) -> Self {
        let models: BTreeMap<_, _> = models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
        let mut by_alias = HashMap::new();
        for model in models.values() {
            for id in aliases_and_pool_ids(model) {
                by_alias.entry(id.to_owned()).or_insert_with(|| Arc::clone(model));
            }
        }
        Self { models, by_alias }
    }

    /// Returns the model with this id: a public name, an alias, or the id of a pool.
    pub fn resolve(&self, id: &str) -> Option<Arc<Model>> {
        self.models.get(id).or_else(|| self.by_alias.get(id)).cloned()
    }

    /// Returns the model with this `id`, if `tenant` may call it.
    ///
    /// # Errors
    /// Returns an error if the model does not exist, or `tenant` may not call it. The error is the
    /// same, so that a tenant cannot learn which models exist.
    pub fn resolve_for(&self, tenant: &Tenant, id: &str) -> Result<Arc<Model>, Problem> {
        self.resolve(id).filter(|model| tenant.may_call(&model.name)).ok_or_else(|| {
            let shown: String = id.chars().take(MAX_SHOWN_CHARS).collect();
            let message = format!("There is no model {shown} for this key. See GET /v1/models.");
            Problem { param: Some("model".into()), ..Problem::new(Kind::NotFound, message) }
        })
    }

    /// Returns all models, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// Describes the ids that belong to more than one model.
    pub fn clashes(&self) -> Vec<String> {
        let mut clashes = Vec::new();
        for model in self.models.values() {
            let mut ids: Vec<_> = aliases_and_pool_ids(model).collect();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                if let Some(owner) = self.resolve(id).filter(|owner| owner.name != model.name) {
                    clashes.push(format!("{id:?} means model {:?} and model {:?}", owner.name, model.name));
                }
            }
        }
        clashes
    }
}

fn aliases_and_pool_ids(model: &Model) -> impl Iterator<Item = &str> {
    model.aliases.iter().map(String::as_str).chain(model.own_pools().map(|pool| pool.model_id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, aliases: &[&str], pool_ids: &[&str]) -> Model {
        let ladder: Vec<_> = pool_ids
            .iter()
            .enumerate()
            .map(|(rung, id)| serde_json::json!({"name": format!("p{rung}"), "kind": "on_demand", "model_id": id}))
            .collect();
        serde_json::from_value(serde_json::json!({"name": name, "aliases": aliases, "ladder": ladder}))
            .expect("a model")
    }

    #[test]
    fn a_model_is_found_by_name_alias_and_pool_id() {
        let catalogue = Catalogue::new([model("b", &["bee"], &["id-b", "arn:b"]), model("a", &[], &["id-a"])]);
        for id in ["b", "bee", "id-b", "arn:b"] {
            assert_eq!(catalogue.resolve(id).expect(id).name, "b");
        }
        assert!(catalogue.resolve("c").is_none());
        assert_eq!(catalogue.models().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(catalogue.clashes(), Vec::<String>::new());
    }

    #[test]
    fn an_id_of_two_models_is_reported_with_both() {
        let catalogue = Catalogue::new([model("a", &["b"], &["shared"]), model("b", &[], &["shared", "shared"])]);
        assert_eq!(
            catalogue.clashes(),
            [r#""b" means model "b" and model "a""#, r#""shared" means model "a" and model "b""#]
        );
        assert_eq!(catalogue.resolve("b").expect("by name").name, "b");
    }

    #[test]
    fn the_id_of_a_substitute_is_no_name_of_the_model() {
        let mut with_substitute = model("a", &[], &["id-a", "id-b"]);
        with_substitute.ladder[1].substitute = true;
        let alone = Catalogue::new([with_substitute.clone()]);
        assert!(alone.resolve("id-a").is_some() && alone.resolve("id-b").is_none());
        let both = Catalogue::new([with_substitute, model("b", &[], &["id-b"])]);
        assert_eq!(both.resolve("id-b").expect("the model itself").name, "b");
        assert_eq!(both.clashes(), Vec::<String>::new());
    }

    #[test]
    fn an_id_in_two_pools_of_a_model_is_not_a_clash() {
        let catalogue = Catalogue::new([model("a", &["id"], &["id", "id"])]);
        assert_eq!(catalogue.clashes(), Vec::<String>::new());
    }
}
