//! Cases of the admission benchmarks: a tenant with all limits, under load.

use spillway::{
    quota::{Burst, Charge, Image, Limits, Policy, Reservation, Settled, Verdict, Write, explain, reserve, settle},
    store::ledger::{Compiled, compile},
    units::{Millis, UnixMs},
};

const NOW: UnixMs = UnixMs::from_ms(1_764_000_000_000);
const MINUTE: Millis = Millis::from_s(60);

pub struct Case {
    policy: Policy,
    charge: Charge,
    full: Image,
    held: Reservation,
}

impl Case {
    pub fn new() -> Self {
        let limits = Limits {
            requests_per_minute: Some(600),
            tokens_per_minute: Some(200_000),
            tokens_per_day: Some(20_000_000),
            in_flight: Some(40),
            microusd_per_month: Some(500_000_000),
        };
        let burst = Burst { requests_s: 5, tokens_s: 5, is_strict: false, carries_over: false };
        let policy = Policy { limits, version: 7, burst, share_percent: 90 };
        let charge =
            Charge { requests: 1, minute_tokens: 1_500, day_tokens: 5_500, cost_microusd: 19_500, ..Charge::ZERO };
        let mut full = Image::default();
        let mut now = NOW - MINUTE;
        let mut held = Reservation::new(&policy, charge, now, now + MINUTE);
        while full.apply(&reserve(&policy, &held, None)) {
            now += Millis::from_ms(1_700);
            held = Reservation::new(&policy, charge, now, now + MINUTE);
        }
        Self { policy, charge, full, held }
    }

    pub fn plan(&self) -> Write {
        reserve(&self.policy, &Reservation::new(&self.policy, self.charge, NOW, NOW + MINUTE), None)
    }

    pub fn plan_and_compile(&self) -> Compiled {
        compile(&self.plan())
    }

    pub fn explain_a_refusal(&self) -> Verdict {
        explain(&self.policy, &self.charge, &self.full, self.held.at)
    }

    pub fn settle_and_compile(&self) -> Compiled {
        let settled = Settled { charge: Charge { minute_tokens: 900, ..self.charge }, ..Settled::default() };
        compile(&settle(&self.held, &settled, self.held.at + Millis::from_s(3)))
    }

    pub fn compose_sixteen_and_compile(&self) -> Compiled {
        let small = Charge { requests: 1, minute_tokens: 10, day_tokens: 10, cost_microusd: 10, ..Charge::ZERO };
        let single = reserve(&self.policy, &Reservation::new(&self.policy, small, NOW, NOW + MINUTE), None);
        let sixteen = (1..16).fold(single.clone(), |write, _| write.then(&single).unwrap_or(write));
        compile(&sixteen)
    }
}
