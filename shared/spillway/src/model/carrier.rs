//! Carries bodies past the SDK's typed layer, in both directions.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_bedrockruntime::config::{
    ConfigBag, Intercept, RuntimeComponents,
    interceptors::{AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut},
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

/// Takes the body of a successful reply before (`stream`) or after (`whole`) the SDK has read it.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    is_stream: bool,
    taken: Arc<Mutex<Option<(Headers, SdkBody)>>>,
}

/// The headers of a reply that its caller may want, by lower-case name.
pub(super) type Headers = Vec<(String, String)>;

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

impl Carrier {
    pub(super) fn whole() -> Self {
        Self { is_stream: false, taken: Arc::default() }
    }

    pub(super) fn stream() -> Self {
        Self { is_stream: true, taken: Arc::default() }
    }

    /// The bytes of a whole reply, which are in memory.
    pub(super) async fn take_bytes(&self) -> Option<(Headers, Bytes)> {
        let (headers, body) = self.take()?;
        Some((headers, body.collect().await.ok()?.to_bytes()))
    }

    pub(super) fn take(&self) -> Option<(Headers, SdkBody)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, response: &HttpResponse, body: SdkBody) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((kept(response), body));
    }
}

#[dyn_dispatch_hint]
impl Intercept for Carrier {
    fn name(&self) -> &'static str {
        "Carrier"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        // Bedrock answers some wrong paths with status 200 and a JSON error: only an event stream is one.
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

fn kept(response: &HttpResponse) -> Headers {
    let is_kept = |name: &str| name == "content-type" || name.starts_with("x-amzn-bedrock-");
    let headers = response.headers().iter().filter(|(name, _)| is_kept(name));
    headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Replaces the body of a request by `payload`, before it is signed.
pub(super) fn body_of(payload: Vec<u8>) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    let payload = Bytes::from(payload);
    move |request| {
        *request.body_mut() = SdkBody::from(payload.clone());
        request.headers_mut().insert("content-length", payload.len().to_string());
        request.headers_mut().insert("content-type", "application/json");
    }
}

/// Adds headers to a request before it is signed. A value that cannot be one is left out.
pub(super) fn headers_of(headers: Vec<(&'static str, String)>) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    move |request| {
        for (name, value) in &headers {
            let _ = request.headers_mut().try_insert(*name, value.clone());
        }
    }
}
