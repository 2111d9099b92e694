//! Guardrails: a text that contains a blocked word is replaced by the guardrail's message.

use serde_json::{Map, Value, json};

use super::{
    config::{SimulatedGuardrail, Simulator},
    engine::{Answer, Block},
    problem::Problem,
};

pub(super) mod apply;

/// The guardrail that a request wants to be checked by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attached {
    pub identifier: String,
    pub version: String,
    pub traced: bool,
}

/// A guardrail at work.
#[derive(Clone, Debug)]
pub(super) struct Guardrail {
    id: String,
    version: String,
    settings: SimulatedGuardrail,
    traced: bool,
}

/// What a guardrail found in one text.
#[derive(Clone, Debug)]
pub(super) struct Assessment {
    id: String,
    version: String,
    words: Vec<String>,
    characters: usize,
}

/// What a guardrail did to a call.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    id: String,
    input: Assessment,
    output: Option<Assessment>,
    traced: bool,
}

impl Guardrail {
    /// The guardrail of this identifier and version.
    ///
    /// # Errors
    /// There is none; Bedrock says the same of an unknown identifier and an unknown version.
    pub fn find(simulator: &Simulator, attached: &Attached) -> Result<Self, Problem> {
        let id = attached.identifier.rsplit('/').next().unwrap_or_default();
        let plain = !id.is_empty() && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !plain || (id != attached.identifier && !attached.identifier.starts_with("arn:")) {
            return Err(Problem::invalid("The provided guardrail identifier is invalid."));
        }
        let numbered = attached.version.parse::<u32>().is_ok_and(|version| version > 0);
        let settings =
            simulator.guardrail(id).filter(|_| numbered || attached.version == "DRAFT").ok_or_else(|| {
                Problem::invalid("The guardrail identifier or version provided in the request does not exist.")
            })?;
        Ok(Self { id: id.to_owned(), version: attached.version.clone(), settings, traced: attached.traced })
    }

    /// The message that replaces what is blocked.
    pub fn message(&self) -> &str {
        &self.settings.message
    }

    pub fn assess(&self, text: &str) -> Assessment {
        let words = self.settings.blocked_words.iter().filter(|word| text.contains(word.as_str()));
        Assessment {
            id: self.id.clone(),
            version: self.version.clone(),
            words: words.cloned().collect(),
            characters: text.chars().count(),
        }
    }

    /// Replaces an answer that says a blocked word; its tokens were produced all the same.
    pub fn check_answer(&self, input: Assessment, answer: &mut Answer) -> Verdict {
        let output = self.assess(&answer.text());
        if output.intervenes() {
            answer.blocks = vec![Block::Text(self.message().to_owned())];
            answer.stop_reason = "guardrail_intervened";
            answer.stop_sequence = None;
        }
        Verdict { id: self.id.clone(), input, output: Some(output), traced: self.traced }
    }

    /// The answer to an input that no model may see, and that costs no tokens.
    pub fn block(&self, input: Assessment) -> (Answer, Verdict) {
        let blocks = vec![Block::Text(self.message().to_owned())];
        let answer = Answer { blocks, ..Answer::empty("guardrail_intervened") };
        (answer, Verdict { id: self.id.clone(), input, output: None, traced: self.traced })
    }
}

impl Assessment {
    pub fn intervenes(&self) -> bool {
        !self.words.is_empty()
    }

    fn reason(&self) -> &'static str {
        if self.intervenes() { "Guardrail blocked." } else { "No action." }
    }

    /// Text is charged by the thousand characters.
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

    fn of(&self, value: Value) -> Value {
        Value::Object(Map::from_iter([(self.id.clone(), value)]))
    }

    /// The `trace` of Converse, if it was asked for.
    pub fn converse_trace(&self) -> Option<Value> {
        let mut trace = json!({ "inputAssessment": self.of(self.input.report()) });
        let decisive = self.output.as_ref().unwrap_or(&self.input);
        trace["actionReason"] = json!(decisive.reason());
        if let Some(output) = &self.output {
            trace["outputAssessments"] = self.of(json!([output.report()]));
        }
        self.traced.then(|| json!({ "guardrail": trace }))
    }

    /// The members that InvokeModel adds to the body of any model.
    pub fn invoke_members(&self) -> Map<String, Value> {
        let action = if self.intervened() { "INTERVENED" } else { "NONE" };
        let mut members = Map::from_iter([("amazon-bedrock-guardrailAction".to_owned(), json!(action))]);
        if self.traced {
            let mut trace = json!({ "input": self.of(self.input.report()) });
            if let Some(output) = &self.output {
                trace["outputs"] = json!([self.of(output.report())]);
            }
            members.insert("amazon-bedrock-trace".to_owned(), json!({ "guardrail": trace }));
        }
        members
    }
}
