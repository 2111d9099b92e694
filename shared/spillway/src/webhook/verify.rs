//! Verification of an endpoint: its owner proves control by answering a challenge.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;

use super::{delivery, event};
use crate::{outbound::Outbound, tenant::Endpoint, units::UnixMs};

/// Type of the event that carries a challenge.
const KIND: &str = "endpoint.verification";

/// Number of random bytes in a challenge.
const CHALLENGE_BYTES: usize = 16;

/// Posts a challenge, signed like every event. The body of the answer must be the challenge, or
/// JSON with the field `challenge`.
///
/// # Errors
/// Returns an error if the endpoint's URL is not allowed, if it does not answer 2xx, or if it
/// answers without the challenge.
pub async fn verify(outbound: &Outbound, endpoint: &Endpoint, now: UnixMs) -> anyhow::Result<()> {
    let mut challenge = [0; CHALLENGE_BYTES];
    getrandom::fill(&mut challenge).context("the system cannot generate random bytes")?;
    let challenge: String = challenge.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = event::event_id(KIND, &challenge);
    let body = event::body(&id, KIND, now, &json!({ "id": endpoint.id, "challenge": challenge }));
    let headers = delivery::headers(endpoint, &id, now, &body).context("its secret is invalid")?;
    let response = outbound.post(&endpoint.url, headers, body).await?;
    if !response.status.is_success() {
        bail!("it answered {} to the challenge, but must answer 2xx", response.status);
    }
    if !has_challenge(&response.body().await, &challenge) {
        bail!("it answered without the challenge; the body must be data.challenge or {{\"challenge\": \"…\"}}");
    }
    Ok(())
}

fn has_challenge(body: &[u8], challenge: &str) -> bool {
    #[derive(Deserialize)]
    struct ChallengeField {
        challenge: String,
    }
    body.trim_ascii() == challenge.as_bytes()
        || serde_json::from_slice::<ChallengeField>(body).is_ok_and(|field| field.challenge == challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_accepted_alone_or_as_a_field_of_json_only() {
        for body in ["abc123", " abc123\n", r#"{"challenge":"abc123"}"#, r#"{"ok":true, "challenge": "abc123"}"#] {
            assert!(has_challenge(body.as_bytes(), "abc123"), "{body}");
        }
        for body in [
            "",
            "abc12",
            "abc1234",
            "ok abc123",
            r#"{"challenge":"abc12"}"#,
            r#"{"data":{"challenge":"abc123"}}"#,
            "\u{ff}",
        ] {
            assert!(!has_challenge(body.as_bytes(), "abc123"), "{body}");
        }
    }
}
