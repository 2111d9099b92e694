use proptest::prelude::*;

use super::*;

/// Number of processes that serve the tenant.
const PROCESSES: usize = 4;

/// A value for each process.
type Processes<T> = [T; PROCESSES];

/// A step of one process, or of the world.
#[derive(Debug, Clone)]
enum Step {
    /// A process admits a job, unless it has one that is not stored yet.
    Admit { process: usize },
    /// A process stores the job that it has admitted.
    Store { process: usize },
    /// Up to this many jobs end.
    End { jobs: u64 },
    /// A process begins a count.
    BeginCount { process: usize },
    /// A process reads how many jobs wait.
    Count { process: usize },
    /// A process writes what it has counted.
    EndCount { process: usize },
    /// Time passes.
    Pass { s: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let process = 0..PROCESSES;
    let step = prop_oneof![
        12 => process.clone().prop_map(|process| Step::Admit { process }),
        12 => process.clone().prop_map(|process| Step::Store { process }),
        2 => (1_u64..20).prop_map(|jobs| Step::End { jobs }),
        1 => process.clone().prop_map(|process| Step::BeginCount { process }),
        2 => process.clone().prop_map(|process| Step::Count { process }),
        2 => process.prop_map(|process| Step::EndCount { process }),
        2 => prop_oneof![20 => 1_u64..15, 1 => Just(4_000)].prop_map(|s| Step::Pass { s }),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Jobs of one tenant.
struct Jobs {
    item: Image,
    now: UnixMs,
    max: u64,
    max_tab: u64,
    tabs: Processes<Tab>,
    admitted: Processes<bool>,
    counts: Processes<Option<(Image, Option<u64>)>>,
    waiting: u64,
}

impl Jobs {
    fn new(max: u64, max_tab: u64) -> Self {
        Self {
            item: Image::default(),
            now: UnixMs::from_ms(1_000_000_000),
            max,
            max_tab,
            tabs: Default::default(),
            admitted: Default::default(),
            counts: Default::default(),
            waiting: 0,
        }
    }

    /// Takes `sum`. If the last count is old, counts first, as a process does.
    fn write(&mut self, sum: u64) -> bool {
        let Some(write) = take(Allowance::WaitingJobs, sum, self.max, self.now) else { return false };
        let oldest = self.now - Allowance::WaitingJobs.max_count_age();
        if self.item.get(Attribute::CountedAt) <= oldest.as_ms() {
            self.item.apply(&begin_count(Allowance::WaitingJobs, self.now));
            let begun = self.item.clone();
            self.item.apply(&end_count(&begun, self.waiting));
        }
        self.item.apply(&write)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Admit { process } if !self.admitted[process] => {
                let sum = self.tabs[process].put(1, self.max_tab, self.now);
                self.admitted[process] = sum.is_none_or(|sum| self.write(sum));
                if sum.is_some() && self.admitted[process] {
                    self.tabs[process].clear();
                }
            }
            Step::Admit { .. } => {}
            Step::Store { process } => self.waiting += u64::from(std::mem::take(&mut self.admitted[process])),
            Step::End { jobs } => self.waiting = self.waiting.saturating_sub(jobs),
            Step::BeginCount { process } => {
                if self.item.apply(&begin_count(Allowance::WaitingJobs, self.now)) {
                    self.counts[process] = Some((self.item.clone(), None));
                }
            }
            Step::Count { process } => {
                if let Some((_, counted)) = &mut self.counts[process] {
                    *counted = Some(self.waiting);
                }
            }
            Step::EndCount { process } => {
                if let Some((begun, Some(counted))) = &self.counts[process] {
                    self.item.apply(&end_count(begun, *counted));
                    self.counts[process] = None;
                }
            }
            Step::Pass { s } => self.now += Millis::from_s(s),
        }
    }
}

proptest! {
    /// The overshoot that `docs/limitations.md` states: each process adds its tab, the request in
    /// progress included.
    #[test]
    fn no_more_jobs_wait_than_the_limit_and_one_tab_of_each_process(
        max in 1_u64..60, max_tab in 1_u64..8, steps in steps(),
    ) {
        let mut jobs = Jobs::new(max, max_tab);
        for step in &steps {
            jobs.take(step);
            prop_assert!(jobs.waiting <= max + PROCESSES as u64 * max_tab, "{} after {step:?}", jobs.waiting);
        }
    }

    /// A tenant is refused only while it really has reached the limit, or until the next count.
    #[test]
    fn after_a_count_there_is_room_for_what_is_missing(max in 1_u64..60, steps in steps()) {
        let mut jobs = Jobs::new(max, 1);
        steps.iter().for_each(|step| jobs.take(step));
        jobs.now += Allowance::WaitingJobs.count_pause();
        prop_assert!(jobs.item.apply(&begin_count(Allowance::WaitingJobs, jobs.now)));
        let begun = jobs.item.clone();
        prop_assert!(jobs.item.apply(&end_count(&begun, jobs.waiting)));
        prop_assert_eq!(jobs.item.get(Attribute::Held), jobs.waiting);
        let write = take(Allowance::WaitingJobs, 1, max, jobs.now).expect("one is not too large");
        prop_assert_eq!(jobs.item.apply(&write), jobs.waiting < max);
    }

    #[test]
    fn no_minute_has_more_requests_than_the_limit_and_one_tab_of_each_process(
        max in 1_u64..60,
        max_tab in 1_u64..8,
        requests in proptest::collection::vec((0..PROCESSES, 0_u64..4_000), 1..300),
    ) {
        let (mut item, mut now) = (Image::default(), UnixMs::from_ms(1_000_000_000));
        let mut tabs = Processes::<Tab>::default();
        let mut admitted_at = Vec::new();
        for (process, pause_ms) in requests {
            now += Millis::from_ms(pause_ms);
            match tabs[process].put(1, max_tab, now) {
                None => admitted_at.push(now),
                Some(sum) => {
                    let take = take(Allowance::OtherRequests, sum, max, now);
                    let begin = begin_count(Allowance::OtherRequests, now);
                    if take.is_some_and(|take| item.apply(&take) || (item.apply(&begin) && item.apply(&take))) {
                        tabs[process].clear();
                        admitted_at.push(now);
                    }
                }
            }
        }
        // A minute touches two minutes of the item.
        let most = 2 * max + PROCESSES as u64 * max_tab;
        for (index, first) in admitted_at.iter().enumerate() {
            let in_minute = admitted_at[index..].iter().filter(|at| **at - *first < Millis::from_s(60)).count();
            prop_assert!(in_minute as u64 <= most, "{in_minute} of {most}");
        }
    }
}

#[test]
fn a_tab_is_written_when_it_is_full_or_a_minute_old() {
    let at = |s: u64| UnixMs::from_ms(1_000_000_000) + Millis::from_s(s);
    let mut tab = Tab::default();
    assert_eq!((tab.put(1, 3, at(0)), tab.put(1, 3, at(1)), tab.put(1, 3, at(2))), (None, None, Some(3)));
    tab.clear();
    assert_eq!((tab.put(1, 3, at(10)), tab.put(1, 3, at(70))), (None, Some(2)));
    assert_eq!(Tab::default().put(1, 1, at(0)), Some(1), "a limit that is small is exact");
}

#[test]
fn a_refusal_is_repeated_until_its_time_for_the_same_amount_or_more() {
    let at = |s: u64| UnixMs::from_ms(1_000_000_000) + Millis::from_s(s);
    let mut tab = Tab::default();
    tab.refuse(10, at(5));
    assert_eq!(tab.refusal(10, at(2)), Some(Millis::from_s(3)));
    assert_eq!(tab.refusal(11, at(4)), Some(Millis::from_s(1)));
    assert_eq!((tab.refusal(9, at(2)), tab.refusal(10, at(5))), (None, None));
}

#[test]
fn an_amount_above_the_limit_is_never_taken() {
    let now = UnixMs::from_ms(1_000_000_000);
    for of in Allowance::ALL {
        let mut item = Image::default();
        assert!(item.apply(&begin_count(of, now)));
        assert_eq!(take(of, 11, 10, now), None);
        assert!(take(of, 10, 10, now).is_some_and(|write| item.admits(&write)));
    }
}

#[test]
fn the_tabs_of_a_hundred_processes_exceed_the_defaults_by_a_third_at_most() {
    for of in Allowance::ALL {
        let max = of.default_max();
        assert!(of.max_tab(max) * 100 * 3 <= max, "{}", of.name());
    }
}
