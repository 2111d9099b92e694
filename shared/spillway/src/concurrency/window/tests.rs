use proptest::prelude::*;

use super::*;

/// A pool that takes `room` calls at once and throttles the others.
struct Shared {
    room: u32,
    now_ms: u64,
    random: fastrand::Rng,
}

/// What came of some rounds.
#[derive(Default)]
struct Rounds {
    /// The sizes of the windows after each.
    sizes: Vec<Vec<u32>>,
    calls: u64,
    throttled: u64,
}

impl Shared {
    fn new(room: u32, seed: u64) -> Self {
        Self { room, now_ms: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// In each round all windows are filled, the calls arrive in any order, and end.
    fn run(&mut self, windows: &mut [Window], rounds: u32) -> Rounds {
        let mut done = Rounds::default();
        for _ in 0..rounds {
            let mut entered = Vec::new();
            for (index, window) in windows.iter_mut().enumerate() {
                while let Ok(entry) = window.enter(self.now_ms) {
                    entered.push((index, entry));
                }
            }
            self.random.shuffle(&mut entered);
            let room = self.room as usize;
            done.calls += entered.len() as u64;
            done.throttled += entered.len().saturating_sub(room) as u64;
            for (nth, (index, entry)) in entered.into_iter().enumerate() {
                let end = if nth < room { End::Answered } else { End::Throttled };
                windows[index].leave(entry, end, self.now_ms + 500);
            }
            done.sizes.push(windows.iter().map(Window::size).collect());
            self.now_ms += 1_000;
        }
        done
    }
}

#[test]
fn a_window_grows_by_one_for_each_window_of_answers() {
    let mut window = Window { is_new: false, ..Window::new(100) };
    for size in 4..20 {
        assert_eq!(window.size(), size);
        let done = Shared::new(u32::MAX, 0).run(std::slice::from_mut(&mut window), 1);
        assert_eq!(done.sizes, [[size + 1]]);
    }
}

#[test]
fn a_window_doubles_until_it_is_throttled_for_the_first_time() {
    let sizes = Shared::new(20, 0).run(&mut [Window::new(100)], 8).sizes;
    assert_eq!(sizes[..2], [[8], [16]]);
    assert!((10..=21).contains(&sizes[7][0]), "{sizes:?}");
}

#[test]
fn a_window_that_is_not_filled_does_not_grow() {
    let mut window = Window::new(100);
    for _ in 0..100 {
        let entry = window.enter(0).expect("room");
        window.leave(entry, End::Answered, 0);
    }
    assert_eq!(window.size(), FIRST_SIZE);
}

#[test]
fn many_throttles_of_one_round_halve_a_window_once() {
    let mut window = Window { size: 16, ..Window::new(100) };
    let entered: Vec<Entry> = (0..16).map(|_| window.enter(0).expect("room")).collect();
    for entry in entered {
        window.leave(entry, End::Throttled, 0);
    }
    assert_eq!((window.size(), window.running()), (8, 0));
    assert_eq!(window.enter(999), Err(Blocked::Resting { until_ms: 1_000 }));
    assert!(window.enter(1_000).is_ok());
}

#[test]
fn a_pool_that_only_throttles_is_asked_ever_more_rarely() {
    let mut window = Window::new(100);
    let mut now_ms = 0;
    let mut rests = Vec::new();
    for _ in 0..8 {
        let entry = window.enter(now_ms).expect("rested");
        window.leave(entry, End::Throttled, now_ms);
        rests.push((window.rests_until_ms() - now_ms) / 1_000);
        now_ms = window.rests_until_ms();
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 32, 32, 32]);
    let entry = window.enter(now_ms).expect("rested");
    window.leave(entry, End::Answered, now_ms);
    let entry = window.enter(now_ms).expect("room");
    window.leave(entry, End::Throttled, now_ms);
    assert_eq!(window.rests_until_ms() - now_ms, 1_000, "an answer ends the doubling");
}

#[test]
fn jobs_make_room_for_those_who_wait() {
    let mut window = Window { size: 16, ..Window::new(100) };
    for _ in 0..5 {
        window.press(0);
    }
    assert_eq!((window.size(), window.rests_until_ms()), (8, 1_000));
    window.press(1_000);
    assert_eq!(window.size(), 4);
}

#[test]
fn a_refusal_by_the_limits_rests_a_pool_but_shrinks_no_window() {
    let mut window = Window::new(100);
    let entry = window.enter(0).expect("room");
    window.leave(entry, End::NoRoom { retry_after_ms: 86_400_000 }, 0);
    assert_eq!((window.size(), window.rests_until_ms()), (FIRST_SIZE, LONGEST_REFUSAL_MS));
}

#[test]
fn turns_are_as_far_apart_as_places_come_free() {
    let mut turns = Turns::default();
    for _ in 0..100 {
        turns.done(10_000);
    }
    let mut due = |now_ms| turns.next(2, now_ms);
    assert!(due(0).abs_diff(5_000) < 10 && due(0).abs_diff(10_000) < 20);
    assert!(due(60_000).abs_diff(65_000) < 10, "nobody waits for turns that have passed");
    for _ in 0..1_000 {
        assert!(due(60_000) <= 60_000 + FURTHEST_TURN_MS);
    }
}

proptest! {
    #[test]
    fn a_window_is_never_empty_nor_above_its_most(
        most in 0..400_u32,
        ends in proptest::collection::vec((0..5_u8, 0..3_000_u64), 1..400),
    ) {
        let mut window = Window::new(most);
        let (mut now_ms, mut running) = (0, Vec::new());
        for (what, passes_ms) in ends {
            now_ms += passes_ms;
            while let Ok(entry) = window.enter(now_ms) {
                running.push(entry);
            }
            let end = match what {
                0 => End::Throttled,
                1 => End::Other,
                2 => End::NoRoom { retry_after_ms: passes_ms },
                _ => End::Answered,
            };
            for entry in running.drain(..running.len().div_ceil(2)) {
                window.leave(entry, end, now_ms);
            }
            prop_assert_eq!(window.running() as usize, running.len());
            prop_assert!((1..=most.clamp(1, LARGEST_SIZE)).contains(&window.size()));
            prop_assert!(window.rests_until_ms() <= now_ms + (REST_MS << MOST_DOUBLINGS));
        }
    }
}

proptest! {
    // Each case is some thousand rounds.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_window_finds_the_room_of_its_pool(room in 1..100_u32, seed: u64) {
        let mut windows = [Window::new(LARGEST_SIZE)];
        // Until it has found the room for the first time.
        let mut pool = Shared::new(room, seed);
        pool.run(&mut windows, 2 * room + 60);
        let Rounds { sizes, calls, throttled } = pool.run(&mut windows, 4 * room + 200);
        for size in sizes.into_iter().flatten() {
            prop_assert!((room / 2..=room + 1).contains(&size), "{size} of {room}");
        }
        let bound = if room >= 10 { 0.03 } else { 0.35 };
        prop_assert!((throttled as f64) < bound * calls as f64, "{throttled} of {calls}");
    }

    #[test]
    fn two_processes_come_to_equal_shares(room in 10..100_u32, head_start in 0..40_u32, seed: u64) {
        let mut windows = [Window::new(LARGEST_SIZE), Window::new(LARGEST_SIZE)];
        // One of them has had the pool for itself.
        let mut pool = Shared::new(room, seed);
        pool.run(&mut windows[..1], head_start);
        pool.run(&mut windows, 20 * room);
        let sizes = pool.run(&mut windows, 100 * room).sizes;
        let mean = |index: usize| sizes.iter().map(|sizes| f64::from(sizes[index])).sum::<f64>() / sizes.len() as f64;
        let (one, other) = (mean(0), mean(1));
        prop_assert!((0.66..1.5).contains(&(one / other)), "{one} and {other} of {room}");
        prop_assert!(one + other > 0.6 * f64::from(room), "{one} and {other} of {room}");
    }
}
