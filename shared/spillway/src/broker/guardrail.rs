//! Guardrails applied without a model. A call counts as one request of the tenant, takes no tokens,
//! and costs the price of its text units and images.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    admit::{Payers, Reserved},
    problems, settlement,
};
use crate::{
    app::App,
    dialect::GuardrailContent,
    model::Failure,
    problem::Problem,
    quota::{self, Charge, LimitState, Receipt, Settled},
    tenant::{GuardrailGrant, GuardrailUnits, Tenant},
    units::{Millis, UnixMs},
    usage::Usage,
};

/// Maximum duration of a guardrail call. Its reservation ends at the same time.
const TIMEOUT: Millis = Millis::from_s(20);

/// A guardrail that a tenant may apply, as the caller named it.
#[derive(Debug, Clone, Copy)]
pub struct NamedGuardrail<'a> {
    /// Id or ARN.
    pub id: &'a str,
    /// Version number or `DRAFT`.
    pub version: &'a str,
    /// The grant of the tenant.
    pub grant: &'a GuardrailGrant,
}

/// Result of a guardrail.
#[derive(Debug)]
pub struct GuardrailResult {
    /// The JSON body of Bedrock's reply.
    pub body: Bytes,
    /// State of the tenant's limits.
    pub limit_states: Vec<LimitState>,
    /// The charge for the call.
    pub receipt: Receipt,
}

/// Applies `guardrail` to `content` for `tenant`. Reserves the price of all of the content, and
/// settles what Bedrock reports.
///
/// # Errors
/// Returns an error if the tenant has no room for the request, the guardrail does not exist, or
/// Bedrock is unavailable. Nothing is charged then, unless Bedrock may have billed the call.
pub async fn apply_guardrail(
    app: &App,
    tenant: Arc<Tenant>,
    guardrail: NamedGuardrail<'_>,
    content: GuardrailContent,
) -> Result<GuardrailResult, Problem> {
    let NamedGuardrail { id, version, grant } = guardrail;
    let charge = charge(grant, content.units);
    let deadline = app.clock.now() + TIMEOUT;
    let reserved = reserve(app, tenant, charge, deadline).await?;
    let applied = tokio::select! {
        biased;
        () = app.clock.sleep_until(deadline) => Err(Failure::timed_out()),
        applied = app.models.apply_guardrail(id, version, content.body) => applied,
    };
    let settled = match &applied {
        Ok(reply) => {
            let units = billed_units(reply).map_or(content.units, |billed| billed.at_most(content.units));
            Settled { charge: self::charge(grant, units), usage: Some(Usage::default()), ..Settled::default() }
        }
        Err(Failure::Failed(..)) => Settled { charge, ..Settled::default() },
        Err(_) => Settled::refund(),
    };
    let (held, view) = reserved.tenant;
    let settle_parent = async {
        match reserved.parent {
            Some((held, _)) => Some(settlement::settle(app, held, settled, None).await),
            None => None,
        }
    };
    let (tenant, parent) = tokio::join!(settlement::settle(app, held, settled, None), settle_parent);
    let receipt = Receipt { tenant: Some(tenant), parent, ..Receipt::default() };
    let body = applied.map_err(|failure| match failure {
        Failure::Throttled(_) => problems::guardrail_throttled(),
        failure => failure.into_problem(),
    })?;
    Ok(GuardrailResult { body, limit_states: view.states(app.clock.now()), receipt })
}

fn charge(grant: &GuardrailGrant, units: GuardrailUnits) -> Charge {
    Charge { requests: 1, cost_microusd: grant.cost_microusd(units), ..Charge::default() }
}

async fn reserve(app: &App, tenant: Arc<Tenant>, charge: Charge, deadline: UnixMs) -> Result<Reserved, Problem> {
    let payers = Payers::for_tenant(app, tenant).await?;
    check_region(app, &payers)?;
    check_size(&payers, &charge)?;
    if let Some(reserved) = payers.reserve(app, |_| charge, deadline).await? {
        return Ok(reserved);
    }
    let payers = payers.reload(app).await?;
    check_size(&payers, &charge)?;
    payers.reserve(app, |_| charge, deadline).await?.ok_or_else(problems::limits_changing)
}

/// Checks that every payer permits the region of the broker, where the guardrail is applied.
fn check_region(app: &App, payers: &Payers) -> Result<(), Problem> {
    let own_region = app.registry.own_region();
    let mut payers = [Some(&payers.tenant), payers.parent.as_ref()].into_iter().flatten();
    match payers.find(|payer| !payer.residency.permits_region(own_region)) {
        Some(payer) => Err(problems::guardrail_not_permitted(&payer.name)),
        None => Ok(()),
    }
}

/// Checks that no payer has a limit that is smaller than the charge.
fn check_size(payers: &Payers, charge: &Charge) -> Result<(), Problem> {
    [Some(&payers.tenant), payers.parent.as_ref()].into_iter().flatten().try_for_each(|payer| {
        match quota::too_large(&payer.limits, charge).first() {
            Some((limit, cap)) => Err(problems::guardrail_too_large(&payer.name, *limit, *cap, charge.cost_microusd)),
            None => Ok(()),
        }
    })
}

/// Reads the units in Bedrock's reply, of the policy that checked most. Returns `None` if the reply
/// has none.
fn billed_units(reply: &[u8]) -> Option<GuardrailUnits> {
    #[derive(Deserialize)]
    struct Reply {
        usage: Map<String, Value>,
    }
    let usage = serde_json::from_slice::<Reply>(reply).ok()?.usage;
    let most = |unit: &str| {
        let units = usage.iter().filter(|(name, _)| name.ends_with(unit));
        units.filter_map(|(_, count)| count.as_u64()).max()
    };
    Some(GuardrailUnits { text_units: most("PolicyUnits")?, images: most("PolicyImageUnits").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_that_checked_most_has_the_billed_units() {
        let reply = br#"{"usage": {"topicPolicyUnits": 2, "contentPolicyUnits": 3, "wordPolicyUnits": 0,
            "sensitiveInformationPolicyFreeUnits": 9, "contentPolicyImageUnits": 1}, "action": "NONE"}"#;
        assert_eq!(billed_units(reply), Some(GuardrailUnits { text_units: 3, images: 1 }));
        assert_eq!(billed_units(b"{}"), None);
        assert_eq!(billed_units(br#"{"usage": {}}"#), None);
    }
}
