//! An admitted call at work. It runs in a task of its own: a client that goes away stops neither model nor account.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use tokio::sync::{mpsc, oneshot};

use super::{
    body::{Body, Piece},
    call::{json_response, refusal},
    engine::Answer,
    events::exception_frame,
    faults::Disturbance,
    problem::{Problem, TOO_MANY_TOKENS},
    reply::{Receipt, Shape},
    state::{Admitted, State},
    stats::Ending,
};

/// Everything an admitted call needs to end.
pub(super) struct Run {
    pub state: Arc<State>,
    pub admitted: Admitted,
    pub shape: Shape,
    pub answer: Answer,
    pub receipt: Receipt,
    pub disturbance: Disturbance,
    /// Whether the client is known to have gone away.
    pub vanished: bool,
}

type Feed = mpsc::UnboundedSender<Piece>;

impl Run {
    /// Answers with one body once the last token exists.
    pub async fn whole(mut self) -> Response<Body> {
        let (done, response) = oneshot::channel();
        tokio::spawn(async move { self.produce(done).await });
        response.await.unwrap_or_else(|_| refusal(&Problem::internal(StatusCode::INTERNAL_SERVER_ERROR)))
    }

    async fn produce(&mut self, mut done: oneshot::Sender<Response<Body>>) {
        let pace = self.state.simulator.pace(&self.admitted.model_id);
        let end_ms = self.admitted.begun_ms.saturating_add(pace.elapsed_ms(self.answer.output_tokens));
        self.wait(end_ms, done.closed()).await;
        if self.disturbance.stall_ms == 0 {
            self.finish(self.answer.output_tokens, Ending::Succeeded);
            self.hand_over(done, Body::whole(self.whole_body()));
            return;
        }
        let (feed, body) = Body::fed();
        self.hand_over(done, body);
        self.wait(end_ms.saturating_add(self.disturbance.stall_ms), feed.closed()).await;
        self.finish(self.answer.output_tokens, Ending::Succeeded);
        self.send(&feed, Piece::Bytes(self.whole_body()));
    }

    fn hand_over(&mut self, done: oneshot::Sender<Response<Body>>, body: Body) {
        let mut response = json_response(body);
        response.headers_mut().extend(self.shape.headers(&self.answer, &self.receipt));
        response.headers_mut().extend(self.shape.echo_headers(&self.receipt));
        if done.send(response).is_err() {
            self.vanish();
        }
    }

    /// Answers at once and feeds the events as the tokens come.
    pub fn stream(mut self) -> Response<Body> {
        let (feed, body) = Body::fed();
        let mut response = Response::new(body);
        let event_stream = HeaderValue::from_static("application/vnd.amazon.eventstream");
        response.headers_mut().insert(CONTENT_TYPE, event_stream);
        if self.shape != Shape::Converse {
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert("x-amzn-bedrock-content-type", json);
        }
        response.headers_mut().extend(self.shape.echo_headers(&self.receipt));
        tokio::spawn(async move { self.feed(&feed).await });
        response
    }

    async fn feed(&mut self, feed: &Feed) {
        let pace = self.state.simulator.pace(&self.admitted.model_id);
        let mut begun_ms = self.admitted.begun_ms;
        let mut stall_ms = self.disturbance.stall_ms;
        let mut produced_tokens = 0;
        for (sent, event) in (0..).zip(self.shape.events(&self.answer, &self.receipt)) {
            if self.breaks_off(sent, produced_tokens, feed) {
                return;
            }
            self.wait(begun_ms.saturating_add(pace.elapsed_ms(produced_tokens)), feed.closed()).await;
            produced_tokens += event.tokens;
            self.send_frame(feed, event.frame());
            if event.tokens > 0 {
                begun_ms = begun_ms.saturating_add(std::mem::take(&mut stall_ms));
            }
        }
        self.wait(begun_ms.saturating_add(pace.elapsed_ms(produced_tokens)), feed.closed()).await;
        self.finish(self.answer.output_tokens, Ending::Succeeded);
        self.send_frame(feed, self.shape.last_event(&self.answer, &self.receipt).frame());
    }

    /// Ends a stream that was told to fail after `sent` events.
    fn breaks_off(&mut self, sent: u64, produced_tokens: u64, feed: &Feed) -> bool {
        let produced_tokens = produced_tokens.min(self.answer.output_tokens);
        if self.disturbance.cut_after_events == Some(sent) {
            self.finish(produced_tokens, Ending::Failed);
            self.send(feed, Piece::Cut);
            return true;
        }
        if self.disturbance.throttle_after_events == Some(sent) {
            self.finish(produced_tokens, Ending::Throttled);
            self.send_frame(feed, exception_frame("throttlingException", TOO_MANY_TOKENS));
            return true;
        }
        false
    }

    /// Waits for the moment, and takes note if the client goes away meanwhile.
    async fn wait(&mut self, at_ms: u64, gone: impl Future<Output = ()>) {
        let clock = self.state.clock.clone();
        tokio::select! {
            biased;
            () = clock.sleep_until(at_ms) => return,
            () = gone, if !self.vanished => self.vanish(),
        }
        clock.sleep_until(at_ms).await;
    }

    /// A frame that cannot be built breaks the connection rather than being left out.
    fn send_frame(&mut self, feed: &Feed, frame: anyhow::Result<Bytes>) {
        self.send(feed, frame.map_or(Piece::Cut, Piece::Bytes));
    }

    fn send(&mut self, feed: &Feed, piece: Piece) {
        if feed.send(piece).is_err() {
            self.vanish();
        }
    }

    fn vanish(&mut self) {
        if !std::mem::replace(&mut self.vanished, true) {
            self.state.memory().stats.vanish(&self.admitted.model_id, self.admitted.caller.tenant.as_deref());
        }
    }

    /// Settles before the last byte is sent, so that whoever has read the answer finds it in the account.
    fn finish(&mut self, output_tokens: u64, ending: Ending) {
        let pace = self.state.simulator.pace(&self.admitted.model_id);
        self.receipt.latency_ms = self.state.clock.now_ms().saturating_sub(self.admitted.begun_ms);
        self.receipt.first_token_ms = pace.time_to_first_token_ms.min(self.receipt.latency_ms);
        self.state.finish(&self.admitted, output_tokens, ending);
    }

    fn whole_body(&self) -> Bytes {
        self.shape.body(&self.answer, &self.receipt).to_string().into()
    }
}
