//! Keys of the tenants of a trace.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use http::HeaderValue;
use serde::Deserialize;

use crate::settings::Settings;

/// Keys sorted by tenant. They are never printed: the header values are marked sensitive.
#[derive(Debug)]
pub struct Keys {
    entries: Vec<(String, HeaderValue)>,
}

#[derive(Deserialize)]
struct KeyFile {
    keys: BTreeMap<String, String>,
}

impl Keys {
    /// Reads the table `[keys]` (tenant = "key") of a TOML file, and ignores its other tables.
    ///
    /// # Errors
    /// Returns an error if the file or its table is missing, or if the table is empty.
    pub fn read_file(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the keys in {}", path.display()))?;
        // The parser's full error quotes the line, which may hold a key.
        let file: KeyFile = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.message()))
            .with_context(|| format!("{} needs a table [keys] of tenant = \"sk-spill-…\"", path.display()))?;
        Self::new(file.keys).with_context(|| path.display().to_string())
    }

    /// Returns the keys of the demo tenants.
    ///
    /// # Errors
    /// Returns an error if the demo settings are not valid, which a test rules out.
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

    /// Returns the `Authorization` value for a tenant of the trace: its key, or else another
    /// tenant's key, which is always the same for the same name.
    pub fn authorization(&self, tenant: &str) -> HeaderValue {
        let found = self.entries.binary_search_by(|(name, _)| name.as_str().cmp(tenant)).ok();
        let index = found.unwrap_or_else(|| (stable_hash(tenant) % self.entries.len() as u64) as usize);
        self.entries[index].1.clone()
    }

    /// Every tenant that has a key, with its `Authorization` value.
    pub fn entries(&self) -> &[(String, HeaderValue)] {
        &self.entries
    }
}

/// FNV-1a hash. Unlike the standard library's hash it is the same on every machine and in every
/// release.
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
    fn a_tenant_with_a_key_uses_it() {
        let keys = keys(&[("a", "one"), ("b", "two")]);
        assert_eq!(keys.authorization("b"), "Bearer two");
        assert_eq!(keys.authorization("a"), "Bearer one");
    }

    #[test]
    fn a_tenant_without_a_key_always_gets_the_same_key() {
        let keys = Keys::demo().unwrap();
        // The value is written out to notice a change of the hash, which would make new reports
        // differ from old reports.
        assert_eq!(stable_hash("z01"), 0xcf7c_bf19_8870_ffc2);
        assert_eq!(keys.authorization("z01"), keys.authorization("z01"));
    }

    #[test]
    fn tenants_without_keys_spread_over_all_keys() {
        let keys = Keys::demo().unwrap();
        let used: BTreeSet<String> =
            (1..=40).map(|number| keys.authorization(&format!("z{number:02}")).to_str().unwrap().to_owned()).collect();
        assert_eq!(used.len(), keys.entries().len());
    }

    #[test]
    fn a_key_file_may_hold_other_tables() {
        let keys = file("[keys]\nroomy = \"sk-spill-roomy-00\"\n\n[[tenants]]\nname = \"roomy\"\n").unwrap();
        assert_eq!(keys.entries().len(), 1);
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
