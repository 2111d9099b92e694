//! Generated settings of a deployment, as TOML.

use std::fmt::Write as _;

/// Builder of settings.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    tables: String,
    keys: String,
    simulator: String,
    pools: String,
    queue_faults: String,
}

impl Settings {
    /// Adds a tenant. `fields` are lines of its table; limits are `limits.NAME = N`.
    pub fn tenant(mut self, name: &str, fields: &str) -> Self {
        let _ = writeln!(self.tables, "[[tenants]]\nname = \"{name}\"\n{fields}\n");
        let _ = writeln!(self.keys, "{name} = \"{}\"", key(name));
        self
    }

    /// Adds a model with a timeout and a ladder of `pools`, each with its Bedrock model ID and its
    /// limits as an inline table. The simulator serves the pools.
    pub fn model(mut self, name: &str, timeout_ms: u64, pools: &[(&str, &str)]) -> Self {
        let _ = writeln!(self.tables, "[[models]]\nname = \"{name}\"\ntimeout_ms = {timeout_ms}");
        for (rung, (model_id, limits)) in pools.iter().enumerate() {
            let _ = writeln!(
                self.tables,
                "[[models.ladder]]\nname = \"rung-{rung}\"\nkind = \"on_demand\"\nmodel_id = \"{model_id}\"\n\
                 limits = {limits}"
            );
            let _ = writeln!(self.pools, "[[simulator.pools]]\nmodel_id = \"{model_id}\"");
        }
        self
    }

    /// Sets the lines of the simulator's table.
    pub fn simulator(self, fields: &str) -> Self {
        Self { simulator: fields.to_owned(), ..self }
    }

    /// Sets the lines of the table of queue faults.
    pub fn queue_faults(self, fields: &str) -> Self {
        Self { queue_faults: fields.to_owned(), ..self }
    }

    /// Returns the settings as TOML.
    pub fn to_toml(&self) -> String {
        let Self { tables, keys, simulator, pools, queue_faults } = self;
        format!("{tables}\n[keys]\n{keys}\n[queue_faults]\n{queue_faults}\n[simulator]\n{simulator}\n{pools}")
    }
}

/// Returns the key of a tenant. Only for deployments that other machines cannot reach.
pub fn key(tenant: &str) -> String {
    format!("sk-spill-{tenant}-{}", "0123456789abcdef".repeat(4))
}

#[cfg(test)]
mod tests {
    use spillway_command::{admin::Entries, settings};

    use super::*;

    #[test]
    fn generated_settings_are_valid() {
        let generated = Settings::default()
            .tenant("t", "hold_ms = 5\nlimits.requests_per_minute = 7")
            .model("m", 5_000, &[("amazon.nova-micro-v1:0", "{ tokens_per_minute = 9 }")])
            .simulator("call_log = true")
            .queue_faults("seed = 3")
            .to_toml();
        let entries = Entries::parse(&generated).expect("entries that can be applied");
        assert_eq!(entries.tenants[0].limits.requests_per_minute, Some(7));
        let settings: settings::Settings = toml::from_str(&generated).expect("settings");
        assert_eq!((settings.queue_faults.seed, settings.simulator.call_log), (3, true));
        assert_eq!(settings.simulator.pools.len(), 1);
    }
}
