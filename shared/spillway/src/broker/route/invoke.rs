//! The call of a pool.

use super::Response;
use crate::{
    app::App,
    broker::{ModelRequest, admit::Admitted},
    health::TrackedCall,
    model::{Failure, ModelCall},
    pool::Pool,
    units::UnixMs,
};

/// Calls `pool`. A stream is returned when its first event has arrived.
pub(super) async fn invoke(
    app: &App,
    request: &ModelRequest,
    admitted: &Admitted,
    pool: &Pool,
    tracked: &TrackedCall,
) -> Result<Response, Failure> {
    let call = ModelCall {
        pool,
        input: &request.chat.input,
        max_tokens: admitted.plan.max_tokens_set,
        tenant: &request.tenant.name,
        request_id: &request.request_id,
    };
    let response = async {
        if !request.chat.stream {
            return app.models.answer(&call).await.map(Response::Whole);
        }
        let mut stream = app.models.stream(&call).await?;
        stream.peek().await?;
        tracked.record_first_byte();
        Ok(Response::Stream(Box::new(stream)))
    };
    let first_byte_ends = match request.chat.stream {
        true => app.clock.now() + pool.first_byte_timeout,
        false => UnixMs::MAX,
    };
    tokio::select! {
        biased;
        () = app.clock.sleep_until(admitted.deadline.min(first_byte_ends)) => {
            // A pool that had less than its whole time may work.
            let had_whole_time = first_byte_ends <= admitted.deadline || request.has_whole_timeout(admitted.deadline);
            Err(if had_whole_time { Failure::silent() } else { Failure::timed_out() })
        }
        response = response => response,
    }
}
