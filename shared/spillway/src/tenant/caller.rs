//! Callers: verified identities, such as IAM roles, that authenticate a tenant as a key does.

use serde::{Deserialize, Serialize};

/// Maximum length of an identity.
const MAX_ID: usize = 1024;

/// A caller, as the registry stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerRecord {
    /// Id, as [`caller_id`] returns it.
    pub id: String,
    /// Tenant of its requests.
    pub tenant: String,
}

/// Returns the id of the caller with this identity; `None` if the identity is malformed. All
/// sessions of a role are the same caller, whether the identity is the ARN of the role or that of a
/// session: `arn:aws:iam::ACCOUNT:role/ROLE`. The id omits the path of a role, because session ARNs
/// do not contain it and role names are unique in an account (IAM User Guide, "IAM identifiers").
pub fn caller_id(identity: &str) -> Option<String> {
    if !(1..=MAX_ID).contains(&identity.len()) || !identity.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let parts: Vec<&str> = identity.splitn(6, ':').collect();
    let ["arn", partition, service, "", account, resource] = parts[..] else { return Some(identity.to_owned()) };
    let role = match service {
        "sts" => resource.strip_prefix("assumed-role/").map(|rest| rest.split('/').next().unwrap_or_default()),
        "iam" => resource.strip_prefix("role/").map(|rest| rest.rsplit('/').next().unwrap_or_default()),
        _ => None,
    };
    match role {
        Some("") => None,
        Some(role) => Some(format!("arn:{partition}:iam::{account}:role/{role}")),
        None => Some(identity.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_arns_of_a_role_have_the_same_id() {
        let role = Some("arn:aws:iam::123456789012:role/App".to_owned());
        for identity in [
            "arn:aws:iam::123456789012:role/App",
            "arn:aws:iam::123456789012:role/team/a/App",
            "arn:aws:sts::123456789012:assumed-role/App/i-0123456789abcdef0",
            "arn:aws:sts::123456789012:assumed-role/App",
        ] {
            assert_eq!(caller_id(identity), role, "{identity}");
        }
        let chinese = caller_id("arn:aws-cn:sts::123456789012:assumed-role/App/s");
        assert_eq!(chinese.as_deref(), Some("arn:aws-cn:iam::123456789012:role/App"));
    }

    #[test]
    fn any_other_identity_is_its_own_id() {
        for identity in [
            "AKIAIOSFODNN7EXAMPLE",
            "arn:aws:iam::123456789012:user/team/ann",
            "arn:aws:iam::123456789012:root",
            "arn:aws:sts::123456789012:federated-user/ann",
        ] {
            assert_eq!(caller_id(identity).as_deref(), Some(identity));
        }
    }

    #[test]
    fn a_malformed_identity_has_no_id() {
        let long = "a".repeat(1025);
        for identity in
            ["", "two words", "ä", "arn:aws:iam::1:role/", "arn:aws:sts::1:assumed-role//s", "a\nb", long.as_str()]
        {
            assert_eq!(caller_id(identity), None, "{identity}");
        }
    }
}
