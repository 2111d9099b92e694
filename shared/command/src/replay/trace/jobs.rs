//! Polls an accepted job until it ends, at a bounded rate.

use std::time::{Duration, Instant};

use http::{StatusCode, header};
use reqwest::{Response, Url};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::answer::short_name;
use super::broker::{Broker, transport_kind};
use super::exchange::{ReadError, Ticket, error_kind, read_answer, retry_after_seconds};
use super::plan::Planned;
use super::tally::{End, Event};

const MIN_WAIT: Duration = Duration::from_millis(250);
const MAX_WAIT: Duration = Duration::from_secs(10);
const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// Total rate of polls for all jobs. A higher rate would measure the polling instead of the broker.
const POLLS_PER_SECOND: u32 = 100;

/// Result of a poll.
enum Poll {
    Ended(End),
    Open { last_seen: String, retry_after_seconds: Option<u64> },
}

/// Polls the job until it ends, or until `give_up` and a last poll.
pub async fn follow(
    broker: &Broker,
    planned: &Planned,
    ticket: Ticket,
    sent: Instant,
    give_up: &CancellationToken,
) -> Event {
    let _open = broker.open_job();
    let mut advice = ticket.retry_after_seconds;
    let mut attempt = 0;
    loop {
        let wait = wait_before(attempt, advice, broker.open_jobs());
        let last_chance = give_up.run_until_cancelled(tokio::time::sleep(wait)).await.is_none();
        match poll(broker, planned, &ticket.url, sent).await {
            Poll::Ended(end) => return Event::Ended(end),
            Poll::Open { last_seen, .. } if last_chance => return Event::GivenUp { last_seen },
            Poll::Open { retry_after_seconds, .. } => advice = retry_after_seconds,
        }
        attempt += 1;
    }
}

/// Returns the wait before a poll. It grows with `attempt` and with the number of open jobs, and is
/// never shorter than the broker advises.
fn wait_before(attempt: u32, retry_after_seconds: Option<u64>, open_jobs: usize) -> Duration {
    let growing = MIN_WAIT.saturating_mul(2_u32.saturating_pow(attempt)).min(MAX_WAIT);
    let fair = Duration::from_secs(open_jobs as u64) / POLLS_PER_SECOND;
    let advised = Duration::from_secs(retry_after_seconds.unwrap_or(0));
    growing.max(fair).max(advised)
}

async fn poll(broker: &Broker, planned: &Planned, url: &Url, sent: Instant) -> Poll {
    // The semaphore is never closed, so this always returns a permit.
    let _permit = broker.polls.acquire().await;
    let open = |last_seen: String| Poll::Open { last_seen, retry_after_seconds: None };
    match tokio::time::timeout(POLL_TIMEOUT, read_status(broker, planned, url, sent)).await {
        Ok(Ok(poll)) => poll,
        // An unavailable broker may return later, with the job, so an error does not end the
        // polling.
        Ok(Err(kind)) => open(kind),
        Err(_) => open("timeout".to_owned()),
    }
}

async fn read_status(broker: &Broker, planned: &Planned, url: &Url, sent: Instant) -> Result<Poll, String> {
    #[derive(Deserialize)]
    struct Job {
        status: String,
    }
    let response = get(broker, planned, url.clone()).await?;
    if response.status() != StatusCode::OK {
        return Err(error_kind(response).await);
    }
    let retry_after_seconds = retry_after_seconds(response.headers());
    let body = response.bytes().await.map_err(|error| transport_kind(&error))?;
    let job: Job = serde_json::from_slice(&body).map_err(|_| "unreadable job".to_owned())?;
    match job.status.as_str() {
        "succeeded" => read_result(broker, planned, url, sent).await.map(Poll::Ended),
        "failed" | "cancelled" | "expired" => Ok(Poll::Ended(End::JobEnded { status: job.status })),
        status => Ok(Poll::Open { last_seen: short_name(status), retry_after_seconds }),
    }
}

async fn read_result(broker: &Broker, planned: &Planned, url: &Url, sent: Instant) -> Result<End, String> {
    let mut url = url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push("result");
    }
    let response = get(broker, planned, url).await?;
    let status = response.status();
    let failed = |kind: String| End::Failed { kind: format!("result of a job: {kind}") };
    match status {
        StatusCode::OK => match read_answer(response, planned, sent).await {
            Ok(answer) => Ok(End::Finished(answer)),
            Err(ReadError::Invalid(kind)) => Ok(failed(kind)),
            Err(ReadError::Connection(kind)) => Err(kind),
        },
        // The result is not available yet or at the moment, so the job is polled again.
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => Err(error_kind(response).await),
        _ if status.is_server_error() => Err(error_kind(response).await),
        _ => Ok(failed(error_kind(response).await)),
    }
}

async fn get(broker: &Broker, planned: &Planned, url: Url) -> Result<Response, String> {
    let request = broker.http.get(url).header(header::AUTHORIZATION, planned.authorization.clone());
    request.send().await.map_err(|error| transport_kind(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_maximum() {
        let waits: Vec<_> = (0..8).map(|attempt| wait_before(attempt, None, 1).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(wait_before(u32::MAX, None, 1), MAX_WAIT);
    }

    #[test]
    fn a_poll_is_never_earlier_than_the_broker_advises() {
        assert_eq!(wait_before(0, Some(40), 1), Duration::from_secs(40));
        assert_eq!(wait_before(9, Some(1), 1), MAX_WAIT);
    }

    #[test]
    fn many_open_jobs_share_one_rate_of_polls() {
        assert_eq!(wait_before(0, None, 5_000), Duration::from_secs(50));
    }
}
