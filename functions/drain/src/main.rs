//! The drain Lambda: runs the jobs in the messages of SQS, and sends lost messages again.

use spillway::lambda;

fn main() -> Result<(), lambda::Error> {
    lambda::run(lambda::serve_queue)
}
