//! Metrics in events, extracted as CloudWatch does (Amazon CloudWatch User Guide, "Specification:
//! Embedded metric format").

use std::collections::BTreeMap;

use serde_json::Value;

/// A metric, as CloudWatch bills it: a name, a namespace, and a combination of dimension values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    pub namespace: String,
    pub name: String,
    pub dimensions: BTreeMap<String, String>,
}

/// Returns the data points of `event`. Fails the test if the event breaks the specification: every
/// metric must be a number in the event, and every dimension a text that is not empty.
pub fn data_points(event: &Value) -> Vec<(Metric, f64)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    assert!(event["_aws"]["Timestamp"].is_u64(), "{event}");
    // With these keys, Lambda would take the line for a log line with a level.
    assert!(event.get("level").is_none() && event.get("timestamp").is_none(), "{event}");
    let mut found = Vec::new();
    for directive in list(&event["_aws"]["CloudWatchMetrics"]) {
        let metrics = list(&directive["Metrics"]);
        assert!((1..=100).contains(&metrics.len()), "{directive}");
        for dimensions in list(&directive["Dimensions"]) {
            let dimensions = list(&dimensions).into_iter().map(|name| (text(&name), text(&event[text(&name)])));
            let dimensions: BTreeMap<String, String> = dimensions.collect();
            assert!(dimensions.values().all(|value| !value.is_empty()), "{event}");
            for metric in &metrics {
                let name = text(&metric["Name"]);
                let value = event[&name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {event}"));
                let namespace = text(&directive["Namespace"]);
                found.push((Metric { namespace, name, dimensions: dimensions.clone() }, value));
            }
        }
    }
    found
}
