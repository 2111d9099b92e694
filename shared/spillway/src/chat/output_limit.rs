//! Output limits in bodies for models.

use serde_json::{Map, Value};

/// The path of the output limit in a Converse body.
pub const CONVERSE_LIMIT_PATHS: [&str; 1] = ["inferenceConfig.maxTokens"];

/// Returns the top-level members of `body` that set its output limit to `max_tokens`: at each of
/// `paths` where it has one, or else at the first. A path has at most one parent.
pub(super) fn members(
    body: &Map<String, Value>,
    paths: &[&'static str],
    max_tokens: u64,
) -> Vec<(&'static str, Value)> {
    let mut present: Vec<&'static str> = paths.iter().copied().filter(|path| has_limit(body, path)).collect();
    if present.is_empty() {
        present.extend(paths.first());
    }
    let mut members: Vec<(&'static str, Value)> = Vec::new();
    for path in present {
        match path.split_once('.') {
            None => members.push((path, max_tokens.into())),
            Some((parent, name)) => match members.iter_mut().find(|(member, _)| *member == parent) {
                Some((_, config)) => config[name] = max_tokens.into(),
                None => members.push((parent, with_member(body.get(parent), name, max_tokens))),
            },
        }
    }
    members
}

fn has_limit(body: &Map<String, Value>, path: &str) -> bool {
    let member = match path.split_once('.') {
        None => body.get(path),
        Some((parent, name)) => body.get(parent).and_then(|parent| parent.get(name)),
    };
    member.is_some_and(|limit| !limit.is_null())
}

/// Returns a copy of the object `config` whose member `name` is `max_tokens`.
fn with_member(config: Option<&Value>, name: &str, max_tokens: u64) -> Value {
    let mut members = config.and_then(Value::as_object).cloned().unwrap_or_default();
    members.insert(name.to_owned(), max_tokens.into());
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::Format;

    #[test]
    fn the_limit_is_set_at_each_place_where_the_body_has_it_or_at_the_first() {
        let chat = Format::ChatCompletions.limit_paths();
        let nova = Format::Nova.limit_paths();
        let cases = [
            (Format::Messages.limit_paths(), json!({"max_tokens": 7}), json!({"max_tokens": 9})),
            (chat, json!({"max_completion_tokens": 7}), json!({"max_completion_tokens": 9})),
            (chat, json!({"max_tokens": null}), json!({"max_tokens": 9})),
            (
                chat,
                json!({"max_tokens": 7, "max_completion_tokens": 7}),
                json!({"max_tokens": 9, "max_completion_tokens": 9}),
            ),
            (
                nova,
                json!({"inferenceConfig": {"maxTokens": 7, "max_new_tokens": 7, "topP": 1}}),
                json!({"inferenceConfig": {"maxTokens": 9, "max_new_tokens": 9, "topP": 1}}),
            ),
            (nova, json!({"inferenceConfig": {"topP": 1}}), json!({"inferenceConfig": {"topP": 1, "maxTokens": 9}})),
            (
                Format::TitanText.limit_paths(),
                json!({"textGenerationConfig": {"maxTokenCount": 7}}),
                json!({"textGenerationConfig": {"maxTokenCount": 9}}),
            ),
            (Format::Llama.limit_paths(), json!({}), json!({"max_gen_len": 9})),
            (&CONVERSE_LIMIT_PATHS, json!({}), json!({"inferenceConfig": {"maxTokens": 9}})),
            (Format::TitanEmbed.limit_paths(), json!({}), json!({})),
        ];
        for (paths, before, after) in cases {
            let set = members(before.as_object().expect("an object"), paths, 9);
            let set: Map<String, Value> = set.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(Value::Object(set), after, "{before}");
        }
    }
}
