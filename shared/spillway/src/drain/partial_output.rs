//! The stream of a job: collected as a whole, and where somebody follows it, stored piece by piece while it comes.

use bytes::{Bytes, BytesMut};
use tracing::warn;

use crate::{
    app::App,
    broker::{Delta, Deltas},
    dialect::Encoder,
    job::Job,
    problem::{Kind, Problem},
    store::jobs::MAX_ROW_BODY_BYTES,
};

/// How far apart two pieces are stored, in milliseconds.
const EVERY_MS: u64 = 1_000;

/// The pieces of one attempt.
pub struct Parts<'a> {
    app: &'a App,
    job: &'a Job,
    headers: Vec<(String, String)>,
    pending: BytesMut,
    /// The number of the next piece.
    next: u64,
    due_ms: u64,
    is_begun: bool,
    has_output: bool,
}

impl<'a> Parts<'a> {
    pub fn new(app: &'a App, job: &'a Job) -> Self {
        Self {
            app,
            job,
            headers: Vec::new(),
            pending: BytesMut::new(),
            next: 0,
            due_ms: 0,
            is_begun: false,
            has_output: false,
        }
    }

    /// Whether somebody may have read a piece.
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether the model has begun its answer.
    pub fn has_output(&self) -> bool {
        self.has_output
    }

    /// A stream with `headers`, as a client would have received it in the end. One that breaks is a failed attempt.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn collect(
        &mut self,
        mut encoder: Encoder,
        mut deltas: Deltas,
        headers: Vec<(String, String)>,
    ) -> Result<Bytes, Problem> {
        self.headers = headers;
        let mut body = BytesMut::new();
        loop {
            let delta = tokio::select! {
                biased;
                delta = deltas.recv() => delta,
                () = self.due() => {
                    self.store().await;
                    continue;
                }
            };
            match delta {
                Some(Delta::Event(event)) => {
                    self.has_output = true;
                    let bytes = encoder.event(&event);
                    body.extend_from_slice(&bytes);
                    self.add(&bytes).await;
                }
                Some(Delta::End(ended)) => {
                    ended?;
                    body.extend_from_slice(&encoder.finish());
                    return Ok(body.freeze());
                }
                None => return Err(Problem::new(Kind::Timeout, "The answer took longer than the model may take.")),
            }
        }
    }

    async fn add(&mut self, bytes: &[u8]) {
        if !self.job.is_followed() {
            return;
        }
        self.pending.extend_from_slice(bytes);
        if self.app.clock.now_ms() >= self.due_ms {
            self.store().await;
        }
    }

    /// Returns when something has waited long enough.
    async fn due(&self) {
        match self.pending.is_empty() {
            true => std::future::pending().await,
            false => self.app.clock.sleep_until(crate::units::UnixMs::from_ms(self.due_ms)).await,
        }
    }

    /// Stores what there is. What cannot be stored now is tried again with the next piece; at the latest, whoever follows
    /// finds it in the answer.
    async fn store(&mut self) {
        let now_ms = self.app.clock.now_ms();
        self.due_ms = now_ms + EVERY_MS;
        if !self.is_begun {
            self.is_begun = true;
            if let Err(error) = self.app.jobs.begin_stream(self.job, &self.headers, now_ms).await {
                self.is_begun = false;
                return warn!(job_id = self.job.id, %error, "the stream of a job was not begun");
            }
        }
        while !self.pending.is_empty() {
            let piece = Bytes::copy_from_slice(&self.pending[..self.pending.len().min(MAX_ROW_BODY_BYTES)]);
            if let Err(error) = self.app.jobs.put_part(self.job, self.next, &piece, now_ms).await {
                return warn!(job_id = self.job.id, %error, "a piece of a job's stream was not stored");
            }
            self.next += 1;
            drop(self.pending.split_to(piece.len()));
        }
    }
}
