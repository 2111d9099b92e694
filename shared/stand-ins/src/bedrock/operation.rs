//! Which operation on which model a path names.

use percent_encoding::percent_decode_str;

use super::reply::Shape;

/// The operations that are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Generate { shape: Shape, streamed: bool },
    CountTokens,
}

/// Reads `/model/{id}/{operation}`. The id is everything in between, percent-decoded once: clients send the slashes of
/// an ARN encoded, its colons either way.
pub(super) fn of_path(path: &str) -> Option<(String, Operation)> {
    let (model_id, operation) = path.strip_prefix("/model/")?.rsplit_once('/')?;
    let model_id = percent_decode_str(model_id).decode_utf8().ok()?.into_owned();
    let operation = match operation {
        "converse" => Operation::Generate { shape: Shape::Converse, streamed: false },
        "converse-stream" => Operation::Generate { shape: Shape::Converse, streamed: true },
        "invoke" => Operation::Generate { shape: Shape::Anthropic, streamed: false },
        "invoke-with-response-stream" => Operation::Generate { shape: Shape::Anthropic, streamed: true },
        "count-tokens" => Operation::CountTokens,
        _ => return None,
    };
    (!model_id.is_empty()).then_some((model_id, operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_id_is_decoded_once_however_it_was_encoded() {
        let arn = "arn:aws:bedrock:eu-west-1:1:provisioned-model/abc";
        for path in [
            "/model/arn:aws:bedrock:eu-west-1:1:provisioned-model/abc/converse",
            "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Aprovisioned-model%2Fabc/converse",
            "/model/arn:aws:bedrock:eu-west-1:1:provisioned-model%2fabc/converse",
        ] {
            assert_eq!(of_path(path).unwrap().0, arn);
        }
        assert_eq!(of_path("/model/a%253A/converse").unwrap().0, "a%3A");
    }

    #[test]
    fn another_path_is_no_operation() {
        for path in ["/", "/model/a", "/model//converse", "/model/a/dance", "/model/%ff/converse", "/models/a/converse"]
        {
            assert_eq!(of_path(path), None, "{path}");
        }
    }
}
