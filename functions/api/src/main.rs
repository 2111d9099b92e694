//! The API Lambda: answers HTTP events from API Gateway or a Function URL.

use spillway::lambda;

fn main() -> Result<(), lambda::Error> {
    lambda::run(lambda::serve_http)
}
