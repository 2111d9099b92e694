use proptest::prelude::*;

use super::*;

const START: UnixMs = UnixMs::from_ms(0);

/// A pool that accepts `capacity` calls at the same time and throttles all others.
struct SimulatedPool {
    capacity: u32,
    now: UnixMs,
    random: fastrand::Rng,
}

/// The result of some rounds.
#[derive(Default)]
struct Rounds {
    /// The sizes of the windows after each round.
    sizes: Vec<Vec<u32>>,
    calls: u64,
    throttled: u64,
}

impl SimulatedPool {
    fn new(capacity: u32, seed: u64) -> Self {
        Self { capacity, now: START, random: fastrand::Rng::with_seed(seed) }
    }

    /// In each round every window is filled, and the calls arrive in random order and end.
    fn run(&mut self, windows: &mut [ConcurrencyWindow], rounds: u32) -> Rounds {
        let mut result = Rounds::default();
        for _ in 0..rounds {
            let mut calls = Vec::new();
            for (index, window) in windows.iter_mut().enumerate() {
                while let Ok(started) = window.try_acquire(self.now) {
                    calls.push((index, started));
                }
            }
            self.random.shuffle(&mut calls);
            let capacity = self.capacity as usize;
            result.calls += calls.len() as u64;
            result.throttled += calls.len().saturating_sub(capacity) as u64;
            for (nth, (index, started)) in calls.into_iter().enumerate() {
                let outcome = if nth < capacity { CallOutcome::Answered } else { CallOutcome::Throttled };
                windows[index].release(started, outcome, self.now + Millis::from_ms(500));
            }
            result.sizes.push(windows.iter().map(ConcurrencyWindow::size).collect());
            self.now += Millis::from_s(1);
        }
        result
    }
}

#[test]
fn a_window_grows_by_one_for_each_window_of_answers() {
    let mut window = ConcurrencyWindow { is_slow_start: false, ..ConcurrencyWindow::new(100) };
    for size in 4..20 {
        assert_eq!(window.size(), size);
        let result = SimulatedPool::new(u32::MAX, 0).run(std::slice::from_mut(&mut window), 1);
        assert_eq!(result.sizes, [[size + 1]]);
    }
}

#[test]
fn a_window_doubles_until_the_first_throttle() {
    let sizes = SimulatedPool::new(20, 0).run(&mut [ConcurrencyWindow::new(100)], 8).sizes;
    assert_eq!(sizes[..2], [[8], [16]]);
    assert!((10..=21).contains(&sizes[7][0]), "{sizes:?}");
}

#[test]
fn a_window_that_is_not_filled_does_not_grow() {
    let mut window = ConcurrencyWindow::new(100);
    for _ in 0..100 {
        let started = window.try_acquire(START).expect("a permit");
        window.release(started, CallOutcome::Answered, START);
    }
    assert_eq!(window.size(), INITIAL_SIZE);
}

#[test]
fn throttles_of_the_same_window_halve_it_once() {
    let mut window = ConcurrencyWindow { size: 16, ..ConcurrencyWindow::new(100) };
    let calls: Vec<Started> = (0..16).map(|_| window.try_acquire(START).expect("a permit")).collect();
    for started in calls {
        window.release(started, CallOutcome::Throttled, START);
    }
    assert_eq!((window.size(), window.in_flight()), (8, 0));
    let until = UnixMs::from_ms(1_000);
    assert_eq!(window.try_acquire(UnixMs::from_ms(999)), Err(TryAcquireError::CoolingDown { until }));
    assert!(window.try_acquire(until).is_ok());
}

#[test]
fn the_cool_down_of_a_pool_that_only_throttles_doubles() {
    let mut window = ConcurrencyWindow::new(100);
    let mut now = START;
    let mut cool_downs_s = Vec::new();
    for _ in 0..8 {
        let started = window.try_acquire(now).expect("the cool-down has ended");
        window.release(started, CallOutcome::Throttled, now);
        cool_downs_s.push((window.cool_down_ends() - now).as_ms() / 1_000);
        now = window.cool_down_ends();
    }
    assert_eq!(cool_downs_s, [1, 2, 4, 8, 16, 32, 32, 32]);
    let started = window.try_acquire(now).expect("the cool-down has ended");
    window.release(started, CallOutcome::Answered, now);
    let started = window.try_acquire(now).expect("a permit");
    window.release(started, CallOutcome::Throttled, now);
    assert_eq!(window.cool_down_ends() - now, MIN_COOL_DOWN, "an answer ends the doubling");
}

#[test]
fn jobs_make_room_for_calls_whose_callers_wait() {
    let mut window = ConcurrencyWindow { size: 16, ..ConcurrencyWindow::new(100) };
    for _ in 0..5 {
        window.record_throttle(START);
    }
    assert_eq!((window.size(), window.cool_down_ends()), (8, UnixMs::from_ms(1_000)));
    window.record_throttle(UnixMs::from_ms(1_000));
    assert_eq!(window.size(), 4);
}

#[test]
fn a_refusal_by_the_limits_cools_a_pool_down_but_does_not_shrink_its_window() {
    let mut window = ConcurrencyWindow::new(100);
    let started = window.try_acquire(START).expect("a permit");
    window.release(started, CallOutcome::Refused { retry_after: Millis::from_s(86_400) }, START);
    assert_eq!((window.size(), window.cool_down_ends()), (INITIAL_SIZE, START + MAX_REFUSAL_COOL_DOWN));
}

proptest! {
    #[test]
    fn a_window_is_never_empty_nor_above_its_maximum(
        max_size in 0..400_u32,
        ends in proptest::collection::vec((0..5_u8, 0..3_000_u64), 1..400),
    ) {
        let mut window = ConcurrencyWindow::new(max_size);
        let (mut now, mut calls) = (START, Vec::new());
        for (kind, passed_ms) in ends {
            let passed = Millis::from_ms(passed_ms);
            now += passed;
            while let Ok(started) = window.try_acquire(now) {
                calls.push(started);
            }
            let outcome = match kind {
                0 => CallOutcome::Throttled,
                1 => CallOutcome::Ignored,
                2 => CallOutcome::Refused { retry_after: passed },
                _ => CallOutcome::Answered,
            };
            for started in calls.drain(..calls.len().div_ceil(2)) {
                window.release(started, outcome, now);
            }
            prop_assert_eq!(window.in_flight() as usize, calls.len());
            prop_assert!((1..=max_size.clamp(1, MAX_WINDOW_SIZE)).contains(&window.size()));
            prop_assert!(window.cool_down_ends() <= now + MIN_COOL_DOWN * (1 << MAX_DOUBLINGS));
        }
    }
}

proptest! {
    // Each case is some thousand rounds.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_window_finds_the_capacity_of_its_pool(capacity in 1..100_u32, seed: u64) {
        let mut windows = [ConcurrencyWindow::new(MAX_WINDOW_SIZE)];
        // Until the window has found the capacity for the first time.
        let mut pool = SimulatedPool::new(capacity, seed);
        pool.run(&mut windows, 2 * capacity + 60);
        let Rounds { sizes, calls, throttled } = pool.run(&mut windows, 4 * capacity + 200);
        for size in sizes.into_iter().flatten() {
            prop_assert!((capacity / 2..=capacity + 1).contains(&size), "{size} of {capacity}");
        }
        let bound = if capacity >= 10 { 0.03 } else { 0.35 };
        prop_assert!((throttled as f64) < bound * calls as f64, "{throttled} of {calls}");
    }

    #[test]
    fn two_processes_converge_to_equal_shares(capacity in 10..100_u32, head_start in 0..40_u32, seed: u64) {
        let mut windows = [ConcurrencyWindow::new(MAX_WINDOW_SIZE), ConcurrencyWindow::new(MAX_WINDOW_SIZE)];
        // The first process has had the pool for itself.
        let mut pool = SimulatedPool::new(capacity, seed);
        pool.run(&mut windows[..1], head_start);
        pool.run(&mut windows, 20 * capacity);
        let sizes = pool.run(&mut windows, 100 * capacity).sizes;
        let mean = |index: usize| sizes.iter().map(|sizes| f64::from(sizes[index])).sum::<f64>() / sizes.len() as f64;
        let (first, second) = (mean(0), mean(1));
        prop_assert!((0.66..1.5).contains(&(first / second)), "{first} and {second} of {capacity}");
        prop_assert!(first + second > 0.6 * f64::from(capacity), "{first} and {second} of {capacity}");
    }
}
