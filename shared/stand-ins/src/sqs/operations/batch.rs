//! Shared parts of batch operations: reading the entries and reporting the result of each entry.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Call;
use crate::sqs::{error::Error, validate};

/// An entry of a batch.
#[derive(Deserialize)]
pub struct Entry<T> {
    /// Id that identifies the entry in the output.
    #[serde(rename = "Id", default)]
    pub id: String,
    /// Other members of the entry.
    #[serde(flatten)]
    pub input: T,
}

#[derive(Deserialize)]
struct BatchInput<T> {
    #[serde(rename = "Entries")]
    entries: Option<Vec<Entry<T>>>,
}

/// Returns the entries of a valid batch. `entry_type` is their name in error messages of SQS.
///
/// # Errors
/// Returns an error if the batch as a whole is invalid.
pub fn entries<T: DeserializeOwned>(call: &Call, entry_type: &str) -> Result<Vec<Entry<T>>, Error> {
    let entries = call.input::<BatchInput<T>>()?.entries.unwrap_or_default();
    validate::batch_ids(entries.iter().map(|entry| entry.id.as_str()), entry_type)?;
    Ok(entries)
}

/// Returns the output of a batch: the successful entries, and the failed entries with their
/// reasons.
pub fn output(results: Vec<(String, Result<Value, Error>)>) -> Value {
    let mut successful = Vec::new();
    let mut failed = Vec::new();
    for (id, result) in results {
        match result {
            Ok(mut output) => {
                output["Id"] = json!(id);
                successful.push(output);
            }
            Err(error) => failed.push(json!({
                "Id": id,
                "SenderFault": error.code.is_sender_fault(),
                "Code": error.code.query_code(),
                "Message": error.message,
            })),
        }
    }
    let mut output = json!({ "Successful": successful });
    if !failed.is_empty() {
        output["Failed"] = json!(failed);
    }
    output
}
