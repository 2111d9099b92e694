//! Which key each tenant of a trace uses.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use http::HeaderValue;
use serde::Deserialize;

use crate::settings::Settings;

/// The keys to send with, sorted by tenant. Never printed: the values are marked sensitive.
#[derive(Debug)]
pub struct Keys {
    entries: Vec<(String, HeaderValue)>,
}

#[derive(Deserialize)]
struct KeyFile {
    keys: BTreeMap<String, String>,
}

impl Keys {
    /// Reads the table `[keys]` (tenant = "key") of a TOML file; whatever else the file holds is not for us.
    ///
    /// # Errors
    /// If the file or its table is missing, or no key is in it.
    pub fn read_file(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the keys in {}", path.display()))?;
        // The parser's error quotes the line it stumbled over, which may hold a key.
        let file: KeyFile = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.message()))
            .with_context(|| format!("{} needs a table [keys] of tenant = \"sk-spill-…\"", path.display()))?;
        Self::new(file.keys).with_context(|| path.display().to_string())
    }

    /// The keys of the demo tenants.
    ///
    /// # Errors
    /// Never, as long as the demo's settings are valid.
    pub fn demo() -> anyhow::Result<Self> {
        Self::new(Settings::demo()?.keys)
    }

    fn new(keys: BTreeMap<String, String>) -> anyhow::Result<Self> {
        ensure!(!keys.is_empty(), "the table [keys] is empty");
        let entries = keys
            .into_iter()
            .map(|(tenant, key)| {
                let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                    .with_context(|| format!("the key of {tenant} cannot be sent in a header"))?;
                value.set_sensitive(true);
                Ok((tenant, value))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { entries })
    }

    /// The `Authorization` value for a tenant of the trace: its own key, or one of the keys, always the same one.
    pub fn authorization(&self, tenant: &str) -> HeaderValue {
        let own = self.entries.binary_search_by(|(name, _)| name.as_str().cmp(tenant)).ok();
        let index = own.unwrap_or_else(|| (stable_hash(tenant) % self.entries.len() as u64) as usize);
        self.entries[index].1.clone()
    }

    /// Every tenant that has a key, with its `Authorization` value.
    pub fn all(&self) -> &[(String, HeaderValue)] {
        &self.entries
    }
}

/// FNV-1a: the same on every machine and in every release, unlike the standard library's hasher.
fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        Keys::new(pairs.iter().map(|(tenant, key)| (tenant.to_string(), key.to_string())).collect()).unwrap()
    }

    fn file(text: &str) -> anyhow::Result<Keys> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Keys::read_file(file.path())
    }

    #[test]
    fn a_tenant_with_a_key_of_its_own_uses_it() {
        let keys = keys(&[("a", "one"), ("b", "two")]);
        assert_eq!(keys.authorization("b"), "Bearer two");
        assert_eq!(keys.authorization("a"), "Bearer one");
    }

    #[test]
    fn a_tenant_without_a_key_always_gets_the_same_one() {
        let keys = Keys::demo().unwrap();
        // Written out so that a change of the hash is noticed: it would move tenants between old and new reports.
        assert_eq!(stable_hash("z01"), 0xcf7c_bf19_8870_ffc2);
        assert_eq!(keys.authorization("z01"), keys.authorization("z01"));
    }

    #[test]
    fn tenants_without_keys_spread_over_all_keys() {
        let keys = Keys::demo().unwrap();
        let used: BTreeSet<String> =
            (1..=40).map(|number| keys.authorization(&format!("z{number:02}")).to_str().unwrap().to_owned()).collect();
        assert_eq!(used.len(), keys.all().len());
    }

    #[test]
    fn a_key_file_may_hold_other_tables() {
        let keys = file("[keys]\nroomy = \"sk-spill-roomy-00\"\n\n[[tenants]]\nname = \"roomy\"\n").unwrap();
        assert_eq!(keys.all().len(), 1);
        assert_eq!(keys.authorization("anyone"), "Bearer sk-spill-roomy-00");
    }

    #[test]
    fn a_key_file_without_keys_is_refused_and_never_quoted() {
        assert!(format!("{:#}", file("[keys]\n").unwrap_err()).contains("empty"));
        assert!(format!("{:#}", file("[other]\n").unwrap_err()).contains("[keys]"));
        let broken = format!("{:#}", file("[keys]\na = \"sk-spill-a-5ec2e7\" b\n").unwrap_err());
        assert!(!broken.contains("5ec2e7"), "{broken}");
        let unsendable = format!("{:#}", file("[keys]\na = \"5ec2e7\\n\"\n").unwrap_err());
        assert!(!unsendable.contains("5ec2e7"), "{unsendable}");
    }

    #[test]
    fn keys_are_not_shown_by_debug() {
        assert!(!format!("{:?}", keys(&[("a", "5ec2e7")])).contains("5ec2e7"));
    }
}
