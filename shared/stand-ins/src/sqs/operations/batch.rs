//! What all batch operations share: reading the entries and reporting each one's fate.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Call;
use crate::sqs::{checks, error::Error};

/// One entry of a batch.
#[derive(Deserialize)]
pub struct Entry<T> {
    #[serde(rename = "Id", default)]
    pub id: String,
    #[serde(flatten)]
    pub input: T,
}

#[derive(Deserialize)]
struct Batch<T> {
    #[serde(rename = "Entries")]
    entries: Option<Vec<Entry<T>>>,
}

/// The entries, once the batch as a whole is in order. `entry_type` is the name SQS gives them in its errors.
pub fn entries<T: DeserializeOwned>(call: &Call, entry_type: &str) -> Result<Vec<Entry<T>>, Error> {
    let entries = call.input::<Batch<T>>()?.entries.unwrap_or_default();
    checks::batch_ids(entries.iter().map(|entry| entry.id.as_str()), entry_type)?;
    Ok(entries)
}

/// The answer to a batch: what succeeded, and what failed for which reason.
pub fn answer(results: Vec<(String, Result<Value, Error>)>) -> Value {
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
                "SenderFault": error.fault.is_senders(),
                "Code": error.fault.query_code(),
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
