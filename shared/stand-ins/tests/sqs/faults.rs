//! Injected delivery faults.

use aws_sdk_sqs::error::ProvideErrorMetadata;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use spillway_stand_ins::{
    faults::{Effect, Fault, Faults},
    sqs::{DeliveryFaults, Options},
};

use crate::support::{Sqs, bodies};

async fn start(faults: DeliveryFaults) -> (Sqs, String) {
    let sqs = Sqs::start_with(Options { faults, ..Options::default() }).await;
    let url = sqs.queue("jobs", &[]).await;
    (sqs, url)
}

#[tokio::test]
async fn only_the_second_receiver_can_delete_a_duplicated_message() {
    let (sqs, url) = start(DeliveryFaults { duplicate_permille: 1_000, ..DeliveryFaults::default() }).await;
    sqs.send(&url, "twice").await;
    let first = sqs.receive(&url).await.remove(0);
    let second = sqs.receive(&url).await.remove(0);
    assert_eq!(first.message_id(), second.message_id());
    sqs.delete(&url, &first).await;
    assert_eq!(sqs.counts(&url).await.0, "1");
    sqs.delete(&url, &second).await;
    assert_eq!(sqs.counts(&url).await.0, "0");
}

#[tokio::test]
async fn an_undeleted_message_becomes_visible_again_after_an_acknowledged_delete() {
    let (sqs, url) = start(DeliveryFaults { undeleted_permille: 1_000, ..DeliveryFaults::default() }).await;
    sqs.send(&url, "again").await;
    let held = sqs.receive(&url).await.remove(0);
    sqs.delete(&url, &held).await;
    assert!(sqs.receive(&url).await.is_empty());
    sqs.advance_s(30);
    assert_eq!(bodies(&sqs.receive(&url).await), ["again"]);
}

#[tokio::test]
async fn an_out_of_order_receive_takes_the_newest_message() {
    let (sqs, url) = start(DeliveryFaults { out_of_order_permille: 1_000, ..DeliveryFaults::default() }).await;
    for body in ["a", "b", "c"] {
        sqs.send_in_group(&url, body, "group").await;
    }
    assert_eq!(bodies(&sqs.receive(&url).await), ["c", "b", "a"]);
}

#[tokio::test]
async fn a_fault_strikes_at_about_its_permille_rate() {
    let (sqs, url) = start(DeliveryFaults { duplicate_permille: 200, seed: 7, ..DeliveryFaults::default() }).await;
    for index in 0..200 {
        sqs.send(&url, &index.to_string()).await;
    }
    let mut received = 0;
    loop {
        let messages = sqs.receive(&url).await;
        if messages.is_empty() {
            break;
        }
        received += messages.len();
    }
    // Each receive leaves the message visible with probability 0.2, so 250 receives are expected
    // for 200 messages.
    assert!((220..290).contains(&received), "{received}");
}

#[tokio::test]
async fn a_fault_strikes_the_requests_of_its_operation() {
    let request_faults = Faults::default();
    let sqs = Sqs::start_with(Options { request_faults: request_faults.clone(), ..Options::default() }).await;
    let url = sqs.queue("jobs", &[]).await;
    let send = || sqs.client.send_message().queue_url(&url).message_body("body").send();
    for (effect, code) in [(Effect::Throttle, "RequestThrottled"), (Effect::Error500, "InternalFailure")] {
        request_faults.inject(Fault { times: Some(1), ..Fault::on("SendMessage", effect) });
        assert_eq!(send().await.expect_err("struck").code(), Some(code));
    }
    let silent = r#"{"operation":"SendMessage","effect":"timeout_after","times":1}"#;
    let request = Request::post(format!("{}/_sim/faults", sqs.endpoint)).body(Full::new(Bytes::from(silent)));
    let http = Client::builder(TokioExecutor::new()).build_http();
    assert_eq!(http.request(request.expect("a request")).await.expect("an answer").status(), 204);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(500), send()).await.is_err(), "no answer");
    assert_eq!(sqs.counts(&url).await.0, "1", "the message was sent");
    send().await.expect("the fault is used up");
    assert_eq!(request_faults.stats().struck, 3);
}
