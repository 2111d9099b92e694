//! The drain Lambda: finishes the jobs that SQS hands over, and sends again those whose message was lost.

use spillway::lambda;

fn main() -> Result<(), lambda::Error> {
    lambda::run(lambda::serve_queue)
}
