//! Raw, still percent-encoded paths: prefixes, patterns and ids.

use std::array;

use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use crate::{
    dialect::Dialect,
    problem::{Kind, Problem},
};

/// Maximum of ids in a path.
const MAX_IDS: usize = 2;

/// The percent-decoded ids of a path, in order. A path with fewer ids leaves the last ones empty.
pub type Ids = [String; MAX_IDS];

/// [`Ids`] that are still percent-encoded.
pub type RawIds<'a> = [&'a str; MAX_IDS];

/// What a Bedrock path of a model starts with.
const MODEL: &str = "/model/{id}";

/// The paths that only OpenAI's API has.
const OPENAI_PATHS: [&str; 6] = ["v1/chat/", "v1/responses", "v1/embeddings", "v1/files", "v1/uploads", "v1/batches"];

/// Removes `prefix` from a request target. Liveness is also answered without the prefix, because
/// load balancers ask the process itself.
///
/// # Errors
/// Returns [`Kind::NotFound`] if the target does not start with the prefix.
pub fn without_prefix(prefix: &str, uri: &Uri) -> Result<Uri, Problem> {
    if prefix.is_empty() || matches!(uri.path(), "/" | "/healthz") {
        return Ok(uri.clone());
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let inner = target.strip_prefix(prefix).and_then(|rest| match rest.chars().next() {
        None | Some('?') => format!("/{rest}").parse().ok(),
        Some('/') => rest.parse().ok(),
        Some(_) => None,
    });
    inner.ok_or_else(|| Problem::new(Kind::NotFound, format!("The paths of this API begin with {prefix}/.")))
}

/// The dialect that a caller of this path expects, errors included. The path decides. If several
/// vendors have the path, the prefix decides, or the header that Anthropic's clients always send.
pub fn dialect(path: &str, headers: &HeaderMap) -> Dialect {
    let plain = plain(path);
    let starts_with_any = |path: &str, starts: &[&str]| starts.iter().any(|start| path.starts_with(start));
    let is_openai = || starts_with_any(plain, &OPENAI_PATHS);
    let is_anthropic = || path.starts_with("/anthropic/") || headers.contains_key("anthropic-version");
    if starts_with_any(path, &["/model/", "/guardrail/", "/inference-profiles"]) {
        Dialect::Bedrock
    } else if plain.starts_with("v1/messages") || (!is_openai() && is_anthropic()) {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi
    }
}

/// Matches a path with a pattern such as `/v1/jobs/{id}/result`, and returns the ids in it, still
/// percent-encoded.
///
/// In a Bedrock path, the model id is everything between `/model/` and the operation: ids contain
/// `:`, ARNs contain `/`, and clients encode them differently. Other paths may have more slashes
/// at their ends, and a vendor's prefix before `/v1`.
pub fn ids_in<'a>(pattern: &str, path: &'a str) -> Option<RawIds<'a>> {
    let mut ids = [""; MAX_IDS];
    if let Some(operation) = pattern.strip_prefix(MODEL) {
        ids[0] = path.strip_prefix("/model/")?.strip_suffix(operation)?;
        return Some(ids);
    }
    let mut found = ids.iter_mut();
    let mut segments = plain(path).split('/');
    for expected in pattern.trim_matches('/').split('/') {
        let segment = segments.next()?;
        if expected.starts_with('{') {
            *found.next()? = segment;
        } else if expected != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(ids)
}

/// Decodes the ids of a path that matches `pattern`.
///
/// # Errors
/// Returns [`Kind::Invalid`] if an id is empty or not percent-encoded UTF-8.
pub fn decode(pattern: &str, ids: RawIds<'_>) -> Result<Ids, Problem> {
    let count = pattern.matches('{').count();
    let mut decoded = array::from_fn(|_| String::new());
    for (id, decoded) in ids.into_iter().zip(&mut decoded).take(count) {
        *decoded = decode_id(id)?;
    }
    Ok(decoded)
}

fn decode_id(id: &str) -> Result<String, Problem> {
    let is_broken = id.split('%').skip(1).any(|rest| {
        let digits = rest.as_bytes();
        digits.len() < 2 || !digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    match percent_decode_str(id).decode_utf8() {
        Ok(decoded) if !is_broken && !decoded.is_empty() => Ok(decoded.into_owned()),
        _ => Err(Problem::new(Kind::Invalid, "The id in the path is empty or not valid percent-encoded UTF-8.")),
    }
}

/// The path without a vendor's prefix, which some SDKs add before `/v1`, and without slashes at its
/// ends.
fn plain(path: &str) -> &str {
    let without_vendor = path.strip_prefix("/openai").or_else(|| path.strip_prefix("/anthropic"));
    without_vendor.filter(|rest| rest.starts_with("/v1/")).unwrap_or(path).trim_matches('/')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_liveness_is_answered_without_the_prefix() {
        for (target, expected) in [
            ("/llm/v1/models?limit=1", Some("/v1/models?limit=1")),
            ("/llm/model/a%2Fb/converse", Some("/model/a%2Fb/converse")),
            ("/llm", Some("/")),
            ("/llm?a", Some("/?a")),
            ("/llm//v1", Some("//v1")),
            ("/healthz", Some("/healthz")),
            ("/", Some("/")),
            ("/llmv1/models", None),
            ("/v1/models", None),
            ("/healthz/", None),
        ] {
            let inner = without_prefix("/llm", &Uri::from_static(target)).ok().map(|uri| uri.to_string());
            assert_eq!(inner.as_deref(), expected, "{target}");
        }
        let target = Uri::from_static("/v1/models?limit=1");
        assert_eq!(without_prefix("", &target), Ok(target));
    }

    #[test]
    fn each_path_has_the_dialect_of_its_vendor() {
        let mut headers = HeaderMap::new();
        for (path, expected) in [
            ("/v1/messages/batches", Dialect::Anthropic),
            ("/v1/models", Dialect::OpenAi),
            ("/anthropic/v1/models", Dialect::Anthropic),
            ("/model/m/converse", Dialect::Bedrock),
            ("/inference-profiles", Dialect::Bedrock),
        ] {
            assert_eq!(dialect(path, &headers), expected, "{path}");
        }
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        assert_eq!(dialect("/v1/models", &headers), Dialect::Anthropic);
        assert_eq!(dialect("/v1/files", &headers), Dialect::OpenAi);
        assert_eq!(dialect("/v1/uploads", &headers), Dialect::OpenAi);
        assert_eq!(dialect("/v1/batches/x", &headers), Dialect::OpenAi);
    }

    #[test]
    fn a_pattern_matches_whole_paths_only() {
        for (pattern, path, expected) in [
            ("/v1/jobs/{id}", "/v1/jobs/7", Some(["7", ""])),
            ("/v1/jobs/{id}", "/openai/v1/jobs/7/", Some(["7", ""])),
            ("/v1/jobs/{id}", "/v1/jobs", None),
            ("/v1/jobs/{id}", "/v1/jobs/7/result", None),
            ("/v1/jobs/{id}", "/openaiv1/jobs/7", None),
            ("/healthz", "/openai/healthz", None),
            ("/guardrail/{id}/version/{version}/apply", "/guardrail/g/version/2/apply", Some(["g", "2"])),
            ("/model/{id}/invoke", "/model/arn:a/b%2Fc/invoke", Some(["arn:a/b%2Fc", ""])),
            ("/model/{id}/invoke", "/model/invoke", None),
            ("/model/{id}/invoke", "/openai/model/m/invoke", None),
            ("/", "/", Some(["", ""])),
        ] {
            assert_eq!(ids_in(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_broken_id_is_refused() {
        for id in ["", "%", "%2", "%zz", "%ff"] {
            assert_eq!(decode("/v1/jobs/{id}", [id, ""]).map_err(|problem| problem.kind), Err(Kind::Invalid), "{id}");
        }
        assert_eq!(decode("/v1/jobs/{id}", ["a%2Fb", ""]), Ok(["a/b".to_owned(), String::new()]));
    }
}
