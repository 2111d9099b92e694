//! Whether an endpoint is its owner's: it must answer with a challenge that only it was sent.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;

use super::{deliver, event};
use crate::{outbound::Outbound, tenant::Endpoint};

/// The kind of the event that carries a challenge.
const KIND: &str = "endpoint.verification";

/// How many bytes of a challenge are random.
const CHALLENGE_BYTES: usize = 16;

/// Posts a challenge, signed like every event, and reads it from the answer: alone, or as `challenge` in JSON.
///
/// # Errors
/// The endpoint may not be called, does not answer with 2xx, or answers without the challenge.
pub async fn verify(outbound: &Outbound, endpoint: &Endpoint, now_ms: u64) -> anyhow::Result<()> {
    let mut challenge = [0; CHALLENGE_BYTES];
    getrandom::fill(&mut challenge).context("the system has no random bytes")?;
    let challenge: String = challenge.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = event::id_of(KIND, &challenge);
    let body = event::body(&id, KIND, now_ms, &json!({ "id": endpoint.id, "challenge": challenge }));
    let headers = deliver::headers(endpoint, &id, now_ms, &body).context("its secret cannot be used")?;
    let answer = outbound.post(&endpoint.url, headers, body).await?;
    if !answer.status.is_success() {
        bail!("it answered {} to the challenge; it must answer 2xx", answer.status);
    }
    if !holds(&answer.body().await, &challenge) {
        bail!("it answered without the challenge; its body must be data.challenge, or {{\"challenge\": \"…\"}}");
    }
    Ok(())
}

fn holds(body: &[u8], challenge: &str) -> bool {
    #[derive(Deserialize)]
    struct Told {
        challenge: String,
    }
    body.trim_ascii() == challenge.as_bytes()
        || serde_json::from_slice::<Told>(body).is_ok_and(|told| told.challenge == challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_alone_or_from_json_and_from_nothing_else() {
        for body in ["abc123", " abc123\n", r#"{"challenge":"abc123"}"#, r#"{"ok":true, "challenge": "abc123"}"#] {
            assert!(holds(body.as_bytes(), "abc123"), "{body}");
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
            assert!(!holds(body.as_bytes(), "abc123"), "{body}");
        }
    }
}
