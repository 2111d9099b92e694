//! Guardrails that a tenant may apply, and their prices.

use serde::{Deserialize, Serialize};

use crate::validate;

/// Version of a guardrail that its owner can still change.
const DRAFT: &str = "DRAFT";

/// Characters in a text unit (Amazon Bedrock pricing, "Guardrails").
const TEXT_UNIT_CHARS: usize = 1_000;

/// Part of a guardrail's ARN before its id.
const ARN_RESOURCE: &str = ":guardrail/";

/// A guardrail that a tenant may apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardrailGrant {
    /// Id or ARN of the guardrail.
    pub id: String,
    /// Whether the tenant may also apply the draft, not only numbered versions.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub draft: bool,
    /// Price of 1,000 text units in USD, of all policies of the guardrail together.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub usd_per_1000_text_units: f64,
    /// Price of 1,000 images in USD.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub usd_per_1000_images: f64,
}

/// Content that a guardrail checks, in the units that Bedrock bills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuardrailUnits {
    /// Text units.
    pub text_units: u64,
    /// Images.
    pub images: u64,
}

impl GuardrailGrant {
    /// Adds the errors in this entry to `wrong`.
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        let is_plain = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !is_plain(id_of(&self.id)) {
            wrong.push(format!("guardrails.id: {:?} must be the id or the ARN of a guardrail", self.id));
        }
        let prices = [
            ("guardrails.usd_per_1000_text_units", self.usd_per_1000_text_units),
            ("guardrails.usd_per_1000_images", self.usd_per_1000_images),
        ];
        for (field, price) in prices {
            validate::range(field, price, 0.0..=validate::MAX_PRICE, wrong);
        }
    }

    /// Returns whether the grant covers `version` of the guardrail with this id or ARN. An ARN also
    /// names the guardrail of a grant by id, and the other way round. Two ARNs must be the same.
    pub fn covers(&self, id: &str, version: &str) -> bool {
        let are_arns = is_arn(&self.id) && is_arn(id);
        let is_same = if are_arns { self.id == id } else { id_of(&self.id) == id_of(id) };
        is_same && (is_numbered(version) || (self.draft && version == DRAFT))
    }

    /// Returns the price of `units` in micro-USD, rounded up.
    pub fn cost_microusd(&self, units: GuardrailUnits) -> u64 {
        let usd_of_1000 =
            units.text_units as f64 * self.usd_per_1000_text_units + units.images as f64 * self.usd_per_1000_images;
        // Prices such as 0.15 are not exact in binary. See `Prices::cost_microusd`.
        (usd_of_1000 * 1_000.0 - 1e-6).ceil().max(0.0) as u64
    }
}

impl GuardrailUnits {
    /// Returns the units of a text: at least one.
    pub fn for_text(text: &str) -> Self {
        let text_units = text.chars().count().div_ceil(TEXT_UNIT_CHARS).max(1);
        Self { text_units: u64::try_from(text_units).unwrap_or(u64::MAX), images: 0 }
    }

    /// The smaller amounts of the two.
    pub fn at_most(self, units: Self) -> Self {
        Self { text_units: self.text_units.min(units.text_units), images: self.images.min(units.images) }
    }

    /// The sum.
    pub fn plus(self, units: Self) -> Self {
        Self {
            text_units: self.text_units.saturating_add(units.text_units),
            images: self.images.saturating_add(units.images),
        }
    }
}

fn is_arn(id: &str) -> bool {
    id.starts_with("arn:")
}

/// Returns the id in an ARN, or `id` itself.
fn id_of(id: &str) -> &str {
    match id.split_once(ARN_RESOURCE) {
        Some((_, id_in_arn)) if is_arn(id) => id_in_arn,
        _ => id,
    }
}

/// Returns whether `version` is the number of a version (Amazon Bedrock API Reference,
/// "ApplyGuardrail").
fn is_numbered(version: &str) -> bool {
    (1..=8).contains(&version.len()) && !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:bedrock:us-east-1:123456789012:guardrail/abc123";

    fn grant(id: &str, draft: bool) -> GuardrailGrant {
        GuardrailGrant { id: id.into(), draft, usd_per_1000_text_units: 0.15, usd_per_1000_images: 0.75 }
    }

    #[test]
    fn a_grant_covers_numbered_versions_of_its_guardrail_and_the_draft_only_if_listed() {
        for (listed, named) in [("abc123", "abc123"), ("abc123", ARN), (ARN, "abc123"), (ARN, ARN)] {
            assert!(grant(listed, false).covers(named, "1"), "{listed} {named}");
            assert!(!grant(listed, false).covers(named, "DRAFT"), "{listed} {named}");
            assert!(grant(listed, true).covers(named, "DRAFT"), "{listed} {named}");
        }
        let other_account = "arn:aws:bedrock:us-east-1:999999999999:guardrail/abc123";
        let others = ["abc12", "abc1234", "ABC123", "", " abc123", "x:guardrail/abc123", "arn:aws:s3:::abc123"];
        for other in others {
            assert!(!grant("abc123", true).covers(other, "1"), "{other}");
        }
        assert!(!grant(ARN, true).covers(other_account, "1"));
        for version in ["", "0", "01", "-1", "1.0", "draft", "Draft", " 1", "123456789", "*"] {
            assert!(!grant("abc123", true).covers("abc123", version), "{version}");
        }
    }

    #[test]
    fn a_text_unit_has_a_thousand_characters() {
        let units = |text: &str| GuardrailUnits::for_text(text).text_units;
        assert_eq!((units(""), units("a"), units(&"é".repeat(1_000)), units(&"日".repeat(1_001))), (1, 1, 1, 2));
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let cost = |text_units, images| grant("a", false).cost_microusd(GuardrailUnits { text_units, images });
        assert_eq!((cost(0, 0), cost(1, 0), cost(3, 0), cost(0, 1), cost(2, 2)), (0, 150, 450, 750, 1_800));
        let cheap = GuardrailGrant { usd_per_1000_text_units: 0.0001, ..grant("a", false) };
        assert_eq!(cheap.cost_microusd(GuardrailUnits { text_units: 11, images: 0 }), 2);
    }

    #[test]
    fn an_entry_that_is_no_guardrail_is_refused() {
        let check = |grant: GuardrailGrant| {
            let mut wrong = Vec::new();
            grant.check(&mut wrong);
            wrong
        };
        assert_eq!(check(grant("abc123", true)), Vec::<String>::new());
        assert_eq!(check(grant(ARN, false)), Vec::<String>::new());
        assert_eq!(
            check(GuardrailGrant { usd_per_1000_text_units: -1.0, usd_per_1000_images: f64::NAN, ..grant("*", false) }),
            [
                r#"guardrails.id: "*" must be the id or the ARN of a guardrail"#,
                "guardrails.usd_per_1000_text_units: -1 must be 0 to 1000000",
                "guardrails.usd_per_1000_images: NaN must be 0 to 1000000",
            ]
        );
    }
}
