//! Operations and their paths.

use percent_encoding::percent_decode_str;

/// Operations of the simulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Converse { streamed: bool },
    Invoke { streamed: bool },
    CountTokens,
    ApplyGuardrail { version: String },
}

/// Parses `/model/{id}/{operation}` or `/guardrail/{id}/version/{version}/apply`. The id can
/// contain slashes and is percent-decoded once: clients encode the slashes of an ARN, and may
/// encode its colons.
pub(super) fn parse_path(path: &str) -> Option<(String, Operation)> {
    let (id, operation) = match path.strip_prefix("/guardrail/") {
        Some(path) => {
            let (id, version) = path.strip_suffix("/apply")?.rsplit_once("/version/")?;
            (id, Operation::ApplyGuardrail { version: decoded(version)? })
        }
        None => {
            let (id, operation) = path.strip_prefix("/model/")?.rsplit_once('/')?;
            (id, from_name(operation)?)
        }
    };
    let id = decoded(id).filter(|id| !id.is_empty())?;
    Some((id, operation))
}

fn from_name(name: &str) -> Option<Operation> {
    match name {
        "converse" => Some(Operation::Converse { streamed: false }),
        "converse-stream" => Some(Operation::Converse { streamed: true }),
        "invoke" => Some(Operation::Invoke { streamed: false }),
        "invoke-with-response-stream" => Some(Operation::Invoke { streamed: true }),
        "count-tokens" => Some(Operation::CountTokens),
        _ => None,
    }
}

fn decoded(segment: &str) -> Option<String> {
    Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_id_is_decoded_once_in_any_encoding() {
        let arn = "arn:aws:bedrock:eu-west-1:1:provisioned-model/abc";
        for path in [
            "/model/arn:aws:bedrock:eu-west-1:1:provisioned-model/abc/converse",
            "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Aprovisioned-model%2Fabc/converse",
            "/model/arn:aws:bedrock:eu-west-1:1:provisioned-model%2fabc/converse",
        ] {
            assert_eq!(parse_path(path).unwrap().0, arn);
        }
        assert_eq!(parse_path("/model/a%253A/converse").unwrap().0, "a%3A");
    }

    #[test]
    fn an_unknown_path_is_no_operation() {
        for path in ["/", "/model/a", "/model//converse", "/model/a/dance", "/model/%ff/converse", "/models/a/converse"]
        {
            assert_eq!(parse_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_guardrail_path_has_an_id_or_arn_and_a_version() {
        let apply_version = |version: &str| Operation::ApplyGuardrail { version: version.to_owned() };
        let arn = "arn:aws:bedrock:eu-west-1:000000000000:guardrail/abc";
        for path in [
            "/guardrail/arn%3Aaws%3Abedrock%3Aeu-west-1%3A000000000000%3Aguardrail%2Fabc/version/DRAFT/apply",
            "/guardrail/arn:aws:bedrock:eu-west-1:000000000000:guardrail/abc/version/DRAFT/apply",
        ] {
            assert_eq!(parse_path(path), Some((arn.to_owned(), apply_version("DRAFT"))));
        }
        assert_eq!(parse_path("/guardrail/abc/version/1/apply"), Some(("abc".to_owned(), apply_version("1"))));
        assert_eq!(parse_path("/guardrail/abc/apply"), None);
    }
}
