//! Which model a name means.

use std::sync::Arc;

use crate::{
    app::App,
    pool::Model,
    problem::{Kind, Problem},
    tenant::Tenant,
};

/// The model that `name` means, if `tenant` may call it: a public name, or an id that the registry maps.
///
/// # Errors
/// There is no such model, or the tenant may not call it (the two look the same to it).
pub async fn find_model(app: &App, tenant: &Tenant, name: &str) -> Result<Arc<Model>, Problem> {
    let catalogue = app.registry.catalogue().await?;
    catalogue.resolve(name).filter(|model| tenant.may_call(&model.name)).ok_or_else(|| {
        let shown: String = name.chars().take(200).collect();
        let told = format!("There is no model {shown} for this key. GET /v1/models lists those there are.");
        Problem { param: Some("model".into()), ..Problem::new(Kind::NotFound, told) }
    })
}
