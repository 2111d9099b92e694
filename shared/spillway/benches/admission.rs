//! Time of admission without I/O: planning the write of a reservation and compiling it to
//! DynamoDB's expressions, explaining the refusal by a full item, and composing sixteen writes into
//! one. `benches/admission_instructions.rs` counts instructions and allocations of the same cases.

#[path = "cases/mod.rs"]
mod cases;

use criterion::{Criterion, criterion_group, criterion_main};

fn admission(criterion: &mut Criterion) {
    let case = cases::Case::new();
    let mut group = criterion.benchmark_group("admission");
    group.bench_function("plan", |bencher| bencher.iter(|| case.plan()));
    group.bench_function("plan_and_compile", |bencher| bencher.iter(|| case.plan_and_compile()));
    group.bench_function("explain_a_refusal", |bencher| bencher.iter(|| case.explain_a_refusal()));
    group.bench_function("settle_and_compile", |bencher| bencher.iter(|| case.settle_and_compile()));
    group.bench_function("compose_sixteen_and_compile", |bencher| bencher.iter(|| case.compose_sixteen_and_compile()));
    group.finish();
}

criterion_group!(benches, admission);
criterion_main!(benches);
