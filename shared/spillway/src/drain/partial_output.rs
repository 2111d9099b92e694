//! Partial output: collects the stream of a job, and stores it chunk by chunk while it arrives if a
//! reader follows it.

use bytes::{Bytes, BytesMut};
use tracing::warn;

use crate::{
    app::App,
    broker::{Delta, Deltas},
    dialect::Encoder,
    job::Job,
    problem::{Kind, Problem},
    store::jobs::MAX_ROW_BODY_BYTES,
    stored_headers::StoredHeaders,
    units::{Millis, UnixMs},
};

/// Minimum interval between two stored chunks.
const STORE_INTERVAL: Millis = Millis::from_s(1);

/// The partial output of one attempt.
pub struct PartialOutput<'a> {
    app: &'a App,
    job: &'a Job,
    headers: StoredHeaders,
    /// Bytes that are not stored yet.
    pending: BytesMut,
    /// The number of the next chunk.
    next_chunk: u64,
    next_store: UnixMs,
    is_started: bool,
    has_output: bool,
}

impl<'a> PartialOutput<'a> {
    pub fn new(app: &'a App, job: &'a Job) -> Self {
        Self {
            app,
            job,
            headers: StoredHeaders::default(),
            pending: BytesMut::new(),
            next_chunk: 0,
            next_store: UnixMs::default(),
            is_started: false,
            has_output: false,
        }
    }

    /// Whether the model has produced output.
    pub fn has_output(&self) -> bool {
        self.has_output
    }

    /// Returns the body of a stream with `headers`, as a client would have received it.
    ///
    /// # Errors
    /// Returns an error if the stream breaks off.
    pub async fn collect(
        &mut self,
        mut encoder: Encoder,
        mut deltas: Deltas,
        headers: StoredHeaders,
    ) -> Result<Bytes, Problem> {
        self.headers = headers;
        let mut body = BytesMut::new();
        loop {
            let delta = tokio::select! {
                biased;
                delta = deltas.recv() => delta,
                () = self.store_due() => {
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
                Some(Delta::End(end)) => {
                    end?;
                    body.extend_from_slice(&encoder.finish());
                    return Ok(body.freeze());
                }
                None => return Err(Problem::new(Kind::Timeout, "The answer did not end before the model's timeout.")),
            }
        }
    }

    async fn add(&mut self, bytes: &[u8]) {
        if !self.job.is_followed() {
            return;
        }
        self.pending.extend_from_slice(bytes);
        if self.app.clock.now() >= self.next_store {
            self.store().await;
        }
    }

    /// Returns when pending bytes are due to be stored.
    async fn store_due(&self) {
        match self.pending.is_empty() {
            true => std::future::pending().await,
            false => self.app.clock.sleep_until(self.next_store).await,
        }
    }

    /// Stores the pending bytes. If that fails, they are stored with the next chunk. At the latest,
    /// a reader finds them in the complete answer.
    async fn store(&mut self) {
        let now = self.app.clock.now();
        self.next_store = now + STORE_INTERVAL;
        if !self.is_started {
            self.is_started = true;
            if let Err(error) = self.app.jobs.begin_stream(self.job, &self.headers, now).await {
                self.is_started = false;
                return warn!(job_id = self.job.id, %error, "failed to store the headers of a job's stream");
            }
        }
        while !self.pending.is_empty() {
            let chunk = Bytes::copy_from_slice(&self.pending[..self.pending.len().min(MAX_ROW_BODY_BYTES)]);
            if let Err(error) = self.app.jobs.put_chunk(self.job, self.next_chunk, &chunk, now).await {
                return warn!(job_id = self.job.id, %error, "failed to store a chunk of a job's stream");
            }
            self.next_chunk += 1;
            drop(self.pending.split_to(chunk.len()));
        }
    }
}
