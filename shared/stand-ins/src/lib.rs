//! DynamoDB, SQS and Bedrock Runtime on the wire, close enough for the unmodified AWS SDKs.

pub mod bedrock;
pub mod clock;
mod connections;
pub mod sqs;
