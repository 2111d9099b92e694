//! Retries by an AWS SDK after a timeout.

use std::time::Duration;

use aws_sdk_bedrockruntime::{
    Client,
    config::{Config, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    types::InferenceConfiguration,
};

use super::{LIMITS, Observed, SILENT, start};
use crate::support::{
    Deployment,
    answer::{aws_message, within},
    key,
};

/// Number of attempts of a client. A busy machine may need more than two.
const MAX_ATTEMPTS: u32 = 20;

/// Returns a client that times out after `attempt_timeout` and retries.
fn retrying_client(deployment: &Deployment, attempt_timeout: Duration) -> Client {
    let credentials = Credentials::new("spillway", "spillway", Some(key("t")), None, "test");
    let retries = RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS);
    let retries = retries.with_initial_backoff(Duration::from_millis(10)).with_max_backoff(Duration::from_millis(10));
    let config = Config::builder()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .retry_config(retries)
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt_timeout).build())
        .endpoint_url(&deployment.world.url);
    Client::from_conf(config.build())
}

const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(700);

impl Observed {
    /// Lets the model finish after the first attempt has timed out.
    async fn finish_for_the_second_attempt(&self) {
        self.simulator_when(|account| account["total"]["in_flight"] == 1).await;
        tokio::time::sleep(ATTEMPT_TIMEOUT + ATTEMPT_TIMEOUT / 2).await;
        self.finish();
    }

    /// Fails unless one attempt was answered and its answer was replayed to the last one. Attempts
    /// that their client gave up in between end as failed.
    fn assert_the_last_attempt_was_replayed(&self) {
        let ends = self.outcomes();
        let ends: Vec<_> = ends.iter().filter(|outcome| *outcome != "failed").collect();
        assert_eq!(ends, ["answered", "replayed"]);
    }
}

fn limit() -> InferenceConfiguration {
    InferenceConfiguration::builder().max_tokens(500).build()
}

#[tokio::test]
async fn an_aws_sdk_that_times_out_and_retries_pays_once() {
    let observed = start(LIMITS, SILENT).await;
    let call = retrying_client(&observed, ATTEMPT_TIMEOUT)
        .converse()
        .model_id("m")
        .messages(aws_message("[[output_tokens=40]]"));
    let sent = tokio::spawn(call.inference_config(limit()).send());
    observed.finish_for_the_second_attempt().await;
    let answer = within(sent).await.expect("no panic").expect("an answer");
    assert_eq!(answer.usage().expect("usage").output_tokens(), 40);
    assert_eq!(observed.calls().await, (1, 0));
    observed.assert_charged_once("t").await;
    observed.assert_the_last_attempt_was_replayed();
}

#[tokio::test]
async fn an_aws_sdk_that_times_out_on_a_stream_and_retries_pays_once() {
    let observed = start(LIMITS, SILENT).await;
    let client = retrying_client(&observed, ATTEMPT_TIMEOUT);
    let call = client.converse_stream().model_id("m").messages(aws_message("[[output_tokens=40]]"));
    let sent = tokio::spawn(call.inference_config(limit()).send());
    observed.finish_for_the_second_attempt().await;
    let mut stream = within(sent).await.expect("no panic").expect("a stream").stream;
    let mut output_tokens = None;
    while let Some(event) = within(stream.recv()).await.expect("an event") {
        output_tokens =
            event.as_metadata().ok().and_then(|metadata| Some(metadata.usage()?.output_tokens())).or(output_tokens);
    }
    assert_eq!(output_tokens, Some(40));
    assert_eq!(observed.calls().await, (1, 0));
    observed.assert_charged_once("t").await;
    observed.assert_the_last_attempt_was_replayed();
}
