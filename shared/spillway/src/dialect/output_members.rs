//! Members of a body that decide how much a model generates: output limits, budgets for thinking,
//! and members that multiply the output.
//!
//! A reservation is an upper bound only if the broker reads the limit that the model obeys. So each
//! name that any model reads as a limit is found at any depth of a body, in any spelling. A member
//! that multiplies the output is refused, because one request is reserved as one answer.
//!
//! The names are from the Amazon Bedrock User Guide, "Inference request parameters and response
//! fields for foundation models" (Nova, Titan, Claude, Cohere Command, AI21 Jamba and Jurassic-2,
//! Llama, Mistral) and "Invoke your imported model"; the OpenAI API Reference, "Chat Completions",
//! "Completions" and "Responses"; vLLM, `SamplingParams`; and Hugging Face, `GenerationConfig`,
//! which imported and Marketplace models take.

use serde_json::{Map, Value};

use super::json::{self, Path, Read, is_spelling, sanitized};

/// Names of output limits, as compared by [`is_spelling`].
const LIMITS: [&str; 8] = [
    // Claude, Cohere, Jamba, Mistral, Qwen; `maxTokens` of Converse, Nova and Jurassic-2
    "maxtokens",
    // OpenAI's chat completions and responses
    "maxcompletiontokens",
    "maxoutputtokens",
    // Claude's Text Completions
    "maxtokenstosample",
    // Titan Text
    "maxtokencount",
    // Llama
    "maxgenlen",
    // Nova; Hugging Face
    "maxnewtokens",
    "maxlength",
];

/// Names of members that multiply the output, as compared by [`is_spelling`].
const MULTIPLIERS: [&str; 9] = [
    // OpenAI, Jamba, vLLM
    "n",
    "bestof",
    // Cohere Command
    "numgenerations",
    // Jurassic-2
    "numresults",
    // Hugging Face; its beams are computed like answers
    "numreturnsequences",
    "numbeams",
    "beamwidth",
    // Google
    "candidatecount",
    // Titan Image Generator, Nova Canvas
    "numberofimages",
];

/// Members with the caller's data, in which any name can stand: prompts, definitions of tools, JSON
/// schemas and metadata. No model reads a limit in them.
const DATA: [&str; 19] = [
    "messages",
    "system",
    "input",
    "tools",
    "toolConfig",
    "functions",
    "metadata",
    "requestMetadata",
    "promptVariables",
    "schema",
    "json_schema",
    "jsonSchema",
    "input_schema",
    "inputSchema",
    "guided_json",
    "structured_outputs",
    "documents",
    "chat_history",
    "tool_results",
];

/// What a member decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The most tokens of an answer.
    Limit,
    /// The number of answers.
    Multiplier,
    /// The most tokens of the thinking, which are part of an answer.
    Budget,
    /// The prompt. A list of prompts is answered by a list of answers.
    Prompt,
}

impl Meaning {
    fn for_name(name: &str) -> Option<Self> {
        let is_in = |names: &[&str]| names.iter().any(|plain| is_spelling(name, plain));
        match name {
            _ if is_in(&LIMITS) => Some(Self::Limit),
            _ if is_in(&MULTIPLIERS) => Some(Self::Multiplier),
            _ if is_spelling(name, "budgettokens") => Some(Self::Budget),
            "prompt" => Some(Self::Prompt),
            _ => None,
        }
    }
}

/// Returns the output limit of `body`, which may stand at the paths `own`, also at several of them
/// if the limits are equal. Without paths the format of the body is not known: the limit may stand
/// anywhere, and the largest counts.
///
/// # Errors
/// Returns an error if the body has a limit at another place, limits that differ, a budget for
/// thinking above the limit, or a member that multiplies the output.
pub fn limit(body: &Map<String, Value>, own: &[&str]) -> Read<Option<u64>> {
    let mut reader = Reader { own, limit: None, budget: None };
    reader.read_members(body, &Path::Root)?;
    match (reader.limit, reader.budget) {
        (Some((name, limit)), Some((path, budget))) if budget > limit => {
            let text = format_args!("is above {name}, which limits the thinking as well; lower it or raise {name}");
            Err(Path::Root.key(&path).error(text))
        }
        (limit, _) => Ok(limit.map(|(_, tokens)| tokens)),
    }
}

/// Reader of the members of a body.
struct Reader<'o> {
    own: &'o [&'o str],
    /// The limit that counts, with its path.
    limit: Option<(String, u64)>,
    /// The largest budget for thinking, with its path.
    budget: Option<(String, u64)>,
}

impl Reader<'_> {
    fn read_members(&mut self, members: &Map<String, Value>, at: &Path) -> Read<()> {
        for (name, value) in members.iter().filter(|(name, value)| !value.is_null() && !DATA.contains(&name.as_str())) {
            let meaning = Meaning::for_name(name);
            if meaning.is_some() || value.is_object() || value.is_array() {
                let name = sanitized(name);
                let at = at.key(&name);
                if let Some(meaning) = meaning {
                    self.read_member(meaning, value, &at)?;
                }
                self.read_within(value, &at)?;
            }
        }
        Ok(())
    }

    fn read_within(&mut self, value: &Value, at: &Path) -> Read<()> {
        match value {
            Value::Object(members) => self.read_members(members, at),
            Value::Array(elements) => {
                (0..).zip(elements).try_for_each(|(index, element)| self.read_within(element, &at.index(index)))
            }
            _ => Ok(()),
        }
    }

    fn read_member(&mut self, meaning: Meaning, value: &Value, at: &Path) -> Read<()> {
        let is_scalar = !value.is_object() && !value.is_array();
        match meaning {
            Meaning::Limit => self.read_limit(value, at),
            Meaning::Multiplier if is_scalar && value.as_u64() != Some(1) => {
                Err(at.error("only 1 is supported; send a request for each answer"))
            }
            Meaning::Budget if is_scalar => {
                let tokens = json::token_limit(value.clone(), at)?;
                if self.budget.as_ref().is_none_or(|(_, largest)| tokens > *largest) {
                    self.budget = Some((at.to_string(), tokens));
                }
                Ok(())
            }
            Meaning::Prompt if is_list_of_prompts(value) => {
                Err(at.error("only one prompt is supported; send a request for each prompt"))
            }
            Meaning::Multiplier | Meaning::Budget | Meaning::Prompt => Ok(()),
        }
    }

    fn read_limit(&mut self, value: &Value, at: &Path) -> Read<()> {
        let path = at.to_string();
        let is_own = self.own.contains(&path.as_str());
        // An object or an array at another place is no limit, but can have one.
        if !is_own && (value.is_object() || value.is_array()) {
            return Ok(());
        }
        if let Some(own) = self.own.first().filter(|_| !is_own) {
            return Err(at.error(format_args!("is not supported; use {own}")));
        }
        let tokens = json::token_limit(value.clone(), at)?;
        match &self.limit {
            Some((first, limit)) if is_own && *limit != tokens => {
                Err(at.error(format_args!("differs from {first}, which is the same limit; send only one of them")))
            }
            Some((_, limit)) if *limit >= tokens => Ok(()),
            _ => {
                self.limit = Some((path, tokens));
                Ok(())
            }
        }
    }
}

/// Returns whether `prompt` is more than one prompt: a list of texts, or of lists of tokens.
fn is_list_of_prompts(prompt: &Value) -> bool {
    let is_prompt = |element: &Value| element.is_string() || element.is_array();
    prompt.as_array().is_some_and(|elements| elements.len() > 1 && elements.iter().any(is_prompt))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::{CONVERSE_LIMIT_PATHS, Format};

    /// The paths of the output limit in each format; none if the format is not known.
    fn formats() -> Vec<&'static [&'static str]> {
        let formats = [Format::Messages, Format::Nova, Format::TitanText, Format::Llama, Format::ChatCompletions];
        let known = formats.into_iter().map(Format::limit_paths);
        known.chain([&CONVERSE_LIMIT_PATHS[..], &["max_output_tokens"], &[]]).collect()
    }

    /// Places where a member could reach a model.
    const PLACES: [&str; 8] = [
        "",
        "inferenceConfig",
        "textGenerationConfig",
        "parameters",
        "thinking",
        "additionalModelRequestFields",
        "additionalModelRequestFields.inferenceConfig",
        "additionalModelRequestFields.a.b.c.d.e",
    ];

    const SPELLINGS: [&str; 12] = [
        "max_tokens",
        "maxTokens",
        "MAX-TOKENS",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens_to_sample",
        "maxTokenCount",
        "max_gen_len",
        "max_new_tokens",
        "max_length",
        "MaxLength",
        "maxNewTokens",
    ];

    fn set(body: &mut Value, path: &str, value: Value) {
        let mut place = body;
        for name in path.split('.') {
            place = &mut place[name];
        }
        *place = value;
    }

    fn joined(place: &str, name: &str) -> String {
        if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
    }

    fn read(body: &Value, own: &[&str]) -> Result<Option<u64>, Option<String>> {
        limit(body.as_object().expect("an object"), own).map_err(|problem| problem.param)
    }

    #[test]
    fn a_limit_is_read_at_its_own_place_and_refused_by_name_at_each_other() {
        for own in formats() {
            for (place, name) in PLACES.iter().flat_map(|place| SPELLINGS.map(|name| (place, name))) {
                let path = joined(place, name);
                let mut body = json!({});
                set(&mut body, &path, json!(9));
                let is_read = own.is_empty() || own.contains(&path.as_str());
                let expected = if is_read { Ok(Some(9)) } else { Err(Some(path.clone())) };
                assert_eq!(read(&body, own), expected, "{body} for {own:?}");
                let Some(first) = own.first().filter(|first| **first != path) else { continue };
                set(&mut body, first, json!(1));
                assert!(read(&body, own).is_err(), "{body} for {own:?}");
                set(&mut body, first, json!(9));
                assert_eq!(read(&body, own).is_ok(), is_read, "{body} for {own:?}");
            }
        }
    }

    #[test]
    fn a_member_that_multiplies_the_output_is_refused_by_name_unless_it_is_one() {
        let names = [
            "n",
            "N",
            "best_of",
            "num_generations",
            "num_return_sequences",
            "numResults",
            "num-results",
            "num_beams",
            "candidateCount",
            "numberOfImages",
        ];
        for (place, name) in PLACES.iter().flat_map(|place| names.map(|name| (place, name))) {
            let path = joined(place, name);
            for value in [json!(0), json!(2), json!(1.5), json!("1"), json!(true), json!(-1)] {
                let mut body = json!({});
                set(&mut body, &path, value);
                for own in formats() {
                    assert_eq!(read(&body, own), Err(Some(path.clone())), "{body}");
                }
            }
            for value in [json!(1), json!(null)] {
                let mut body = json!({});
                set(&mut body, &path, value);
                assert_eq!(read(&body, &["max_tokens"]), Ok(None), "{body}");
            }
        }
    }

    #[test]
    fn several_limits_are_equal_or_refused() {
        let own = Format::ChatCompletions.limit_paths();
        let both = |a: u64, b: u64| json!({"max_tokens": a, "max_completion_tokens": b});
        assert_eq!(read(&both(5, 5), own), Ok(Some(5)));
        assert_eq!(read(&both(1, 9), own), Err(Some("max_completion_tokens".into())));
        assert_eq!(read(&both(9, 1), own), Err(Some("max_completion_tokens".into())));
        let nova = json!({"inferenceConfig": {"maxTokens": 1, "max_new_tokens": 9}});
        assert_eq!(read(&nova, Format::Nova.limit_paths()), Err(Some("inferenceConfig.max_new_tokens".into())));
        let nulls = json!({"max_tokens": null, "max_completion_tokens": 7});
        assert_eq!(read(&nulls, own), Ok(Some(7)));
        // Where no format is known, the whole output of the model is reserved.
        assert_eq!(
            read(&json!({"max_new_tokens": 5, "parameters": {"max_length": 9, "max_tokens": 7}}), &[]),
            Ok(Some(9))
        );
    }

    #[test]
    fn a_limit_that_is_no_whole_number_is_refused() {
        for value in
            [json!("9"), json!(1.5), json!(0), json!(-1), json!(true), json!([9]), json!({"a": 9}), json!(u64::MAX)]
        {
            let body = json!({ "max_tokens": value });
            assert_eq!(read(&body, &["max_tokens"]), Err(Some("max_tokens".into())), "{body}");
        }
        let float = r#"{"max_tokens": 1e3}"#;
        assert!(read(&serde_json::from_str(float).expect("JSON"), &["max_tokens"]).is_err());
    }

    #[test]
    fn of_two_members_with_one_name_the_last_is_read_and_sent() {
        let body: Value = serde_json::from_str(r#"{"max_tokens": 1, "max_tokens": 9}"#).expect("JSON");
        assert_eq!((read(&body, &["max_tokens"]), body.to_string()), (Ok(Some(9)), r#"{"max_tokens":9}"#.to_owned()));
    }

    #[test]
    fn the_thinking_is_within_the_limit() {
        let body = |budget: u64| json!({"thinking": {"budget_tokens": budget}, "max_tokens": 5_000});
        assert_eq!(read(&body(5_000), &["max_tokens"]), Ok(Some(5_000)));
        assert_eq!(read(&body(5_001), &["max_tokens"]), Err(Some("thinking.budget_tokens".into())));
        let converse = json!({"additionalModelRequestFields": {"reasoning_config": {"budget_tokens": 9_000}},
            "inferenceConfig": {"maxTokens": 5_000}});
        let path = "additionalModelRequestFields.reasoning_config.budget_tokens";
        assert_eq!(read(&converse, &CONVERSE_LIMIT_PATHS), Err(Some(path.into())));
    }

    #[test]
    fn a_list_of_prompts_is_refused() {
        for (prompt, expected) in [
            (json!("a"), Ok(None)),
            (json!(["a"]), Ok(None)),
            (json!([1, 2]), Ok(None)),
            (json!(["a", "b"]), Err(Some("prompt".to_owned()))),
            (json!([[1], [2]]), Err(Some("prompt".to_owned()))),
        ] {
            assert_eq!(read(&json!({ "prompt": prompt }), &["max_tokens"]), expected, "{prompt}");
        }
    }

    #[test]
    fn the_callers_data_may_have_members_of_any_name() {
        let data = json!({"n": 5, "max_tokens": 9, "maxLength": 3, "properties": {"best_of": {"default": 2}}});
        for name in DATA {
            let mut body = json!({ name: [{ "a": data }], "outer": {} });
            body["outer"][name] = data.clone();
            assert_eq!(read(&body, &["max_tokens"]), Ok(None), "{name}");
        }
        let schema = json!({"format": {"properties": {"n": {"type": "integer"}, "max_tokens": {"type": "integer"}}}});
        assert_eq!(read(&schema, &["max_tokens"]), Ok(None));
    }
}
