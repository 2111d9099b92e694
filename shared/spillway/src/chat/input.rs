//! Bodies for models.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::{
    format::{Format, OutputBound},
    output_limit::{self, CONVERSE_LIMIT_PATHS},
};

/// The body of one call, or of several that make one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The body of a Converse call (`messages`, `system`, `inferenceConfig`, `toolConfig`, …),
    /// without `modelId`.
    Converse(Map<String, Value>),
    /// Bodies in the model's own format, for InvokeModel.
    Native(NativeInput),
}

/// The bodies and options of calls of InvokeModel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NativeInput {
    /// The format of the bodies; `None` if it is not known.
    pub format: Option<Format>,
    /// One body for each call. Only embeddings have several; their vectors make one answer.
    pub bodies: Vec<Map<String, Value>>,
    /// The options that are sent in headers.
    pub options: InvokeOptions,
}

/// Options of InvokeModel that are sent in headers (Amazon Bedrock API Reference, "InvokeModel").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InvokeOptions {
    /// `Accept`, in streams `X-Amzn-Bedrock-Accept`.
    pub accept: Option<String>,
    /// `X-Amzn-Bedrock-GuardrailIdentifier`.
    pub guardrail_id: Option<String>,
    /// `X-Amzn-Bedrock-GuardrailVersion`.
    pub guardrail_version: Option<String>,
    /// `X-Amzn-Bedrock-Trace`.
    pub trace: Option<String>,
    /// `X-Amzn-Bedrock-Request-Metadata`: pairs for Bedrock's invocation log.
    pub request_metadata: Map<String, Value>,
}

impl Input {
    /// All bodies.
    pub fn bodies(&self) -> &[Map<String, Value>] {
        match self {
            Self::Converse(body) => std::slice::from_ref(body),
            Self::Native(native) => &native.bodies,
        }
    }

    /// Whether the output has a limit.
    pub fn output_bound(&self) -> OutputBound {
        match self {
            Self::Converse(_) => OutputBound::Limit,
            Self::Native(native) => native.format.map_or(OutputBound::Unknown, Format::output_bound),
        }
    }

    /// Returns the top-level members of `body` that set the output limit to `max_tokens`; none if
    /// the limit cannot be set.
    pub fn with_max_tokens(&self, body: &Map<String, Value>, max_tokens: u64) -> Vec<(&'static str, Value)> {
        let paths = match self {
            Self::Converse(_) => &CONVERSE_LIMIT_PATHS[..],
            Self::Native(native) => native.format.map_or(&[][..], Format::limit_paths),
        };
        output_limit::members(body, paths, max_tokens)
    }
}

/// A body with some top-level members replaced or added, without a copy of the others.
pub struct Overlaid<'a> {
    /// The caller's body.
    pub body: &'a Map<String, Value>,
    /// The members that replace the caller's or are added to them.
    pub members: Vec<(&'static str, Value)>,
}

impl Serialize for Overlaid<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_replaced = |name: &str| self.members.iter().any(|(member, _)| *member == name);
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.body.iter().filter(|(name, _)| !is_replaced(name)) {
            map.serialize_entry(name, value)?;
        }
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
