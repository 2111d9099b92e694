//! Settings file of a local deployment: tenants, models, keys and the simulator.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use serde::Deserialize;
use spillway::{pool::Model, tenant::Tenant};
use spillway_stand_ins::{bedrock::Simulator, sqs};

use crate::admin::Entries;

/// Settings of a local deployment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Tenants to create.
    #[serde(default)]
    pub tenants: Vec<Tenant>,
    /// Models to create.
    #[serde(default)]
    pub models: Vec<Model>,
    /// Keys by tenant. For local use only: a file is no place for a real key.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// Access key IDs by tenant, so that signed requests need no key.
    #[serde(default)]
    pub access_keys: BTreeMap<String, String>,
    /// Behaviour of the simulated models.
    #[serde(default)]
    pub simulator: Simulator,
    /// Faults to inject into the queues.
    #[serde(default)]
    pub queue_faults: sqs::DeliveryFaults,
}

impl Settings {
    /// Reads the settings in `file`, or returns the demo settings without a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not valid. The error names the line.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else { return Self::demo() };
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let invalid = || format!("{} is not valid", file.display());
        Entries::parse(&text).with_context(invalid)?;
        toml::from_str(&text).with_context(invalid)
    }

    /// Returns the demo settings: three tenants, one of them so small that a burst overflows.
    ///
    /// # Errors
    /// Returns an error if the demo settings are not valid, which a test rules out.
    pub fn demo() -> anyhow::Result<Self> {
        toml::from_str(include_str!("demo.toml")).context("the demo's settings are not valid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_valid_and_every_tenant_has_a_key_and_an_access_key_id() {
        Entries::parse(include_str!("demo.toml")).expect("entries that can be applied");
        let demo = Settings::demo().expect("settings");
        assert!(demo.tenants.iter().all(|tenant| demo.keys.contains_key(&tenant.name)));
        assert!(demo.tenants.iter().all(|tenant| demo.access_keys.contains_key(&tenant.name)));
    }

    #[test]
    fn every_pool_of_the_demo_is_simulated() {
        let demo = Settings::demo().expect("settings");
        let simulated: Vec<_> = demo.simulator.pools.iter().map(|pool| &pool.model_id).collect();
        let mut pools = demo.models.iter().flat_map(|model| &model.ladder);
        assert!(pools.all(|pool| simulated.contains(&&pool.model_id)));
    }

    #[test]
    fn an_error_names_the_misspelt_setting() {
        let error = toml::from_str::<Settings>("[simulator]\noutptu_tokens = 7\n").expect_err("a misspelt setting");
        assert!(error.to_string().contains("outptu_tokens"), "{error}");
    }
}
