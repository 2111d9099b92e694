//! Instructions and allocated bytes of a request's data path: from the caller's body to the body
//! that is sent to the model, and from the model's answer to the caller's. Valgrind counts them,
//! the same on every machine. Its heap profile also shows the bytes written, which include every
//! copy. Needs `valgrind` and `gungraun-runner` of the same version as the library.

#[path = "exchange/mod.rs"]
mod exchange;

use std::hint::black_box;

use exchange::{Answered, Asked, Streamed};
use gungraun::{
    Callgrind, Dhat, DhatMetric, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use spillway::{dialect::Api, dialect::Rendered};

#[library_benchmark]
#[bench::openai_1_kb(Asked::text(Api::ChatCompletions, 1_000))]
#[bench::openai_100_kb(Asked::text(Api::ChatCompletions, 100_000))]
#[bench::openai_image_100_kb(Asked::image(Api::ChatCompletions, 100_000))]
#[bench::messages_1_kb(Asked::text(Api::Messages, 1_000))]
#[bench::messages_100_kb(Asked::text(Api::Messages, 100_000))]
#[bench::messages_image_100_kb(Asked::image(Api::Messages, 100_000))]
#[bench::messages_of_claude_1_kb(Asked::text(Api::Messages, 1_000).for_claude())]
#[bench::messages_of_claude_100_kb(Asked::text(Api::Messages, 100_000).for_claude())]
#[bench::messages_of_claude_image_100_kb(Asked::image(Api::Messages, 100_000).for_claude())]
#[bench::converse_1_kb(Asked::text(Api::Converse, 1_000))]
#[bench::converse_100_kb(Asked::text(Api::Converse, 100_000))]
#[bench::converse_image_100_kb(Asked::image(Api::Converse, 100_000))]
fn request(asked: Asked) -> (Asked, Vec<u8>) {
    let sent = black_box(&asked).send();
    (asked, sent)
}

#[library_benchmark]
#[bench::openai_1_kb(Answered::text(Api::ChatCompletions, 1_000))]
#[bench::openai_100_kb(Answered::text(Api::ChatCompletions, 100_000))]
#[bench::messages_1_kb(Answered::text(Api::Messages, 1_000))]
#[bench::messages_100_kb(Answered::text(Api::Messages, 100_000))]
#[bench::messages_of_claude_100_kb(Answered::of_claude(100_000))]
#[bench::converse_1_kb(Answered::text(Api::Converse, 1_000))]
#[bench::converse_100_kb(Answered::text(Api::Converse, 100_000))]
fn answer(answered: Answered) -> (Answered, Rendered) {
    let rendered = black_box(&answered).render();
    (answered, rendered)
}

#[library_benchmark]
#[bench::openai(Streamed::text(Api::ChatCompletions))]
#[bench::messages(Streamed::text(Api::Messages))]
#[bench::messages_of_claude(Streamed::of_claude())]
#[bench::converse(Streamed::text(Api::Converse))]
fn stream_1000_events(streamed: Streamed) -> (Streamed, usize) {
    let sent_bytes = black_box(&streamed).encode();
    (streamed, sent_bytes)
}

/// Maximum cost of the data path of a 100 KB body, one way. A body of 1 KB costs far less.
const MAX_INSTRUCTIONS: u64 = 4_000_000;
const MAX_ALLOCATED_BYTES: u64 = 1_000_000;

/// Maximum cost of a thousand events of a stream.
const MAX_INSTRUCTIONS_OF_A_STREAM: u64 = 30_000_000;
const MAX_ALLOCATED_BYTES_OF_A_STREAM: u64 = 3_000_000;

library_benchmark_group!(
    name = bodies,
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, MAX_INSTRUCTIONS)]))
        .tool(Dhat::with_args(["--num-callers=100"]).hard_limits([(DhatMetric::TotalBytes, MAX_ALLOCATED_BYTES)])),
    benchmarks = [request, answer]
);

library_benchmark_group!(
    name = streams,
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, MAX_INSTRUCTIONS_OF_A_STREAM)]))
        .tool(
            Dhat::with_args(["--num-callers=100"])
                .hard_limits([(DhatMetric::TotalBytes, MAX_ALLOCATED_BYTES_OF_A_STREAM)])
        ),
    benchmarks = [stream_1000_events]
);

main!(library_benchmark_groups = [bodies, streams]);
