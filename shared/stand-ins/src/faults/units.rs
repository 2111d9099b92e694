//! Read and write units that DynamoDB bills for a request. The engine computes them; this module
//! asks for them and adds them up.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Member of a request that asks for the units, and of a response that has them.
const ASKS: &str = "ReturnConsumedCapacity";
const HAS: &str = "ConsumedCapacity";

/// Units of a table and its indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Units {
    /// Read units. A read with eventual consistency takes half units.
    pub read: f64,
    /// Write units, with the writes to indexes.
    pub write: f64,
}

/// Returns the request with the wish to learn its units, unless it has that wish already.
pub(super) fn ask(request: &Bytes) -> Bytes {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(request) else { return request.clone() };
    members.entry(ASKS).or_insert(json!("INDEXES"));
    Value::Object(members).to_string().into()
}

/// Adds the units in the response to `operation` to `units`, by table.
pub(super) fn add(units: &mut BTreeMap<String, Units>, operation: &str, response: &[u8]) {
    let consumed: Value = serde_json::from_slice(response).unwrap_or_default();
    // One object, or a list with an object for each table.
    let consumed = match &consumed[HAS] {
        Value::Array(tables) => tables.as_slice(),
        table => std::slice::from_ref(table),
    };
    for table in consumed {
        let (Some(name), Some(number)) = (table["TableName"].as_str(), table["CapacityUnits"].as_f64()) else {
            continue;
        };
        add_to(units.entry(name.to_owned()).or_default(), operation, number);
    }
}

/// Adds the units of a write whose condition failed: as many as the write would have taken, at
/// least one (DynamoDB Developer Guide, "Condition expressions"). Items of up to 1 KB are assumed,
/// because the response does not have the units.
pub(super) fn add_failed_condition(units: &mut BTreeMap<String, Units>, request: &[u8]) {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    if let Some(table) = request["TableName"].as_str() {
        units.entry(table.to_owned()).or_default().write += 1.0;
    }
}

fn add_to(units: &mut Units, operation: &str, number: f64) {
    let is_read = ["Get", "BatchGet", "Query", "Scan", "TransactGet"].iter().any(|start| operation.starts_with(start));
    *if is_read { &mut units.read } else { &mut units.write } += number;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(operation: &str, response: &Value) -> BTreeMap<String, Units> {
        let mut units = BTreeMap::new();
        add(&mut units, operation, response.to_string().as_bytes());
        units
    }

    #[test]
    fn units_are_added_up_by_table_and_kind() {
        let one = json!({ "ConsumedCapacity": { "TableName": "a", "CapacityUnits": 2.0 } });
        let two = json!({ "ConsumedCapacity": [
            { "TableName": "a", "CapacityUnits": 4.0 }, { "TableName": "b", "CapacityUnits": 0.5 }] });
        let expected = |table: &str, read, write| (table.to_owned(), Units { read, write });
        assert_eq!(added("PutItem", &one), [expected("a", 0.0, 2.0)].into());
        assert_eq!(added("TransactWriteItems", &two), [expected("a", 0.0, 4.0), expected("b", 0.0, 0.5)].into());
        assert_eq!(added("BatchGetItem", &two), [expected("a", 4.0, 0.0), expected("b", 0.5, 0.0)].into());
        assert!(added("PutItem", &json!({})).is_empty());
    }

    #[test]
    fn a_request_that_asks_for_its_units_is_unchanged() {
        let asks = Bytes::from_static(br#"{"ReturnConsumedCapacity":"TOTAL","TableName":"t"}"#);
        assert_eq!(ask(&asks), asks);
        let plain = ask(&Bytes::from_static(br#"{"TableName":"t"}"#));
        assert_eq!(serde_json::from_slice::<Value>(&plain).unwrap()[ASKS], "INDEXES");
        assert_eq!(ask(&Bytes::from_static(b"no JSON")), "no JSON");
    }
}
