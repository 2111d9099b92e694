//! The same programs on mutants of the ledger: the judge detects each mutant, for the right reason.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::world::{Invariant, Mutant, Program, program, run};

/// Enough for the rarest mutant. Most are detected within a hundred cases.
const CASES: u32 = 2_000;

/// Returns why a program violated an invariant, if one did: the `expected` invariant, or any if
/// that is `None`.
fn first_failure(mutant: Option<Mutant>, expected: Option<Invariant>) -> Option<String> {
    let config = Config { failure_persistence: None, max_shrink_iters: 0, ..crate::cases(CASES) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::XorShift));
    let judge = |program: Program| {
        let broken = run(&program, mutant).judge.broken;
        match broken.iter().find(|(invariant, _)| expected.is_none_or(|expected| expected == **invariant)) {
            Some((invariant, why)) => Err(TestCaseError::fail(format!("{invariant}: {why}"))),
            None => Ok(()),
        }
    };
    match runner.run(&program(60), judge) {
        Ok(()) => None,
        Err(TestError::Fail(reason, _)) => Some(reason.message().to_owned()),
        Err(TestError::Abort(reason)) => panic!("the harness aborted: {reason}"),
    }
}

#[test]
fn every_mutant_violates_the_expected_invariant() {
    for (mutant, expected) in Mutant::ALL {
        let failure = first_failure(Some(mutant), Some(expected));
        let failure = failure.unwrap_or_else(|| panic!("{mutant:?} did not break {expected:?}"));
        assert!(failure.starts_with(&format!("{expected}: ")), "{mutant:?} broke {failure}");
        println!("{mutant:?} {failure}");
    }
}

#[test]
fn the_same_programs_violate_no_invariant_without_a_mutant() {
    assert_eq!(first_failure(None, None), None);
}
