//! Sending a request a second time after its connection broke.

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use tracing::debug;

use super::{Attempt, CallInProgress, HttpClients, traffic::Traffic};

/// An SDK client that does not retry, and its twin that connects for every request. Clones share
/// their connections.
#[derive(Debug, Clone)]
pub struct ResendingClient<C> {
    pooled: C,
    unpooled: C,
    traffic: Traffic,
}

impl<C> ResendingClient<C> {
    /// Creates both clients. `client` creates one that uses the given HTTP client and never
    /// retries.
    pub fn new(http: &HttpClients, client: impl Fn(aws_smithy_http_client::pool::Client) -> C) -> Self {
        Self {
            pooled: client(http.pooled.clone()),
            unpooled: client(http.unpooled.clone()),
            traffic: Traffic::new(http.clock.clone()),
        }
    }

    /// Returns the client that keeps its connections.
    pub fn pooled(&self) -> &C {
        &self.pooled
    }

    /// Sends a request. If it fails and `may_resend` says that a second attempt is safe, sends it
    /// once more on a new connection. `request` must be observed by the given [`Attempt`].
    ///
    /// # Errors
    /// Returns the error of the last attempt.
    pub async fn send<T, E, F>(
        &self,
        may_resend: impl Fn(&Attempt, &SdkError<E, HttpResponse>) -> bool,
        request: impl Fn(&C, &Attempt) -> F,
    ) -> Result<T, SdkError<E, HttpResponse>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        self.send_streamed(may_resend, request).await.0
    }

    /// Sends a request like [`send`](Self::send). The call is in progress until the returned value
    /// is dropped, so keep it until the body of the reply has been read.
    pub async fn send_streamed<T, E, F>(
        &self,
        may_resend: impl Fn(&Attempt, &SdkError<E, HttpResponse>) -> bool,
        request: impl Fn(&C, &Attempt) -> F,
    ) -> (Result<T, SdkError<E, HttpResponse>>, CallInProgress)
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let (in_progress, is_after_pause) = self.traffic.start();
        let first = Attempt::new(is_after_pause);
        let result = match request(&self.pooled, &first).await {
            Err(error) if may_resend(&first, &error) => {
                debug!("a connection broke, so its request is sent again");
                request(&self.unpooled, &Attempt::default()).await
            }
            result => result,
        };
        (result, in_progress)
    }
}
