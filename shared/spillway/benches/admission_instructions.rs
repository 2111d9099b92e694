//! Instructions and allocations of admission without I/O, counted by Valgrind. The counts are the
//! same on every machine and under any load. Needs `valgrind` and `gungraun-runner` of the same
//! version as the library.

#[path = "cases/mod.rs"]
mod cases;

use std::hint::black_box;

use cases::Case;
use gungraun::{Callgrind, Dhat, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use spillway::{
    quota::{Verdict, Write},
    store::ledger::Compiled,
};

#[library_benchmark(setup = Case::new)]
#[bench::one()]
fn plan(case: Case) -> (Case, Write) {
    let planned = black_box(&case).plan();
    (case, planned)
}

/// Maximum instructions of one admission: 50 µs of a core that retires three instructions per
/// nanosecond.
const MAX_INSTRUCTIONS: u64 = 150_000;

#[library_benchmark(
    setup = Case::new,
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, MAX_INSTRUCTIONS)]))
)]
#[bench::one()]
fn plan_and_compile(case: Case) -> (Case, Compiled) {
    let compiled = black_box(&case).plan_and_compile();
    (case, compiled)
}

#[library_benchmark(setup = Case::new)]
#[bench::one()]
fn explain_a_refusal(case: Case) -> (Case, Verdict) {
    let verdict = black_box(&case).explain_a_refusal();
    (case, verdict)
}

#[library_benchmark(setup = Case::new)]
#[bench::one()]
fn settle_and_compile(case: Case) -> (Case, Compiled) {
    let compiled = black_box(&case).settle_and_compile();
    (case, compiled)
}

#[library_benchmark(setup = Case::new)]
#[bench::one()]
fn compose_sixteen_and_compile(case: Case) -> (Case, Compiled) {
    let compiled = black_box(&case).compose_sixteen_and_compile();
    (case, compiled)
}

library_benchmark_group!(
    name = admission,
    benchmarks = [plan, plan_and_compile, explain_a_refusal, settle_and_compile, compose_sixteen_and_compile]
);

main!(config = LibraryBenchmarkConfig::default().tool(Dhat::default()), library_benchmark_groups = admission);
