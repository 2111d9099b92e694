//! Resources that a request names: objects of S3, guardrails, and others of the AWS account.
//! Bedrock finds them with the rights of the broker, so a tenant may name only the resources that
//! its operator lists.
//!
//! The rule is the same for every API and every format of a body, known or not. A member that names
//! a resource is found at any depth, by its name or by its value. Only texts and the free-form JSON
//! of tools are left out, because nothing is looked up for them.

use serde_json::{Map, Value};

use super::json::{self, Path, Read, is_spelling};
use crate::{
    chat::{Input, Request},
    problem::{Kind, Problem},
    tenant::{Tenant, bucket_of_uri},
};

/// Member with the location of an object. Names of members are compared in lower case and without
/// `_` and `-`.
const S3_LOCATION: &str = "s3location";

/// Members with the id of a guardrail.
const GUARDRAIL_IDS: [&str; 3] = ["guardrailidentifier", "guardrailid", "guardrailarn"];

/// Member with the version of the guardrail beside it.
const GUARDRAIL_VERSION: &str = "guardrailversion";

/// Members that name other resources of the account: projects, stored files, containers and
/// servers that the model connects to.
const OTHER_RESOURCES: [&str; 4] = ["projectidentifier", "fileid", "container", "mcpservers"];

/// Members whose strings are texts, in the formats of all models.
const TEXTS: [&str; 27] = [
    "arguments",
    "cited_text",
    "content",
    "context",
    "data",
    "description",
    "domain",
    "id",
    "inputPrompt",
    "inputText",
    "message",
    "name",
    "preamble",
    "prompt",
    "reasoning",
    "reasoning_content",
    "signature",
    "stop",
    "stopSequences",
    "stop_sequences",
    "system",
    "text",
    "texts",
    "thinking",
    "title",
    "user",
    "user_id",
];

/// Members with free-form JSON, or with the source of a quotation, each below the member that
/// contains it; nothing contains a member of the body itself.
const FREE_FORM: [(&str, &str); 15] = [
    ("", "metadata"),
    ("", "requestMetadata"),
    ("citations", "source"),
    ("content", "input"),
    ("content", "json"),
    ("format", "schema"),
    ("function", "arguments"),
    ("function", "parameters"),
    ("json_schema", "schema"),
    ("jsonSchema", "schema"),
    ("searchResult", "source"),
    ("toolSpec", "inputSchema"),
    ("toolUse", "input"),
    ("tools", "input_examples"),
    ("tools", "input_schema"),
];

/// Maximum length of a path in an error, in characters.
const MAX_PATH_CHARS: usize = 200;

/// Checks that `tenant` may name every resource in `request`. No tenant may name `own_bucket`, in
/// which the broker keeps the bodies of all tenants.
///
/// # Errors
/// Returns [`Kind::Forbidden`] for a resource that the operator has not listed, and
/// [`Kind::Invalid`] for a malformed location.
pub fn check(request: &Request, tenant: &Tenant, own_bucket: Option<&str>) -> Result<(), Problem> {
    let check = Check { tenant, own_bucket };
    if let Input::Native(native) = &request.input
        && let Some(id) = &native.options.guardrail_id
    {
        let version = native.options.guardrail_version.as_deref().unwrap_or_default();
        check.guardrail(id, version, &Path::Root.key("x-amzn-bedrock-guardrailidentifier"))?;
    }
    request.input.bodies().iter().try_for_each(|body| check.members(body, &Path::Root, ""))
}

/// Returns the refusal of a guardrail that `tenant` may not apply. It is the same whether or not
/// the guardrail exists.
pub fn unlisted_guardrail(tenant: &Tenant, param: &str) -> Problem {
    let text = "this version of this guardrail is not among the guardrails of tenant";
    forbidden(param, &format!("{param}: {text} {}; its operator can list it.", tenant.name))
}

struct Check<'a> {
    tenant: &'a Tenant,
    own_bucket: Option<&'a str>,
}

impl Check<'_> {
    /// Checks the members of the object `parent`. The elements of an array belong to the member
    /// that has the array.
    fn members(&self, members: &Map<String, Value>, at: &Path, parent: &str) -> Read<()> {
        for (name, value) in members {
            let at = at.key(name);
            if value.is_null() || FREE_FORM.contains(&(parent, name)) || is_quoted_source(members, name, value) {
                continue;
            }
            if is_spelling(name, S3_LOCATION) {
                self.location(value, &at)?;
            } else if GUARDRAIL_IDS.iter().any(|id| is_spelling(name, id)) {
                let version = members.iter().find(|(name, _)| is_spelling(name, GUARDRAIL_VERSION));
                let version = version.and_then(|(_, version)| version.as_str()).unwrap_or_default();
                self.guardrail(string(value, &at)?, version, &at)?;
            } else if OTHER_RESOURCES.iter().any(|resource| is_spelling(name, resource)) {
                return Err(refused(&at, "names a resource of the AWS account, which a request may not do"));
            } else {
                self.value(value, &at, name)?;
            }
        }
        Ok(())
    }

    /// Checks a value of the member `name`.
    fn value(&self, value: &Value, at: &Path, name: &str) -> Read<()> {
        match value {
            Value::Object(members) => self.members(members, at, name),
            Value::Array(elements) => {
                let mut elements = elements.iter().enumerate();
                elements.try_for_each(|(index, element)| self.value(element, &at.index(index), name))
            }
            Value::String(text) if has_scheme(text, "s3:") && !TEXTS.contains(&name) => self.object(text, at),
            Value::String(text) if has_scheme(text, "arn:") && !TEXTS.contains(&name) => {
                Err(refused(at, "is the ARN of a resource, which a request may not name here"))
            }
            _ => Ok(()),
        }
    }

    /// Checks an `s3Location`.
    fn location(&self, value: &Value, at: &Path) -> Read<()> {
        let Value::Object(members) = value else { return self.object(string(value, at)?, at) };
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let at = at.key(name);
            match name.as_str() {
                "uri" => self.object(string(value, &at)?, &at)?,
                "bucketOwner" => drop(string(value, &at)?),
                _ => return Err(invalid(&at, "is unknown; expected uri and bucketOwner")),
            }
        }
        Ok(())
    }

    /// Checks the URI of an object.
    fn object(&self, uri: &str, at: &Path) -> Read<()> {
        let bucket = bucket_of_uri(uri).ok_or_else(|| invalid(at, "is not of the form s3://bucket/key"))?;
        let is_listed = self.tenant.buckets.iter().any(|listed| listed == bucket);
        if is_listed && self.own_bucket != Some(bucket) {
            return Ok(());
        }
        let text =
            format!("this bucket is not among the buckets of tenant {}; its operator can list it", self.tenant.name);
        Err(refused(at, &text))
    }

    fn guardrail(&self, id: &str, version: &str, at: &Path) -> Read<()> {
        match self.tenant.guardrail(id, version) {
            Some(_) => Ok(()),
            None => Err(unlisted_guardrail(self.tenant, &shown(at))),
        }
    }
}

/// Whether the member is the source of a search result in Claude's format, which is quoted and not
/// read.
fn is_quoted_source(members: &Map<String, Value>, name: &str, value: &Value) -> bool {
    name == "source" && value.is_string() && members.get("type").is_some_and(|kind| kind == "search_result")
}

/// Whether `text` begins with `scheme`, without regard to case and white space.
fn has_scheme(text: &str, scheme: &str) -> bool {
    text.trim_start().get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

fn string<'v>(value: &'v Value, at: &Path) -> Read<&'v str> {
    value.as_str().ok_or_else(|| invalid(at, "is not a string"))
}

/// The path without the characters that an error does not repeat.
fn shown(at: &Path) -> String {
    at.to_string().chars().take(MAX_PATH_CHARS).map(json::shown_char).collect()
}

fn invalid(at: &Path, text: &str) -> Problem {
    let at = shown(at);
    Problem::invalid(at.as_str(), format!("{at}: {text}"))
}

fn refused(at: &Path, text: &str) -> Problem {
    let at = shown(at);
    forbidden(&at, &format!("{at}: {text}."))
}

fn forbidden(param: &str, message: &str) -> Problem {
    Problem { param: Some(param.to_owned()), ..Problem::new(Kind::Forbidden, message) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::{InvokeOptions, NativeInput};

    fn tenant() -> Tenant {
        let fields = json!({"name": "t", "buckets": ["shared-media", "own"], "guardrails": [{"id": "abc123"}]});
        serde_json::from_value(fields).expect("a tenant")
    }

    /// Checks `body` and returns the kind and the place of the refusal.
    fn refusal(body: &Value) -> Option<(Kind, String)> {
        let bodies = vec![body.as_object().expect("an object").clone()];
        let input = Input::Native(NativeInput { format: None, bodies, options: InvokeOptions::default() });
        let request = Request {
            model: "m".into(),
            input,
            stream: false,
            max_tokens: None,
            service_tier: None,
            ignored: Vec::new(),
        };
        let problem = check(&request, &tenant(), Some("own")).err()?;
        Some((problem.kind, problem.param.expect("a place")))
    }

    #[test]
    fn a_resource_is_found_by_its_name_or_its_value_at_any_depth() {
        let forbidden = [
            (json!({"a": {"s3Location": {"uri": "s3://other/k"}}}), "a.s3Location.uri"),
            (json!({"a": [[{"s3_location": "s3://other/k"}]]}), "a[0][0].s3_location"),
            (json!({"text": {"S3-Location": {"uri": "s3://own/k"}}}), "text.S3-Location.uri"),
            (json!({"image": "s3://other/k"}), "image"),
            (json!({"images": ["a", "s3://other/k"]}), "images[1]"),
            (json!({"source": "s3://other/k"}), "source"),
            (
                json!({"content": [{"type": "search_result", "source": {"s3Location": "s3://other/k"}}]}),
                "content[0].source.s3Location",
            ),
            (json!({"x": {"guardrail_id": "abc12", "guardrailVersion": "1"}}), "x.guardrail_id"),
            (json!({"x": {"guardrailIdentifier": "abc123", "guardrailVersion": "DRAFT"}}), "x.guardrailIdentifier"),
            (json!({"x": {"guardrailIdentifier": "abc123"}}), "x.guardrailIdentifier"),
            (json!({"x": [{"project_identifier": "p"}]}), "x[0].project_identifier"),
            (json!({"content": [{"source": {"type": "file", "file_id": "file-1"}}]}), "content[0].source.file_id"),
            (json!({"container": "c"}), "container"),
            (json!({"mcp_servers": [{"url": "https://a.example"}]}), "mcp_servers"),
            (json!({"x": {"knowledgeBase": "arn:aws:bedrock:us-east-1:1:knowledge-base/k"}}), "x.knowledgeBase"),
            (json!({"x\"y": "s3://other/k"}), "x?y"),
        ];
        for (body, place) in forbidden {
            assert_eq!(refusal(&body), Some((Kind::Forbidden, place.to_owned())), "{body}");
        }
        let malformed = [
            (json!({"a": {"s3Location": {"uri": "S3://shared-media/k"}}}), "a.s3Location.uri"),
            (json!({"a": {"s3Location": {"uri": "arn:aws:s3:us-east-1:1:accesspoint/p"}}}), "a.s3Location.uri"),
            (json!({"a": {"s3Location": {"uri": 7}}}), "a.s3Location.uri"),
            (json!({"a": {"s3Location": {"uri": "s3://shared-media/k", "key": "k"}}}), "a.s3Location.key"),
            (json!({"a": {"s3Location": ["s3://shared-media/k"]}}), "a.s3Location"),
            (json!({"url": " S3:x"}), "url"),
            (json!({"guardrailId": 7}), "guardrailId"),
        ];
        for (body, place) in malformed {
            assert_eq!(refusal(&body), Some((Kind::Invalid, place.to_owned())), "{body}");
        }
    }

    #[test]
    fn what_is_listed_or_is_only_text_passes() {
        for body in [
            json!({"a": {"s3Location": {"uri": "s3://shared-media/k", "bucketOwner": "123456789012"}}}),
            json!({"a": {"s3Location": null, "container": null}, "image": "s3://shared-media/k"}),
            json!({"guardrailIdentifier": "abc123", "guardrailVersion": "2"}),
            json!({"messages": [{"role": "user", "content": "s3://other/k"}], "system": "arn:aws:iam::1:role/R"}),
            json!({"messages": [{"content": [{"text": "S3://other is what I mean"}]}]}),
            json!({"messages": [{"content": [{"toolUse": {"input": {"s3Location": "s3://other/k", "fileId": 1}}}]}]}),
            json!({"content": [{"toolResult": {"content": [{"json": {"uri": "s3://other/k"}}]}}]}),
            json!({"content": [{"type": "tool_use", "input": {"uri": "s3://other/k"}}]}),
            json!({"content": [{"searchResult": {"source": "s3://other/k", "content": [{"text": "t"}]}}]}),
            json!({"content": [{"type": "search_result", "source": "s3://other/k"}]}),
            json!({"content": [{"citationsContent": {"citations": [{"source": "s3://other/k"}]}}]}),
            json!({"toolConfig": {"tools": [{"toolSpec": {"inputSchema": {"json": {"default": "s3://other/k"}}}}]}}),
            json!({"requestMetadata": {"from": "s3://other/k"}, "metadata": {"container": "c"}}),
            json!({"tools": [{"input_schema": {"container": {"type": "string"}}}]}),
        ] {
            assert_eq!(refusal(&body), None, "{body}");
        }
    }
}
