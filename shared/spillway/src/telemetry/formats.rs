//! The metrics that CloudWatch derives from events, and their dimensions.
//!
//! CloudWatch bills a metric for each name and combination of dimension values. With ten models,
//! the events of a deployment make 38. A metric that no event has had for hours costs nothing.

use metrique::{
    emf::{Emf, EmfBuilder, MetricDefinition, MetricDirective},
    unit::{Count, Millisecond},
    writer::{Unit, unit::UnitTag},
};

use super::RequestEvent;

/// The formats of events. An event is written in the format whose metrics it has, because the
/// specification requires that each metric exists in the event.
pub struct Formats {
    /// Metrics without dimensions only.
    pub plain: Emf,
    /// Also the duration by outcome.
    request: Emf,
    /// Also tokens and cost by model.
    charged: Emf,
}

impl Formats {
    /// The formats for metrics in `namespace`.
    pub fn new(namespace: &str) -> Self {
        let plain = || Emf::builder(namespace.to_owned(), vec![vec![]]);
        let request = || with(plain(), namespace, "outcome", &[("duration_ms", Millisecond::UNIT)]);
        let charged = with(request(), namespace, "model", &[("tokens", Count::UNIT), ("cost_microusd", Unit::None)]);
        Self { plain: plain().build(), request: request().build(), charged: charged.build() }
    }

    /// The format of a request's event. Only an event of a known model can have a charge by model.
    pub fn for_request(&mut self, event: &RequestEvent) -> &mut Emf {
        let is_charged = event.model.is_some() && event.tokens.is_some() && event.cost_microusd.is_some();
        if is_charged { &mut self.charged } else { &mut self.request }
    }
}

/// Adds metrics by `dimension`.
fn with(format: EmfBuilder, namespace: &str, dimension: &str, metrics: &[(&str, Unit)]) -> EmfBuilder {
    let define = |&(name, unit): &(_, _)| MetricDefinition { name, unit, storage_resolution: None };
    let metrics = metrics.iter().map(define).collect();
    format.directive(MetricDirective { dimensions: vec![vec![dimension]], metrics, namespace })
}
