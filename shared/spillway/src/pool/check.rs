//! Checks of models and pools before they are stored.

use std::collections::HashSet;

use super::{Model, Pool, ServiceTier};
use crate::{
    chat::Format,
    model_id::{base_model, region_of_arn},
    profile_scope::ProfileScope,
    quota,
    units::Millis,
    validate,
};

impl Model {
    /// Returns the errors in this entry, each as `field: what would be right`; empty if it is
    /// valid.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        validate::name("name", &self.name, 128, "._:-", &mut wrong);
        for alias in &self.aliases {
            validate::name("aliases", alias, MAX_MODEL_ID, "._:/-", &mut wrong);
        }
        validate::range("max_output_tokens", self.max_output_tokens, 1..=validate::MAX_AMOUNT, &mut wrong);
        validate::range("timeout_ms", self.timeout, MIN_TIMEOUT..=MAX_TIMEOUT, &mut wrong);
        if self.ladder.is_empty() {
            wrong.push("ladder: must have at least one pool".to_owned());
        }
        let mut names = HashSet::new();
        for (rung, pool) in self.ladder.iter().enumerate() {
            pool.check(&format!("ladder[{rung}]"), &mut wrong);
            if !names.insert(&pool.name) {
                wrong.push(format!("ladder[{rung}].name: {:?} is the name of an earlier pool too", pool.name));
            }
        }
        self.check_models(&mut wrong);
        self.check_rungs(&mut wrong);
        wrong
    }

    /// Checks that pools of another model are substitutes. The first listed pool that is none and
    /// whose id can be compared is the model.
    fn check_models(&self, wrong: &mut Vec<String>) {
        if !self.ladder.is_empty() && self.own_pools().next().is_none() {
            wrong.push("ladder: at least one pool must not be a substitute".to_owned());
        }
        let is_embeddings = |format| matches!(format, Some(Format::TitanEmbed | Format::CohereEmbed));
        let model = self.own_pools().find_map(|pool| base_model(&pool.model_id));
        for (rung, pool) in self.ladder.iter().enumerate() {
            if pool.substitute {
                if is_embeddings(self.format()) || is_embeddings(Format::for_model_id(&pool.model_id)) {
                    wrong.push(format!("ladder[{rung}].substitute: vectors of different models cannot be compared"));
                }
            } else if let (Some(model), Some(of_pool)) = (model, base_model(&pool.model_id))
                && model != of_pool
            {
                wrong.push(format!(
                    "ladder[{rung}].model_id: {of_pool} is another model than {model}; set substitute = true if it may \
                     answer in its place"
                ));
            }
        }
    }

    /// Checks that the pools of a rung are listed together, in ascending order, and that all or
    /// none of them are substitutes.
    fn check_rungs(&self, wrong: &mut Vec<String>) {
        for (place, pool) in self.ladder.iter().enumerate() {
            let Some(rung) = pool.rung else { continue };
            let earlier = || self.ladder[..place].iter().filter(|earlier| earlier.kind == pool.kind);
            if let Some(higher) = earlier().filter_map(|earlier| earlier.rung).find(|earlier| *earlier > rung) {
                wrong.push(format!(
                    "ladder[{place}].rung: {rung} is listed after {higher}; list the rungs in their order"
                ));
            }
            let is_shared = earlier().any(|earlier| earlier.rung == Some(rung));
            if is_shared && earlier().next_back().is_some_and(|last| last.rung != Some(rung)) {
                wrong.push(format!("ladder[{place}].rung: list the pools of rung {rung} one after the other"));
            }
            if earlier().any(|earlier| earlier.rung == Some(rung) && earlier.substitute != pool.substitute) {
                wrong
                    .push(format!("ladder[{place}].rung: a substitute cannot share rung {rung} with the model itself"));
            }
        }
    }
}

impl Pool {
    fn check(&self, field: &str, wrong: &mut Vec<String>) {
        validate::name(&format!("{field}.name"), &self.name, 64, "._-", wrong);
        validate::name(&format!("{field}.model_id"), &self.model_id, MAX_MODEL_ID, "._:/-", wrong);
        if let Some(region) = &self.region {
            validate::name(&format!("{field}.region"), region, 32, "-", wrong);
        }
        self.check_place(field, wrong);
        if let Some(ServiceTier::Unknown(tier)) = &self.service_tier {
            wrong.push(format!("{field}.service_tier: {tier:?} must be one of default, flex, priority, reserved"));
        }
        validate::limits(&format!("{field}.limits"), &self.limits, wrong);
        validate::burst(&format!("{field}.burst"), &self.burst, wrong);
        validate::range(format_args!("{field}.excess_percent"), self.excess_percent, 1..=100, wrong);
        validate::range(format_args!("{field}.burndown"), self.burndown, 1..=100, wrong);
        validate::prices(&format!("{field}.prices"), &self.prices, wrong);
        let timeouts = [("first_byte_timeout_ms", self.first_byte_timeout), ("idle_timeout_ms", self.idle_timeout)];
        for (name, timeout) in timeouts {
            validate::range(format_args!("{field}.{name}"), timeout, MIN_TIMEOUT..=MAX_TIMEOUT, wrong);
        }
    }

    /// Checks that region and scope agree with the model id.
    fn check_place(&self, field: &str, wrong: &mut Vec<String>) {
        if let (Some(region), Some(of_arn)) = (&self.region, region_of_arn(&self.model_id))
            && region != of_arn
        {
            wrong.push(format!("{field}.region: {region:?} must be {of_arn:?}, the region in the ARN of model_id"));
        }
        if let (Some(scope), Some(of_id)) = (&self.scope, ProfileScope::for_model_id(&self.model_id))
            && *scope != of_id
        {
            wrong.push(format!("{field}.scope: {scope} must be {of_id}, the scope of model_id; leave it out"));
        }
    }
}

/// Maximum length of the `modelId` of a Converse call (Amazon Bedrock API Reference, "Converse").
const MAX_MODEL_ID: usize = 2048;

/// Minimum timeout of a call.
const MIN_TIMEOUT: Millis = Millis::from_s(1);

/// Maximum timeout of a call: a Lambda function ends after 15 minutes.
pub const MAX_TIMEOUT: Millis = Millis::from_s(15 * 60);

const _: () = assert!(MAX_TIMEOUT.as_ms() <= quota::MAX_CALL.as_ms(), "longer calls would exceed the day's bound");
