//! State that the simulator keeps between calls. Each change takes a short lock.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    Options,
    call_log::{Caller, Log},
    capacity::Capacity,
    config::Simulator,
    faults::FaultSet,
    problem::Problem,
    prompt::Prompt,
    prompt_cache::{InputUsage, PromptCache},
    stats::{Outcome, Stats, TokenUsage},
};
use crate::clock::Clock;

/// The simulator.
pub(super) struct State {
    /// Clock for all times and waits.
    pub clock: Clock,
    /// Settings.
    pub simulator: Simulator,
    shared: Mutex<SharedState>,
}

/// State behind the lock.
pub(super) struct SharedState {
    /// Faults that can strike.
    pub faults: FaultSet,
    /// Usage statistics.
    pub stats: Stats,
    /// Call log.
    pub log: Log,
    cache: PromptCache,
    capacity: HashMap<String, (Capacity, u64)>,
}

/// An admitted call, which must be finished.
#[derive(Debug)]
pub(super) struct AdmittedCall {
    /// Model id.
    pub model_id: String,
    /// Caller, from the metadata of the request.
    pub caller: Caller,
    /// Input tokens by cache use.
    pub input: InputUsage,
    /// Time of the admission, in milliseconds since 1970.
    pub begun_ms: u64,
    reserved_tokens: u64,
}

impl State {
    /// Creates the state.
    ///
    /// # Errors
    /// Returns an error if the fault of a pool is invalid.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let Options { clock, simulator } = options;
        let now_ms = clock.now_ms();
        let faults = FaultSet::new(&simulator).map_err(anyhow::Error::msg)?;
        let capacity = simulator
            .pools
            .iter()
            .map(|pool| (pool.model_id.clone(), (Capacity::new(pool, now_ms), pool.burndown)))
            .collect();
        let log = Log::new(simulator.call_log);
        let shared = SharedState { faults, stats: Stats::default(), log, cache: PromptCache::default(), capacity };
        Ok(Self { clock, simulator, shared: Mutex::new(shared) })
    }

    /// Locks the shared state.
    pub fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the maximum capacity that a call may need.
    ///
    /// # Errors
    /// Returns the throttling error of Bedrock if the capacity is exhausted.
    pub fn admit(&self, model_id: &str, prompt: &Prompt, max_tokens: u64) -> Result<AdmittedCall, Problem> {
        let now_ms = self.clock.now_ms();
        let mut shared = self.lock();
        let input = shared.cache.look_up(model_id, &prompt.parts, now_ms);
        let reserved_tokens = prompt.input_tokens().saturating_add(max_tokens);
        if let Some((capacity, _)) = shared.capacity.get_mut(model_id) {
            capacity.admit(reserved_tokens, now_ms).map_err(Problem::throttled)?;
        }
        shared.cache.remember(model_id, &input, now_ms);
        shared.stats.begin(model_id, prompt.caller.tenant.as_deref());
        Ok(AdmittedCall {
            model_id: model_id.to_owned(),
            caller: prompt.caller.clone(),
            input,
            begun_ms: now_ms,
            reserved_tokens,
        })
    }

    /// Counts a call that was refused before it started.
    pub fn refuse(&self, model_id: &str, caller: &Caller, outcome: Outcome) {
        let mut shared = self.lock();
        shared.stats.refuse(model_id, caller.tenant.as_deref(), outcome);
        shared.log.refuse(model_id, caller, outcome, self.clock.now_ms());
    }

    /// Settles an admitted call with the tokens that it produced.
    pub fn finish(&self, call: &AdmittedCall, output_tokens: u64, outcome: Outcome) {
        let mut shared = self.lock();
        let burndown = shared.capacity.get(&call.model_id).map_or(1, |(_, burndown)| *burndown);
        let quota_tokens = (call.input.input_tokens + call.input.cache_write_tokens)
            .saturating_add(output_tokens.saturating_mul(burndown));
        if let Some((capacity, _)) = shared.capacity.get_mut(&call.model_id) {
            capacity.settle(call.reserved_tokens, quota_tokens, self.clock.now_ms());
        }
        let used = TokenUsage {
            input_tokens: call.input.input_tokens,
            cache_read_input_tokens: call.input.cache_read_tokens,
            cache_write_input_tokens: call.input.cache_write_tokens,
            output_tokens,
            quota_tokens,
        };
        shared.stats.finish(&call.model_id, call.caller.tenant.as_deref(), call.begun_ms, &used, outcome);
        shared.log.finish(&call.model_id, &call.caller, (call.begun_ms, self.clock.now_ms()), &used, outcome);
    }
}
