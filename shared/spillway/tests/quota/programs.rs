//! Random programs violate no invariant.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::world::{program, run};

proptest! {
    #![proptest_config(crate::cases(3_000))]

    #[test]
    fn no_program_violates_an_invariant(program in program(60)) {
        let world = run(&program, None);
        prop_assert!(world.judge.broken.is_empty(), "{:?}", world.judge.broken);
    }
}

/// Programs that admit, refuse or reap nothing would prove nothing.
#[test]
fn programs_admit_refuse_and_reap() {
    let mut runner = TestRunner::deterministic();
    let (mut admitted, mut refused, mut reaped) = (0, 0, 0);
    for _ in 0..200 {
        let program = program(60).new_tree(&mut runner).expect("a program").current();
        let world = run(&program, None);
        admitted += world.admitted;
        refused += world.refused;
        reaped += world.reaped;
    }
    assert!(
        admitted > 1_000 && refused > 1_000 && reaped > 50,
        "{admitted} admitted, {refused} refused, {reaped} reaped"
    );
}
