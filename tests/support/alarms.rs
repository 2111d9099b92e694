//! Alarms of the template, evaluated on data points as CloudWatch does (Amazon CloudWatch User
//! Guide, "Alarm evaluation"). CloudWatch looks back somewhat further for missing data points, so
//! it can raise an alarm on missing data some minutes later.

use std::collections::BTreeMap;

use super::{metrics::Metric, template::Template};

/// Name of the stack that is simulated.
const STACK: &str = "broker-1";

/// The data points of each minute.
pub type Minutes = Vec<Vec<(Metric, f64)>>;

/// An alarm on one metric.
#[derive(Debug)]
pub struct Alarm {
    metric: Metric,
    statistic: String,
    comparison: String,
    threshold: f64,
    minutes: usize,
    periods: usize,
    periods_to_alarm: usize,
    is_missing_bad: bool,
}

impl Alarm {
    /// Returns all alarms of `template`, by name.
    pub fn all(template: &Template) -> BTreeMap<String, Self> {
        let lines: Vec<&str> = template.0.lines().collect();
        let heads = lines.windows(2).filter(|pair| pair[1].trim() == "Type: AWS::CloudWatch::Alarm");
        let names = heads.map(|pair| pair[0].trim().trim_end_matches(':').to_owned());
        names.map(|name| (name.clone(), Self::named(template, &name))).collect()
    }

    fn named(template: &Template, name: &str) -> Self {
        let alarm = template.below(&format!("{name}:"));
        let text = |name: &str| alarm.text(name).unwrap_or_else(|| panic!("no {name} in {}", alarm.0)).to_owned();
        let periods = usize::try_from(alarm.number("EvaluationPeriods")).expect("a count");
        let threshold = text("Threshold");
        let threshold = match threshold.strip_prefix("!Ref ") {
            Some(parameter) => template.below(&format!("{parameter}:")).text("Default").expect("a default").to_owned(),
            None => threshold,
        };
        let to_alarm = alarm.text("DatapointsToAlarm").map(|count| count.parse().expect("a count"));
        Self {
            metric: Metric {
                namespace: resolved(&text("Namespace")),
                name: text("MetricName"),
                dimensions: alarm.text("Dimensions").map(dimensions).unwrap_or_default(),
            },
            statistic: text("Statistic"),
            comparison: text("ComparisonOperator"),
            threshold: threshold.parse().expect("a number"),
            minutes: usize::try_from(alarm.number("Period") / 60).expect("a count"),
            periods,
            periods_to_alarm: to_alarm.unwrap_or(periods),
            is_missing_bad: text("TreatMissingData") == "breaching",
        }
    }

    /// Whether the alarm is raised at the end of any of `minutes`.
    pub fn is_raised(&self, minutes: &Minutes) -> bool {
        (1..=minutes.len()).any(|end| self.is_raised_after(&minutes[..end]))
    }

    fn is_raised_after(&self, minutes: &[Vec<(Metric, f64)>]) -> bool {
        let periods = minutes.rchunks(self.minutes).take(self.periods);
        periods.filter(|period| self.is_breaching(period)).count() >= self.periods_to_alarm
    }

    fn is_breaching(&self, period: &[Vec<(Metric, f64)>]) -> bool {
        let points = period.iter().flatten().filter(|(metric, _)| *metric == self.metric);
        let values: Vec<f64> = points.map(|(_, value)| *value).collect();
        if values.is_empty() {
            return self.is_missing_bad;
        }
        let value = match self.statistic.as_str() {
            "Sum" => values.iter().sum::<f64>(),
            "Maximum" => values.iter().copied().fold(f64::MIN, f64::max),
            other => panic!("the statistic {other} is not simulated"),
        };
        match self.comparison.as_str() {
            "GreaterThanThreshold" => value > self.threshold,
            "GreaterThanOrEqualToThreshold" => value >= self.threshold,
            "LessThanThreshold" => value < self.threshold,
            other => panic!("the comparison {other} is not simulated"),
        }
    }
}

/// Returns the namespace in which the functions of `template` write metrics.
pub fn namespace(template: &Template) -> String {
    resolved(template.text("SPILLWAY_METRIC_NAMESPACE").expect("a namespace"))
}

/// Returns the metric of an AWS service that a stack has.
pub fn service_metric(namespace: &str, name: &str, dimension: &str, value: &str) -> Metric {
    let dimensions = BTreeMap::from([(dimension.to_owned(), resolved(value))]);
    Metric { namespace: namespace.to_owned(), name: name.to_owned(), dimensions }
}

/// Reads `[{Name: NAME, Value: VALUE}]`.
fn dimensions(list: &str) -> BTreeMap<String, String> {
    let entries = list.split('{').skip(1).map(|entry| {
        let (name, value) = entry.split_once(", Value: ").expect("a name and a value");
        let value = value.split('}').next().unwrap_or_default();
        (name.trim_start_matches("Name: ").to_owned(), resolved(value))
    });
    entries.collect()
}

/// Replaces the name of the stack. Other references stand for themselves.
fn resolved(value: &str) -> String {
    let value = value.replace("!Ref AWS::StackName", STACK);
    value.trim_start_matches("!Sub ").replace("${AWS::StackName}", STACK)
}
