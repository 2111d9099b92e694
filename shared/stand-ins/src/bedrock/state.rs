//! Everything the simulator remembers between calls, changed in short steps under one lock.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    Options,
    cache::{InputUse, PromptCache},
    capacity::Capacity,
    config::Simulator,
    faults::Faults,
    log::{Caller, Log},
    problem::Problem,
    prompt::Prompt,
    stats::{Ending, Stats, Use},
};
use crate::clock::Clock;

pub(super) struct State {
    pub clock: Clock,
    pub simulator: Simulator,
    memory: Mutex<Memory>,
}

pub(super) struct Memory {
    pub faults: Faults,
    pub stats: Stats,
    pub log: Log,
    cache: PromptCache,
    capacity: HashMap<String, (Capacity, u64)>,
}

/// A call that was admitted and must be finished.
#[derive(Debug)]
pub(super) struct Admitted {
    pub model_id: String,
    pub caller: Caller,
    pub input: InputUse,
    pub begun_ms: u64,
    reserved_tokens: u64,
}

impl State {
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let Options { clock, simulator } = options;
        let now_ms = clock.now_ms();
        let faults = Faults::new(&simulator).map_err(anyhow::Error::msg)?;
        let capacity = simulator
            .pools
            .iter()
            .map(|pool| (pool.model_id.clone(), (Capacity::new(pool, now_ms), pool.burndown)))
            .collect();
        let log = Log::new(simulator.call_log);
        let memory = Memory { faults, stats: Stats::default(), log, cache: PromptCache::default(), capacity };
        Ok(Self { clock, simulator, memory: Mutex::new(memory) })
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the capacity that a call may need at most, or says why there is none.
    pub fn admit(&self, model_id: &str, prompt: &Prompt, max_tokens: u64) -> Result<Admitted, Problem> {
        let now_ms = self.clock.now_ms();
        let mut memory = self.memory();
        let input = memory.cache.look_up(model_id, &prompt.parts, now_ms);
        let reserved_tokens = prompt.input_tokens().saturating_add(max_tokens);
        if let Some((capacity, _)) = memory.capacity.get_mut(model_id) {
            capacity.admit(reserved_tokens, now_ms).map_err(Problem::throttled)?;
        }
        memory.cache.remember(model_id, &input, now_ms);
        memory.stats.begin(model_id, prompt.caller.tenant.as_deref());
        Ok(Admitted {
            model_id: model_id.to_owned(),
            caller: prompt.caller.clone(),
            input,
            begun_ms: now_ms,
            reserved_tokens,
        })
    }

    /// Counts a call that was refused before it began.
    pub fn refuse(&self, model_id: &str, caller: &Caller, ending: Ending) {
        let mut memory = self.memory();
        memory.stats.refuse(model_id, caller.tenant.as_deref(), ending);
        memory.log.refuse(model_id, caller, ending, self.clock.now_ms());
    }

    /// Settles an admitted call with what it really produced.
    pub fn finish(&self, call: &Admitted, output_tokens: u64, ending: Ending) {
        let mut memory = self.memory();
        let burndown = memory.capacity.get(&call.model_id).map_or(1, |(_, burndown)| *burndown);
        let quota_tokens = (call.input.input_tokens + call.input.cache_write_tokens)
            .saturating_add(output_tokens.saturating_mul(burndown));
        if let Some((capacity, _)) = memory.capacity.get_mut(&call.model_id) {
            capacity.settle(call.reserved_tokens, quota_tokens, self.clock.now_ms());
        }
        let used = Use {
            input_tokens: call.input.input_tokens,
            cache_read_input_tokens: call.input.cache_read_tokens,
            cache_write_input_tokens: call.input.cache_write_tokens,
            output_tokens,
            quota_tokens,
        };
        memory.stats.finish(&call.model_id, call.caller.tenant.as_deref(), call.begun_ms, &used, ending);
        memory.log.finish(&call.model_id, &call.caller, (call.begun_ms, self.clock.now_ms()), &used, ending);
    }
}
