//! Where the data of a tenant may go.

use serde::{Deserialize, Serialize};

use crate::{profile_scope::ProfileScope, validate};

/// The regions that a tenant's requests may be sent to, and the scopes of the pools that may
/// process them. An absent list permits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residency {
    /// Regions to send requests to. A pool without a region has the broker's own.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub regions: Option<Vec<String>>,
    /// Scopes of the pools. A pool whose scope is not known is not permitted if there is a list.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub scopes: Option<Vec<ProfileScope>>,
}

impl Residency {
    /// Whether requests may be sent to `region`; `None` is a region that is not known.
    pub fn permits_region(&self, region: Option<&str>) -> bool {
        let is_listed =
            |regions: &Vec<String>| region.is_some_and(|region| regions.iter().any(|listed| listed == region));
        self.regions.as_ref().is_none_or(is_listed)
    }

    /// Whether a pool in `region` with `scope` may process requests; `None` is what is not known.
    pub fn permits(&self, region: Option<&str>, scope: Option<&ProfileScope>) -> bool {
        let is_listed = |scopes: &Vec<ProfileScope>| scope.is_some_and(|scope| scopes.contains(scope));
        self.permits_region(region) && self.scopes.as_ref().is_none_or(is_listed)
    }

    /// Adds the errors in the lists to `wrong`.
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        let lists = [("regions", self.regions.as_ref().map(Vec::len)), ("scopes", self.scopes.as_ref().map(Vec::len))];
        for (name, _) in lists.into_iter().filter(|(_, length)| *length == Some(0)) {
            wrong.push(format!("residency.{name}: an empty list permits nothing; leave it out to permit everything"));
        }
        for region in self.regions.iter().flatten() {
            validate::name("residency.regions", region, 32, "-", wrong);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residency(json: serde_json::Value) -> Residency {
        serde_json::from_value(json).expect("a residency")
    }

    #[test]
    fn each_list_permits_what_it_names_and_nothing_unknown() {
        let (eu, global) = (ProfileScope::Geography("eu".to_owned()), ProfileScope::Global);
        let both = residency(serde_json::json!({"regions": ["eu-west-1"], "scopes": ["in_region", "eu"]}));
        assert!(both.permits(Some("eu-west-1"), Some(&eu)));
        assert!(both.permits(Some("eu-west-1"), Some(&ProfileScope::InRegion)));
        for (region, scope) in [
            (Some("eu-west-1"), Some(&global)),
            (Some("eu-west-1"), None),
            (Some("us-east-1"), Some(&eu)),
            (None, Some(&eu)),
        ] {
            assert!(!both.permits(region, scope), "{region:?} {scope:?}");
        }
        assert!(residency(serde_json::json!({"scopes": ["eu"]})).permits(None, Some(&eu)));
        assert!(residency(serde_json::json!({"regions": ["eu-west-1"]})).permits(Some("eu-west-1"), None));
        assert!(Residency::default().permits(None, None));
    }
}
