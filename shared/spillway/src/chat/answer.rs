//! Complete answers.

use bytes::Bytes;
use serde_json::Value;

use crate::stored_headers::StoredHeaders;
use crate::usage::Usage;

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The model's output.
    pub output: Output,
    /// The token usage; `None` if the model did not report it.
    pub usage: Option<Usage>,
}

/// A model's output, in the shape of the request.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// The JSON body of a Converse reply (`output`, `stopReason`, `usage`, `metrics`, …) as Bedrock
    /// sent it.
    Converse(Value),
    /// A reply of InvokeModel for each body of the request.
    Native(Vec<NativeReply>),
}

/// A reply of InvokeModel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeReply {
    /// The `content-type` and `x-amzn-bedrock-*` headers.
    pub headers: StoredHeaders,
    /// The model's own body.
    pub body: Bytes,
}
