//! Callers: identities that a front door has verified, such as IAM roles, and that stand for a tenant as a key does.

use serde::{Deserialize, Serialize};

const LONGEST_ID: usize = 1024;

/// A caller as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerRecord {
    /// Its id, as [`caller_id`] gives it.
    pub id: String,
    /// Whose requests it sends.
    pub tenant: String,
}

/// The id under which a caller is known; `None` if it cannot be one. All sessions of a role are one caller, whether the
/// role is named by its own ARN or by that of a session: `arn:aws:iam::ACCOUNT:role/ROLE`. The path of a role is left
/// out, because its sessions do not tell it and names of roles are unique in an account (IAM User Guide, "IAM
/// identifiers").
pub fn caller_id(identity: &str) -> Option<String> {
    if !(1..=LONGEST_ID).contains(&identity.len()) || !identity.bytes().all(|byte| byte.is_ascii_graphic()) {
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
    fn a_role_is_one_caller_however_it_is_named() {
        let role = Some("arn:aws:iam::123456789012:role/App".to_owned());
        for identity in [
            "arn:aws:iam::123456789012:role/App",
            "arn:aws:iam::123456789012:role/team/a/App",
            "arn:aws:sts::123456789012:assumed-role/App/i-0123456789abcdef0",
            "arn:aws:sts::123456789012:assumed-role/App",
        ] {
            assert_eq!(caller_id(identity), role, "{identity}");
        }
        let other = caller_id("arn:aws-cn:sts::123456789012:assumed-role/App/s");
        assert_eq!(other.as_deref(), Some("arn:aws-cn:iam::123456789012:role/App"));
    }

    #[test]
    fn everything_else_stands_for_itself() {
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
    fn what_cannot_be_a_caller_is_none() {
        let long = "a".repeat(1025);
        for identity in
            ["", "two words", "ä", "arn:aws:iam::1:role/", "arn:aws:sts::1:assumed-role//s", "a\nb", long.as_str()]
        {
            assert_eq!(caller_id(identity), None, "{identity}");
        }
    }
}
