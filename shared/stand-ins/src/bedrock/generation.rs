//! Execution of an admitted call. It runs in a separate task, so a client that disconnects stops
//! neither the model nor the usage statistics.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use tokio::sync::{mpsc, oneshot};

use super::{
    call::{error_response, json_response},
    event_stream::exception_frame,
    faults::InjectedFault,
    model::Answer,
    problem::{Problem, TOO_MANY_TOKENS},
    response_body::{BodyChunk, ResponseBody},
    response_format::{CallMetadata, ResponseFormat},
    state::{AdmittedCall, State},
    stats::Outcome,
};

/// An admitted call and its answer.
pub(super) struct Generation {
    /// State of the simulator.
    pub state: Arc<State>,
    /// Reserved capacity.
    pub admitted: AdmittedCall,
    /// Format of the response.
    pub response_format: ResponseFormat,
    /// Answer of the model.
    pub answer: Answer,
    /// Data of the response other than the answer.
    pub metadata: CallMetadata,
    /// Fault that strikes the call.
    pub injected_fault: InjectedFault,
    /// Whether the client has disconnected.
    pub is_client_gone: bool,
}

type ChunkSender = mpsc::UnboundedSender<BodyChunk>;

impl Generation {
    /// Responds with the complete body when the last token is produced.
    pub async fn respond(mut self) -> Response<ResponseBody> {
        let (response_sender, response) = oneshot::channel();
        tokio::spawn(async move { self.run(response_sender).await });
        response.await.unwrap_or_else(|_| error_response(&Problem::internal(StatusCode::INTERNAL_SERVER_ERROR)))
    }

    async fn run(&mut self, mut response_sender: oneshot::Sender<Response<ResponseBody>>) {
        let timing = self.state.simulator.timing(&self.admitted.model_id);
        let begun_ms = self.admitted.begun_ms.saturating_add(self.injected_fault.silent_ms);
        let end_ms = begun_ms.saturating_add(timing.elapsed_ms(self.answer.output_tokens));
        self.wait(end_ms, response_sender.closed()).await;
        if self.injected_fault.stall_ms == 0 {
            self.finish(self.answer.output_tokens, Outcome::Succeeded);
            self.send_response(response_sender, ResponseBody::complete(self.complete_body()));
            return;
        }
        let (sender, body) = ResponseBody::streamed();
        self.send_response(response_sender, body);
        self.wait(end_ms.saturating_add(self.injected_fault.stall_ms), sender.closed()).await;
        self.finish(self.answer.output_tokens, Outcome::Succeeded);
        self.send(&sender, BodyChunk::Bytes(self.complete_body()));
    }

    fn send_response(&mut self, response_sender: oneshot::Sender<Response<ResponseBody>>, body: ResponseBody) {
        let mut response = json_response(body);
        response.headers_mut().extend(self.response_format.headers(&self.answer, &self.metadata));
        response.headers_mut().extend(self.response_format.echo_headers(&self.metadata));
        if response_sender.send(response).is_err() {
            self.record_client_gone();
        }
    }

    /// Responds immediately and streams the events as the tokens are produced.
    pub fn respond_with_stream(mut self) -> Response<ResponseBody> {
        let (sender, body) = ResponseBody::streamed();
        let mut response = Response::new(body);
        let event_stream = HeaderValue::from_static("application/vnd.amazon.eventstream");
        response.headers_mut().insert(CONTENT_TYPE, event_stream);
        if self.response_format != ResponseFormat::Converse {
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert("x-amzn-bedrock-content-type", json);
        }
        response.headers_mut().extend(self.response_format.echo_headers(&self.metadata));
        tokio::spawn(async move { self.stream_events(&sender).await });
        response
    }

    async fn stream_events(&mut self, sender: &ChunkSender) {
        let timing = self.state.simulator.timing(&self.admitted.model_id);
        let mut begun_ms = self.admitted.begun_ms.saturating_add(self.injected_fault.silent_ms);
        let mut stall_ms = self.injected_fault.stall_ms;
        let mut produced_tokens = 0;
        for (sent, event) in (0..).zip(self.response_format.events(&self.answer, &self.metadata)) {
            if self.apply_stream_fault(sent, produced_tokens, sender) {
                return;
            }
            self.wait(begun_ms.saturating_add(timing.elapsed_ms(produced_tokens)), sender.closed()).await;
            produced_tokens += event.tokens;
            self.send_frame(sender, event.frame());
            if event.tokens > 0 {
                begun_ms = begun_ms.saturating_add(std::mem::take(&mut stall_ms));
            }
        }
        self.wait(begun_ms.saturating_add(timing.elapsed_ms(produced_tokens)), sender.closed()).await;
        self.finish(self.answer.output_tokens, Outcome::Succeeded);
        self.send_frame(sender, self.response_format.last_event(&self.answer, &self.metadata).frame());
    }

    /// Ends the stream if its fault strikes after `sent` events. Returns whether it ended.
    fn apply_stream_fault(&mut self, sent: u64, produced_tokens: u64, sender: &ChunkSender) -> bool {
        let produced_tokens = produced_tokens.min(self.answer.output_tokens);
        if self.injected_fault.cut_after_events == Some(sent) {
            self.finish(produced_tokens, Outcome::Failed);
            self.send(sender, BodyChunk::Disconnect);
            return true;
        }
        if self.injected_fault.throttle_after_events == Some(sent) {
            self.finish(produced_tokens, Outcome::Throttled);
            self.send_frame(sender, exception_frame("throttlingException", TOO_MANY_TOKENS));
            return true;
        }
        false
    }

    /// Waits until `at_ms` and records whether the client disconnects before that time.
    async fn wait(&mut self, at_ms: u64, disconnected: impl Future<Output = ()>) {
        let clock = self.state.clock.clone();
        tokio::select! {
            biased;
            () = clock.sleep_until(at_ms) => return,
            () = disconnected, if !self.is_client_gone => self.record_client_gone(),
        }
        clock.sleep_until(at_ms).await;
    }

    /// Sends a frame. A frame that cannot be built closes the connection.
    fn send_frame(&mut self, sender: &ChunkSender, frame: anyhow::Result<Bytes>) {
        self.send(sender, frame.map_or(BodyChunk::Disconnect, BodyChunk::Bytes));
    }

    fn send(&mut self, sender: &ChunkSender, chunk: BodyChunk) {
        if sender.send(chunk).is_err() {
            self.record_client_gone();
        }
    }

    fn record_client_gone(&mut self) {
        if !std::mem::replace(&mut self.is_client_gone, true) {
            self.state
                .lock()
                .stats
                .count_vanished_client(&self.admitted.model_id, self.admitted.caller.tenant.as_deref());
        }
    }

    /// Settles the call before the last byte is sent, so that a client that has read the response
    /// finds it in the statistics.
    fn finish(&mut self, output_tokens: u64, outcome: Outcome) {
        let timing = self.state.simulator.timing(&self.admitted.model_id);
        self.metadata.latency_ms = self.state.clock.now_ms().saturating_sub(self.admitted.begun_ms);
        self.metadata.first_token_ms = timing.time_to_first_token_ms.min(self.metadata.latency_ms);
        self.state.finish(&self.admitted, output_tokens, outcome);
    }

    fn complete_body(&self) -> Bytes {
        self.response_format.body(&self.answer, &self.metadata).to_string().into()
    }
}
