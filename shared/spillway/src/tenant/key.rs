//! API keys: `sk-spill-<key id>-<secret>`, shown once and stored as a hash.

use std::fmt::{self, Debug, Formatter};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::units::UnixMs;

const SECRET_HEX_DIGITS: usize = 64;
const MAX_ID: usize = 64;

/// A key as a caller presents it. Its `Debug` never shows the secret.
#[derive(Clone)]
pub struct ApiKey {
    id: String,
    secret: String,
}

/// A key, as the registry stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Public part of the key.
    pub id: String,
    /// Tenant of the key.
    pub tenant: String,
    /// SHA-256 of the secret, in hex.
    pub secret_sha256: String,
    /// Time when it stops working; `None` means never.
    #[serde(rename = "expires_ms")]
    pub expires_at: Option<UnixMs>,
}

impl ApiKey {
    /// Prefix of every key.
    pub const PREFIX: &str = "sk-spill-";

    /// Generates a key: a 12-digit id and a secret of 256 bits, both from the operating system's
    /// random source.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut id = [0; 6];
        let mut secret = [0; SECRET_HEX_DIGITS / 2];
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { id: hex(&id), secret: hex(&secret) })
    }

    /// Parses a key as a caller presents it; `None` if it is malformed. The id may contain dashes,
    /// because tenant ids may: the secret follows the last dash.
    pub fn parse(presented: &str) -> Option<Self> {
        let (id, secret) = presented.strip_prefix(Self::PREFIX)?.rsplit_once('-')?;
        let is_id = (1..=MAX_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let is_secret =
            secret.len() == SECRET_HEX_DIGITS && secret.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_id && is_secret).then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// Returns the public part, by which the registry finds the key. It may be logged.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the whole key, to be shown to its owner once.
    pub fn expose(&self) -> String {
        format!("{}{}-{}", Self::PREFIX, self.id, self.secret)
    }
}

impl Debug for ApiKey {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "ApiKey({}{}-…)", Self::PREFIX, self.id)
    }
}

impl KeyRecord {
    /// Creates the record of `key`, which works until `expires_at`.
    pub fn new(key: &ApiKey, tenant: &str, expires_at: Option<UnixMs>) -> Self {
        Self {
            id: key.id.clone(),
            tenant: tenant.to_owned(),
            secret_sha256: hex(&Sha256::digest(&key.secret)),
            expires_at,
        }
    }

    /// Creates a record that admits no key. An unknown key is compared with it, so that the check
    /// takes as long as for a known key.
    pub fn unknown() -> Self {
        // No secret is known to have this hash.
        let secret_sha256 = "0".repeat(SECRET_HEX_DIGITS);
        Self { id: String::new(), tenant: String::new(), secret_sha256, expires_at: None }
    }

    /// Returns whether `key` is this key and has not expired. Takes the same time wherever the
    /// secrets differ.
    pub fn admits(&self, key: &ApiKey, now: UnixMs) -> bool {
        let presented = hex(&Sha256::digest(&key.secret));
        let same_secret = bool::from(presented.as_bytes().ct_eq(self.secret_sha256.as_bytes()));
        let in_time = self.expires_at.is_none_or(|expires_at| now < expires_at);
        same_secret & (self.id == key.id) & in_time
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> UnixMs {
        UnixMs::from_ms(ms)
    }

    fn key(id: &str) -> ApiKey {
        ApiKey::parse(&format!("sk-spill-{id}-{}", "5a".repeat(32))).expect("a key")
    }

    #[test]
    fn a_generated_key_parses_back() {
        let key = ApiKey::generate().expect("random bytes");
        let presented = ApiKey::parse(&key.expose()).expect("parses");
        assert_eq!(presented.id().len(), 12);
        assert_eq!(presented.expose(), key.expose());
        assert!(KeyRecord::new(&key, "acme", None).admits(&presented, UnixMs::default()));
        assert_ne!(ApiKey::generate().expect("random bytes").expose(), key.expose());
    }

    #[test]
    fn an_id_may_be_the_name_of_a_tenant() {
        assert_eq!(key("team-a.eu_1").id(), "team-a.eu_1");
    }

    #[test]
    fn a_malformed_key_is_not_parsed() {
        let secret = "5a".repeat(32);
        for presented in [
            String::new(),
            "sk-spill-".into(),
            format!("sk-spill-{secret}"),
            format!("sk-spill--{secret}"),
            format!("sk-spill-a b-{secret}"),
            format!("sk-spill-ä-{secret}"),
            format!("sk-spill-a-{secret}0"),
            format!("sk-spill-a-{}", secret.to_uppercase()),
            format!("sk-spill-a-{}", &secret[1..]),
            format!("sk-other-a-{secret}"),
            format!("sk-spill-{}-{secret}", "a".repeat(65)),
        ] {
            assert!(ApiKey::parse(&presented).is_none(), "{presented}");
        }
    }

    #[test]
    fn a_record_admits_only_its_own_key_until_it_expires() {
        let record = KeyRecord::new(&key("a"), "acme", Some(at(1_000)));
        assert!(record.admits(&key("a"), at(999)));
        assert!(!record.admits(&key("a"), at(1_000)));
        assert!(!record.admits(&key("b"), at(999)));
        assert!(!record.admits(&ApiKey::generate().expect("random bytes"), at(999)));
        assert!(!KeyRecord::unknown().admits(&key("a"), at(0)));
    }

    #[test]
    fn a_record_with_a_damaged_hash_admits_nothing() {
        for secret_sha256 in ["", "5a", "ä"] {
            let record = KeyRecord { secret_sha256: secret_sha256.into(), ..KeyRecord::new(&key("a"), "acme", None) };
            assert!(!record.admits(&key("a"), at(0)));
        }
    }

    #[test]
    fn debug_output_does_not_show_the_secret() {
        let shown = format!("{:?} {:?}", key("a"), KeyRecord::new(&key("a"), "acme", None));
        assert!(!shown.contains(&"5a".repeat(32)), "{shown}");
        assert!(shown.contains("sk-spill-a-…"), "{shown}");
    }

    proptest! {
        #[test]
        fn parsing_any_text_never_panics(presented in "(sk-spill-)?\\PC{0,90}") {
            if let Some(key) = ApiKey::parse(&presented) {
                prop_assert_eq!(key.expose(), presented);
            }
        }
    }
}
