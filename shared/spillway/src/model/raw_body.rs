//! Passes request and response bodies around the SDK's typed layer.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_bedrockruntime::{
    client::customize::CustomizableOperation,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut},
    },
    error::{ProvideErrorMetadata, SdkError},
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::dyn_dispatch_hint,
        orchestrator::{HttpRequest, HttpResponse},
    },
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt;

use super::{Failure, failure};
use crate::{connections::Attempt, stored_headers::StoredHeaders};

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// An SDK interceptor that takes the body of a successful reply: of a stream before the SDK reads
/// it, of a whole reply afterwards.
#[derive(Debug, Clone)]
pub(super) struct RawBody {
    is_stream: bool,
    taken: Arc<Mutex<Option<(StoredHeaders, SdkBody)>>>,
}

impl RawBody {
    pub(super) fn whole() -> Self {
        Self { is_stream: false, taken: Arc::default() }
    }

    pub(super) fn stream() -> Self {
        Self { is_stream: true, taken: Arc::default() }
    }

    /// Makes `operation` send `payload`, report to `attempt`, and leave the body of its reply here.
    pub(super) fn customize<T, E, B>(
        &self,
        operation: CustomizableOperation<T, E, B>,
        payload: &Bytes,
        attempt: &Attempt,
    ) -> CustomizableOperation<T, E, B> {
        operation.mutate_request(set_body(payload.clone())).mutate_request(attempt.observe()).interceptor(self.clone())
    }

    /// Returns a whole reply, which is in memory. `missing` is the failure if it has no body.
    ///
    /// The SDK may fail to parse a body that we can use: it knows fewer fields than Bedrock sends.
    pub(super) async fn whole_reply<T, E: ProvideErrorMetadata>(
        &self,
        result: Result<T, SdkError<E, HttpResponse>>,
        missing: &str,
    ) -> Result<(StoredHeaders, Bytes), Failure> {
        match (result, self.take_bytes().await) {
            (Err(error), _) if failure::is_refused(&error) => Err(failure::classify(&error)),
            (_, Some(reply)) => Ok(reply),
            (Err(error), None) => Err(failure::classify(&error)),
            (Ok(_), None) => Err(Failure::broken(missing)),
        }
    }

    /// Returns the headers of a streamed reply, and its events, which are still arriving.
    pub(super) fn streamed_reply<T, E: ProvideErrorMetadata>(
        &self,
        result: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<(StoredHeaders, SdkBody), Failure> {
        match (result, self.take()) {
            (Ok(_), Some(reply)) => Ok(reply),
            (Ok(_), None) => Err(Failure::broken("the model's reply was not an event stream")),
            (Err(error), _) => Err(failure::classify(&error)),
        }
    }

    async fn take_bytes(&self) -> Option<(StoredHeaders, Bytes)> {
        let (headers, body) = self.take()?;
        Some((headers, body.collect().await.ok()?.to_bytes()))
    }

    fn take(&self) -> Option<(StoredHeaders, SdkBody)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, response: &HttpResponse, body: SdkBody) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((relevant_headers(response), body));
    }
}

#[dyn_dispatch_hint]
impl Intercept for RawBody {
    fn name(&self) -> &'static str {
        "RawBody"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        // Bedrock answers some wrong paths with status 200 and a JSON error, so check the type.
        let is_event_stream = response.headers().get("content-type").is_some_and(|kind| kind.starts_with(EVENT_STREAM));
        if self.is_stream && response.status().is_success() && is_event_stream {
            let body = std::mem::replace(response.body_mut(), SdkBody::empty());
            self.put(response, body);
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if !self.is_stream
            && response.status().is_success()
            && let Some(body) = response.body().try_clone()
        {
            self.put(response, body);
        }
        Ok(())
    }
}

/// The headers that the caller of an API of Bedrock may want, by lower-case name.
fn relevant_headers(response: &HttpResponse) -> StoredHeaders {
    let is_relevant = |name: &str| name == "content-type" || name.starts_with("x-amzn-bedrock-");
    let headers = response.headers().iter().filter(|(name, _)| is_relevant(name));
    headers.collect()
}

/// Replaces the body of a request by `payload`, before the request is signed.
pub(super) fn set_body(payload: Bytes) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    move |request| {
        *request.body_mut() = SdkBody::from(payload.clone());
        request.headers_mut().insert("content-length", payload.len().to_string());
        request.headers_mut().insert("content-type", "application/json");
    }
}

/// Adds headers to a request before it is signed. Leaves out values that are not valid in a header.
pub(super) fn add_headers(headers: Vec<(&'static str, String)>) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    move |request| {
        for (name, value) in &headers {
            let _ = request.headers_mut().try_insert(*name, value.clone());
        }
    }
}
