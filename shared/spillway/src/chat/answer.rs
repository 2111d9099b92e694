//! Complete answers.

use bytes::Bytes;
use serde_json::Value;

use crate::usage::Usage;

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the model said.
    pub output: Output,
    /// What it used; `None` if the model did not say.
    pub usage: Option<Usage>,
}

/// What a model said, in the shape that it was asked in.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// The JSON body of a Converse reply (`output`, `stopReason`, `usage`, `metrics`, …) as Bedrock sent it.
    Converse(Value),
    /// One reply of InvokeModel for each body that was sent.
    Native(Vec<NativeReply>),
}

/// A reply of InvokeModel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeReply {
    /// The `content-type` and `x-amzn-bedrock-*` headers.
    pub headers: Vec<(String, String)>,
    /// The model's own body.
    pub body: Bytes,
}
