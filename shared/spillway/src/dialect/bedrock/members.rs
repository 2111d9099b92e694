//! Top-level members of a Converse body. Any other member is refused, because a member that Bedrock
//! adds can name a resource or cost money. `docs/members.md` has each decision.

use serde_json::{Map, Value};

use crate::dialect::json::{Path, Read, sanitized};

/// Members that are sent to Bedrock, checked or replaced.
const CONVERSE: [&str; 13] = [
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
    PROJECT,
];

/// Member with the project that Bedrock bills.
const PROJECT: &str = "projectIdentifier";

/// Project that Bedrock bills if a request names none.
const DEFAULT_PROJECT: &str = "default";

/// Refuses unknown members, and removes the project.
pub fn check(body: &mut Map<String, Value>) -> Read<()> {
    if let Some(name) = body.keys().find(|name| !CONVERSE.contains(&name.as_str())) {
        let text = "is unknown; the members that are sent to Bedrock are in Spillway's documentation";
        return Err(Path::Root.key(&sanitized(name)).error(text));
    }
    match body.shift_remove(PROJECT) {
        Some(Value::String(project)) => project_is_default(&project, &Path::Root.key(PROJECT)),
        Some(value) => Err(Path::Root.key(PROJECT).mistyped("a string", &value)),
        None => Ok(()),
    }
}

/// Refuses any project but the default. Projects are for cost allocation, so a tenant that chooses
/// one could bill another tenant's.
pub fn project_is_default(project: &str, at: &Path) -> Read<()> {
    match project {
        DEFAULT_PROJECT => Ok(()),
        _ => Err(at.error("a request does not choose the project that is billed; leave it out")),
    }
}
