use proptest::prelude::*;

use super::*;
use crate::{
    problem::{BedrockErrorCode, ExceededLimits, Kind, SkippedPools},
    quota::Limit,
};

const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);
const CALLED: ObstructionKind = ObstructionKind::Failure { is_called: true };
const OUT: ObstructionKind = ObstructionKind::Failure { is_called: false };

fn skipped(pool: &str, reason: &'static str, error: Option<&str>) -> SkippedPool {
    let error = error.and_then(BedrockErrorCode::parse);
    SkippedPool { pool: pool.to_owned(), reason, is_called: error.is_some(), error }
}

/// A problem of `kind` after all of `pools` did not take the request.
fn problem(kind: Kind, pools: Vec<SkippedPool>) -> Problem {
    let skipped = Some(Box::new(SkippedPools { pools, is_whole_ladder: true }));
    Problem { skipped, ..Problem::new(kind, "Bedrock: the model arn:secret failed.") }
}

fn text(problem: &Problem) -> (String, ObstructionKind) {
    let obstruction = Obstruction::from_problem(problem);
    let kind = obstruction.kind;
    (JobWait::after(None, obstruction, NOW).reasons_text(), kind)
}

#[test]
fn pools_that_all_fail_are_a_failure_and_anything_else_is_none() {
    let error = || skipped("od", "error", Some("InternalServerException"));
    let failed = |pools| text(&problem(Kind::Unavailable, pools));
    assert_eq!(failed(vec![error()]), ("od: InternalServerException".into(), CALLED));
    let mixed = vec![skipped("pt", "unreachable", None), error()];
    assert_eq!(failed(mixed), ("pt: unreachable, od: InternalServerException".into(), CALLED));
    assert_eq!(failed(vec![skipped("od", "silent", None)]), ("od: silent".into(), OUT));
    let denied = problem(Kind::Model, vec![skipped("od", "denied", Some("AccessDeniedException"))]);
    assert_eq!(text(&denied), ("od: AccessDeniedException".into(), CALLED));

    let is_full = Problem {
        refused_by: Some(RefusedBy::Pools),
        ..problem(Kind::Throttled, vec![skipped("pt", "tokens_per_minute", None), error()])
    };
    let expected = "pt: tokens_per_minute, od: InternalServerException";
    assert_eq!(text(&is_full), (expected.into(), ObstructionKind::Other), "it waits for room");
    let unknown = Problem { refused_by: Some(RefusedBy::Pools), ..Problem::new(Kind::Throttled, "Full.") };
    assert_eq!(text(&unknown), ("model_capacity".into(), ObstructionKind::Other));
    let limits = vec![Limit::TokensPerMinute];
    let exceeded = ExceededLimits { payer: "acme".into(), limits, limit_states: Vec::new() };
    let limited = Problem { refused_by: Some(RefusedBy::Limits(Box::new(exceeded))), ..unknown };
    assert_eq!(text(&limited), ("tokens_per_minute".into(), ObstructionKind::Other));
    let store = Problem { skipped: is_full.skipped, ..Problem::unavailable("ledger") };
    assert_eq!(text(&store), ("ledger".into(), ObstructionKind::Other), "the broker's own failure");
    let busy = Problem::new(Kind::Unavailable, "Too many concurrent writes.");
    assert_eq!(text(&busy), ("unavailable".into(), ObstructionKind::Other));
}

fn after(earlier: Option<&JobWait>, pools: Vec<SkippedPool>, now: UnixMs) -> JobWait {
    JobWait::after(earlier, Obstruction::from_problem(&problem(Kind::Unavailable, pools)), now)
}

#[test]
fn the_same_reasons_in_a_row_are_counted_and_keep_the_last_error() {
    let first = after(None, vec![skipped("od", "error", Some("InternalServerException"))], NOW);
    assert_eq!(first.text(), "od: InternalServerException, once");
    let passed_over = after(Some(&first), vec![skipped("od", "error", None)], NOW);
    assert_eq!((passed_over.text().as_str(), passed_over.failures()), ("od: InternalServerException, 2 times", 1));
    let renamed = after(Some(&passed_over), vec![skipped("od", "error", Some("ModelNotReadyException"))], NOW);
    assert_eq!(renamed.text(), "od: ModelNotReadyException, 3 times");
    let silent = after(Some(&renamed), vec![skipped("od", "silent", None)], NOW);
    assert_eq!((silent.text().as_str(), silent.failures()), ("od: silent, once", 2));
    assert_eq!(silent.failure_text(NOW + Millis::from_ms(8_001)), "No pool answered in 9 s and 2 tries; od: silent.");
}

proptest! {
    /// The time of the failures is the time since the first, without the time from a refusal for
    /// another reason to the next failure.
    #[test]
    fn time_counts_only_while_the_pools_fail(steps in proptest::collection::vec((0..3_u8, 1..1_000_000_u64), 1..40)) {
        let (mut now, mut wait, mut expected, mut failures) = (NOW, None::<JobWait>, None::<Millis>, 0);
        let mut was_failing = false;
        for (step, gap_ms) in steps {
            let gap = Millis::from_ms(gap_ms);
            now += gap;
            let kind = [CALLED, OUT, ObstructionKind::Other][usize::from(step)];
            expected = match expected {
                None => (kind != ObstructionKind::Other).then_some(Millis::ZERO),
                Some(time) => Some(if was_failing { time + gap } else { time }),
            };
            failures += u64::from(kind == CALLED);
            was_failing = kind != ObstructionKind::Other;
            let obstruction = Obstruction { reasons: vec![WaitReason::named("reason")], kind };
            let next = JobWait::after(wait.as_ref(), obstruction, now);
            prop_assert_eq!(next.failing_time(now), expected.unwrap_or_default());
            prop_assert_eq!((next.failures(), next.is_failing()), (failures, was_failing));
            let stored = serde_json::to_string(&next).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<JobWait>(&stored).expect("a wait"), &next);
            let never = FailureBounds { max_failures: 1, max_failing: Millis::ZERO };
            prop_assert_eq!(next.is_over(&never, now), was_failing);
            wait = Some(next);
        }
    }
}
