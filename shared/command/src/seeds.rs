//! The entries of a settings file in the registry of a local deployment.
//!
//! An entry of the file is written when it is new in the file, or differs from the file of the last
//! start. Any other entry is left as it is, so a change that was made while the deployment ran
//! survives a restart, and so does a deletion. A file in the data directory has the entries of the
//! last start.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use spillway::{
    store::registry::Registry,
    tenant::{ApiKey, CallerRecord, KeyRecord, caller_id},
};

use crate::settings::Settings;

/// Name of the file in the data directory.
const FILE: &str = "settings.json";

/// The entries of a settings file at the last start.
#[derive(Default)]
pub struct Seeds {
    /// `None` for a deployment in memory, which has no last start.
    file: Option<PathBuf>,
    last: BTreeMap<String, Value>,
    current: BTreeMap<String, Value>,
}

impl Seeds {
    /// Reads the entries of the last start with the data directory `data`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let file = data.join(FILE);
        let last = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} is not valid", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Self { file: Some(file), last, current: BTreeMap::new() })
    }

    /// Whether nothing was written at an earlier start.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Writes the entries of `settings` that are new or changed to the registry, and notes all of
    /// them for the next start.
    ///
    /// # Errors
    /// Returns an error if a key or an access key ID is not valid, if the registry is unavailable,
    /// or if the file cannot be written.
    pub async fn plant(mut self, registry: &Registry, settings: &Settings) -> anyhow::Result<()> {
        for tenant in &settings.tenants {
            if self.note(format!("tenant {}", tenant.name), tenant)? {
                registry.put_tenant(tenant).await?;
            }
        }
        for model in &settings.models {
            if self.note(format!("model {}", model.name), model)? {
                registry.put_model(model).await?;
            }
        }
        for (tenant, key) in &settings.keys {
            let key =
                ApiKey::parse(key).with_context(|| format!("the key of {tenant} is not sk-spill-<key id>-<secret>"))?;
            let record = KeyRecord::new(&key, tenant, None);
            if self.note(format!("key {}", record.id), &record)? {
                registry.put_key(&record).await?;
            }
        }
        for (tenant, id) in &settings.access_keys {
            let id = caller_id(id).with_context(|| format!("the access key ID of {tenant} must be visible ASCII"))?;
            let caller = CallerRecord { id, tenant: tenant.clone() };
            if self.note(format!("caller {}", caller.id), &caller)? {
                registry.put_caller(&caller).await?;
            }
        }
        self.write()
    }

    /// Notes an entry for the next start. Returns whether it is new or differs from the last start.
    fn note<T>(&mut self, name: String, entry: &T) -> anyhow::Result<bool>
    where
        T: PartialEq + Serialize + DeserializeOwned,
    {
        let last = self.last.get(&name).and_then(|last| T::deserialize(last).ok());
        self.current.insert(name, serde_json::to_value(entry)?);
        Ok(last.as_ref() != Some(entry))
    }

    fn write(self) -> anyhow::Result<()> {
        let Some(file) = self.file else { return Ok(()) };
        let new = file.with_extension("json.new");
        let text = serde_json::to_vec_pretty(&self.current)?;
        std::fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
    }
}
