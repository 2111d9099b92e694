//! Sending a request a second time after its connection broke.

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use tracing::debug;

use super::{Attempt, HttpClients};

/// An SDK client that does not retry, and its twin that connects for every request. Clones share
/// their connections.
#[derive(Debug, Clone)]
pub struct ResendingClient<C> {
    pooled: C,
    unpooled: C,
}

impl<C> ResendingClient<C> {
    /// Creates both clients. `client` creates one that uses the given HTTP client and never
    /// retries.
    pub fn new(http: &HttpClients, client: impl Fn(aws_smithy_http_client::pool::Client) -> C) -> Self {
        Self { pooled: client(http.pooled.clone()), unpooled: client(http.unpooled.clone()) }
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
        let first = Attempt::default();
        match request(&self.pooled, &first).await {
            Err(error) if may_resend(&first, &error) => {
                debug!("a connection broke, so its request is sent again");
                request(&self.unpooled, &Attempt::default()).await
            }
            result => result,
        }
    }
}
