//! Injected faults as the SDK reports them, and the controls over HTTP.

use aws_sdk_dynamodb::{error::SdkError, operation::put_item::PutItemError};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use spillway_stand_ins::{
    clock::Clock,
    dynamodb::Options,
    faults::{Effect, Fault, Stats, Units},
};

use crate::server::{Server, TABLE, get, patient_client, put};

/// Puts an item under a fault. Returns the error of the SDK and whether the item was written.
async fn put_under(effect: Effect) -> (SdkError<PutItemError>, bool) {
    let server = Server::start(Options::default()).await;
    let client = server.client_with_table().await;
    server.faults.inject(Fault { times: Some(1), ..Fault::on("PutItem", effect) });
    let error = put(&client, "it").await.unwrap_err();
    let written = get(&client, "it").await.is_some();
    put(&client, "it").await.expect("a fault with one time must not strike a second request");
    assert_eq!(server.faults.stats().struck, 1);
    server.stop().await;
    (error, written)
}

#[tokio::test]
async fn a_throttle_returns_its_typed_error_and_writes_nothing() {
    let (error, written) = put_under(Effect::Throttle).await;
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 400);
    assert!(matches!(error.into_service_error(), PutItemError::ThrottlingException(_)));
    assert!(!written);
}

#[tokio::test]
async fn a_500_returns_its_typed_error_and_writes_nothing() {
    let (error, written) = put_under(Effect::Error500).await;
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
    assert!(error.into_service_error().is_internal_server_error());
    assert!(!written);
}

#[tokio::test]
async fn a_write_without_a_response_is_executed() {
    let (error, written) = put_under(Effect::TimeoutAfter).await;
    assert!(matches!(error, SdkError::TimeoutError(_)), "{error:?}");
    assert!(written);
}

#[tokio::test]
async fn a_write_with_a_closed_connection_is_executed() {
    let (error, written) = put_under(Effect::CutAfter).await;
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    assert!(written);
}

#[tokio::test]
async fn a_delayed_request_is_answered_late() {
    let clock = Clock::default();
    let server = Server::start(Options { clock: clock.clone(), ..Options::default() }).await;
    server.client_with_table().await;
    let client = patient_client(&server.url);
    server.faults.inject(Fault::on("PutItem", Effect::DelayMs(3_600_000)));
    let late = tokio::spawn(async move { put(&client, "late").await });
    while server.faults.stats().struck == 0 {
        tokio::task::yield_now().await;
    }
    // The second request shows that there was time for a response.
    let client = patient_client(&server.url);
    assert_eq!(get(&client, "late").await, None);
    assert!(!late.is_finished());
    clock.advance(3_600_000);
    late.await.unwrap().unwrap();
    assert!(get(&client, "late").await.is_some());
    server.stop().await;
}

async fn control(server: &Server, method: &str, path: &str, body: &'static str) -> (StatusCode, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder().method(method).uri(format!("{}{path}", server.url));
    let response = client.request(request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()).await.unwrap();
    (response.status(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn the_proxy_is_controlled_over_http() {
    let server = Server::start(Options::default()).await;
    let client = server.client_with_table().await;
    let fault = r#"{"operation":"PutItem","effect":"throttle","skip":1}"#;
    assert_eq!(control(&server, "POST", "/_sim/faults", fault).await.0, StatusCode::NO_CONTENT);
    assert_eq!(control(&server, "POST", "/_sim/faults", r#"{"effect":"explode"}"#).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(control(&server, "GET", "/_sim/elsewhere", "").await.0, StatusCode::NOT_FOUND);
    let outcomes = [put(&client, "a").await.is_ok(), put(&client, "b").await.is_ok()];
    assert_eq!(outcomes, [true, false]);

    let (_, stats) = control(&server, "GET", "/_sim/stats", "").await;
    let operations = [("CreateTable".to_owned(), 1), ("PutItem".to_owned(), 2)].into();
    let units = [(TABLE.to_owned(), Units { read: 0.0, write: 1.0 })].into();
    let expected = Stats { operations, failed_conditions: 0, struck: 1, units };
    assert_eq!(serde_json::from_slice::<Stats>(&stats).unwrap(), expected);

    assert_eq!(control(&server, "DELETE", "/_sim/stats", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(server.faults.stats(), Stats::default());
    assert_eq!(control(&server, "DELETE", "/_sim/faults", "").await.0, StatusCode::NO_CONTENT);
    put(&client, "b").await.unwrap();
    server.stop().await;
}
