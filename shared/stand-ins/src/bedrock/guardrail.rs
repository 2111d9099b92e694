//! Guardrails: a text with a blocked word is replaced by the message of the guardrail.

use serde_json::{Map, Value, json};

use super::{
    config::{SimulatedGuardrail, Simulator},
    model::{Answer, Block},
    problem::Problem,
};

pub(super) mod apply;

/// Guardrail that a request selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GuardrailReference {
    /// Id or ARN.
    pub identifier: String,
    /// Version number or `DRAFT`.
    pub version: String,
    /// Whether the response includes the trace.
    pub has_trace: bool,
}

/// A guardrail, for one call.
#[derive(Clone, Debug)]
pub(super) struct Guardrail {
    id: String,
    version: String,
    settings: SimulatedGuardrail,
    has_trace: bool,
}

/// Result of a guardrail for a text.
#[derive(Clone, Debug)]
pub(super) struct Assessment {
    id: String,
    version: String,
    words: Vec<String>,
    characters: usize,
}

/// Result of a guardrail for a call.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    id: String,
    input: Assessment,
    output: Option<Assessment>,
    has_trace: bool,
}

impl Guardrail {
    /// Finds a guardrail by its identifier and version.
    ///
    /// # Errors
    /// Returns an error if it does not exist. Bedrock returns the same error for an unknown
    /// identifier and an unknown version.
    pub fn find(simulator: &Simulator, reference: &GuardrailReference) -> Result<Self, Problem> {
        let id = reference.identifier.rsplit('/').next().unwrap_or_default();
        let is_valid = !id.is_empty() && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !is_valid || (id != reference.identifier && !reference.identifier.starts_with("arn:")) {
            return Err(Problem::invalid("The provided guardrail identifier is invalid."));
        }
        let is_numbered = reference.version.parse::<u32>().is_ok_and(|version| version > 0);
        let settings =
            simulator.guardrail(id).filter(|_| is_numbered || reference.version == "DRAFT").ok_or_else(|| {
                Problem::invalid("The guardrail identifier or version provided in the request does not exist.")
            })?;
        Ok(Self { id: id.to_owned(), version: reference.version.clone(), settings, has_trace: reference.has_trace })
    }

    /// Returns the message that replaces a blocked text.
    pub fn message(&self) -> &str {
        &self.settings.message
    }

    /// Checks a text for blocked words.
    pub fn assess(&self, text: &str) -> Assessment {
        let words = self.settings.blocked_words.iter().filter(|word| text.contains(word.as_str()));
        Assessment {
            id: self.id.clone(),
            version: self.version.clone(),
            words: words.cloned().collect(),
            characters: text.chars().count(),
        }
    }

    /// Replaces an answer that contains a blocked word. Its tokens still count.
    pub fn check_answer(&self, input: Assessment, answer: &mut Answer) -> Verdict {
        let output = self.assess(&answer.text());
        if output.intervenes() {
            answer.blocks = vec![Block::Text(self.message().to_owned())];
            answer.stop_reason = "guardrail_intervened";
            answer.stop_sequence = None;
        }
        Verdict { id: self.id.clone(), input, output: Some(output), has_trace: self.has_trace }
    }

    /// Returns the answer to a blocked input, which costs no tokens.
    pub fn block(&self, input: Assessment) -> (Answer, Verdict) {
        let blocks = vec![Block::Text(self.message().to_owned())];
        let answer = Answer { blocks, ..Answer::empty("guardrail_intervened") };
        (answer, Verdict { id: self.id.clone(), input, output: None, has_trace: self.has_trace })
    }
}

impl Assessment {
    /// Returns whether the text contains a blocked word.
    pub fn intervenes(&self) -> bool {
        !self.words.is_empty()
    }

    fn reason(&self) -> &'static str {
        if self.intervenes() { "Guardrail blocked." } else { "No action." }
    }

    /// Returns the usage. Text is charged per thousand characters.
    fn usage(&self) -> Value {
        json!({
            "topicPolicyUnits": 0,
            "contentPolicyUnits": 0,
            "wordPolicyUnits": self.characters.div_ceil(1_000),
            "sensitiveInformationPolicyUnits": 0,
            "sensitiveInformationPolicyFreeUnits": 0,
            "contextualGroundingPolicyUnits": 0,
            "contentPolicyImageUnits": 0,
        })
    }

    fn coverage(&self) -> Value {
        json!({ "textCharacters": { "guarded": self.characters, "total": self.characters } })
    }

    fn report(&self) -> Value {
        let mut report = json!({
            "invocationMetrics": {
                "guardrailProcessingLatency": 0,
                "usage": self.usage(),
                "guardrailCoverage": self.coverage(),
            },
            "appliedGuardrailDetails": {
                "guardrailId": self.id,
                "guardrailVersion": self.version,
                "guardrailOrigin": ["REQUEST"],
                "guardrailOwnership": "SELF",
            },
        });
        if self.intervenes() {
            let words = self.words.iter().map(|word| json!({ "match": word, "action": "BLOCKED", "detected": true }));
            report["wordPolicy"] = json!({ "customWords": words.collect::<Value>(), "managedWordLists": [] });
        }
        report
    }
}

impl Verdict {
    fn intervened(&self) -> bool {
        self.input.intervenes() || self.output.as_ref().is_some_and(Assessment::intervenes)
    }

    fn by_id(&self, value: Value) -> Value {
        Value::Object(Map::from_iter([(self.id.clone(), value)]))
    }

    /// Returns the `trace` of Converse if the request enables it.
    pub fn converse_trace(&self) -> Option<Value> {
        let mut trace = json!({ "inputAssessment": self.by_id(self.input.report()) });
        let decisive = self.output.as_ref().unwrap_or(&self.input);
        trace["actionReason"] = json!(decisive.reason());
        if let Some(output) = &self.output {
            trace["outputAssessments"] = self.by_id(json!([output.report()]));
        }
        self.has_trace.then(|| json!({ "guardrail": trace }))
    }

    /// Returns the members that InvokeModel adds to the body of any model.
    pub fn invoke_members(&self) -> Map<String, Value> {
        let action = if self.intervened() { "INTERVENED" } else { "NONE" };
        let mut members = Map::from_iter([("amazon-bedrock-guardrailAction".to_owned(), json!(action))]);
        if self.has_trace {
            let mut trace = json!({ "input": self.by_id(self.input.report()) });
            if let Some(output) = &self.output {
                trace["outputs"] = json!([self.by_id(output.report())]);
            }
            members.insert("amazon-bedrock-trace".to_owned(), json!({ "guardrail": trace }));
        }
        members
    }
}
