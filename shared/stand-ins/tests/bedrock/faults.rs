//! Injected faults: by model id, by settings and by the control route.

use crate::support::{Bedrock, drain, open, refused, soon, waits};

#[tokio::test]
async fn a_sim_model_id_selects_an_error() {
    let bedrock = Bedrock::start_with("[[pools]]\nmodel_id = \"other\"").await;
    for (model_id, code, status) in [
        ("sim.throttled", "ThrottlingException", 429),
        ("sim.errors", "InternalServerException", 500),
        ("sim.timeout", "ModelTimeoutException", 408),
        ("sim.refuses", "ValidationException", 400),
        ("sim.denied", "AccessDeniedException", 403),
    ] {
        let (actual_code, actual_status, message) = refused(bedrock.converse(model_id, "x").send().await);
        assert_eq!((actual_code.as_str(), actual_status), (code, status));
        assert!(!message.is_empty());
        let (actual_code, actual_status, _) = refused(bedrock.converse_stream(model_id, "x").send().await);
        assert_eq!((actual_code.as_str(), actual_status), (code, status));
    }
    let stats = bedrock.stats().await;
    assert_eq!((&stats["total"]["throttled"], &stats["total"]["failed"]), (&2.into(), &8.into()));
    bedrock.converse("sim.anything", "x").send().await.unwrap();
}

#[tokio::test]
async fn a_slow_model_has_a_high_latency() {
    let bedrock = Bedrock::start().await;
    let call = tokio::spawn(bedrock.converse("sim.slow", "[[output_tokens=100]]").send());
    bedrock.until("it runs", |stats| stats["total"]["in_flight"] == 1).await;
    bedrock.clock.advance(12_000);
    let answer = soon(call).await.unwrap().unwrap();
    assert!(answer.metrics().unwrap().latency_ms() >= 12_000);
}

#[tokio::test]
async fn settings_set_a_fault_of_a_pool() {
    let bedrock = Bedrock::start_with("[[pools]]\nmodel_id = \"m\"\nfault = { throttle = 0.5, times = 1 }").await;
    bedrock.converse("m", "x").send().await.unwrap();
    assert_eq!(refused(bedrock.converse("m", "x").send().await).0, "ThrottlingException");
    bedrock.converse("m", "x").send().await.unwrap();
    bedrock.converse("m", "x").send().await.unwrap();
}

#[tokio::test]
async fn a_fault_can_be_added_and_removed_at_run_time() {
    let bedrock = Bedrock::start().await;
    let (status, _) = bedrock.control("POST", "faults", r#"{"model_id":"m","status_5xx":503,"times":1}"#).await;
    assert_eq!(status, 200);
    bedrock.converse("other", "x").send().await.unwrap();
    let (code, status, _) = refused(bedrock.converse("m", "x").send().await);
    assert_eq!((code.as_str(), status), ("ServiceUnavailableException", 503));
    bedrock.converse("m", "x").send().await.unwrap();

    bedrock.control("POST", "faults", r#"{"unavailable":true}"#).await;
    assert_eq!(refused(bedrock.converse("m", "x").send().await).1, 503);
    assert_eq!(bedrock.control("GET", "faults", "").await.1["faults"][0]["unavailable"], true);
    bedrock.control("DELETE", "faults", "").await;
    bedrock.converse("m", "x").send().await.unwrap();
    for nonsense in ["{}", r#"{"throttle":2}"#, r#"{"explode":true}"#, "nonsense"] {
        assert_eq!(bedrock.control("POST", "faults", nonsense).await.0, 400);
    }
}

#[tokio::test]
async fn a_disconnect_closes_the_connection_without_an_answer() {
    let bedrock = Bedrock::start().await;
    bedrock.control("POST", "faults", r#"{"disconnect":true}"#).await;
    let error = bedrock.converse("m", "x").send().await.unwrap_err();
    assert!(error.raw_response().is_none());
    bedrock.control("DELETE", "faults", "").await;
    bedrock.converse("m", "x").send().await.unwrap();
    assert_eq!(bedrock.stats().await["total"]["failed"], 1);
}

#[tokio::test]
async fn a_fault_ends_a_stream_after_its_number_of_events() {
    let bedrock = Bedrock::start().await;
    for (fault, events) in
        [(r#"{"cut_stream_after_events":2,"times":1}"#, 2), (r#"{"throttle_mid_stream":1,"times":1}"#, 1)]
    {
        bedrock.control("POST", "faults", fault).await;
        let (events_read, error) = drain(&mut open(bedrock.converse_stream("m", "x")).await).await;
        assert_eq!((events_read.len(), error.is_some()), (events, true));
    }
    let (_, error) = drain(&mut open(bedrock.converse_stream("m", "x")).await).await;
    assert_eq!(error, None);
}

#[tokio::test]
async fn a_stall_delays_the_body() {
    let bedrock = Bedrock::start().await;
    bedrock.control("POST", "faults", r#"{"stall_ms":60000}"#).await;
    let mut call = tokio::spawn(bedrock.converse("m", "x").send());
    bedrock.until("it runs", |stats| stats["total"]["in_flight"] == 1).await;
    assert!(waits(&mut call).await);
    assert_eq!(bedrock.control("POST", "clock", r#"{"advance_ms":60000}"#).await.0, 200);
    soon(call).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_statistics_can_be_reset() {
    let bedrock = Bedrock::start().await;
    bedrock.converse("m", "x").send().await.unwrap();
    assert_eq!(bedrock.control("DELETE", "stats", "").await.0, 200);
    let stats = bedrock.stats().await;
    assert_eq!((&stats["total"]["requests"], &stats["models"]), (&0.into(), &serde_json::json!({})));
}
