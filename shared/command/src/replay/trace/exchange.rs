//! Sends a request, reads its response to the end, and classifies it.

use std::time::Instant;

use http::{HeaderMap, HeaderName, StatusCode, header};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::answer::{ErrorObject, Reader, short_name};
use super::broker::{Broker, transport_kind};
use super::plan::Planned;
use super::request;
use super::tally::{Answer, End};

const POOL: HeaderName = HeaderName::from_static("x-spillway-pool");
const LIMIT: HeaderName = HeaderName::from_static("x-spillway-limit");
const AWS_ERROR: HeaderName = HeaderName::from_static("x-amzn-errortype");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Classified response to a request.
#[derive(Debug)]
pub enum Outcome {
    /// The request has ended.
    Ended(End),
    /// The request became a job.
    Accepted(Ticket),
}

/// URL of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// `Location` of the job.
    pub url: Url,
    /// Time until the first poll, as the broker advises.
    pub retry_after_seconds: Option<u64>,
}

/// Reason why a response could not be read. Each variant holds the kind of error, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// The connection failed; another try may succeed.
    Connection(String),
    /// The response is not valid.
    Invalid(String),
}

impl ReadError {
    /// Returns the kind of error to count.
    pub fn into_kind(self) -> String {
        match self {
            Self::Connection(kind) | Self::Invalid(kind) => kind,
        }
    }
}

/// Sends `planned` and reads the response, within the broker's request timeout.
pub async fn exchange(broker: &Broker, planned: &Planned, body: Vec<u8>, sent: Instant) -> Outcome {
    let exchange = tokio::time::timeout(broker.request_timeout, async {
        let response = send(broker, planned, body).await?;
        read_response(response, planned, sent).await
    });
    match exchange.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(kind)) => Outcome::Ended(End::Failed { kind }),
        Err(_) => Outcome::Ended(End::Failed { kind: "timeout".to_owned() }),
    }
}

async fn send(broker: &Broker, planned: &Planned, body: Vec<u8>) -> Result<Response, String> {
    let mut post = broker
        .http
        .post(request::url(&broker.url, planned))
        .header(header::AUTHORIZATION, planned.authorization.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    if planned.may_queue {
        post = post.header(PREFER, "respond-async");
    }
    post.send().await.map_err(|error| transport_kind(&error))
}

async fn read_response(response: Response, planned: &Planned, sent: Instant) -> Result<Outcome, String> {
    match response.status() {
        StatusCode::OK => {
            let answer = read_answer(response, planned, sent).await.map_err(ReadError::into_kind)?;
            Ok(Outcome::Ended(End::Answered(answer)))
        }
        StatusCode::ACCEPTED => {
            let ticket = ticket(&response).ok_or("accepted without a Location")?;
            discard(response).await?;
            Ok(Outcome::Accepted(ticket))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYMENT_REQUIRED => read_refusal(response).await,
        _ => Err(error_kind(response).await),
    }
}

fn ticket(response: &Response) -> Option<Ticket> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let url = response.url().join(location).ok()?;
    Some(Ticket { url, retry_after_seconds: retry_after_seconds(response.headers()) })
}

/// Reads the response of a model to its last byte.
///
/// # Errors
/// Returns an error if the response breaks off, holds an error or is not valid.
pub async fn read_answer(mut response: Response, planned: &Planned, sent: Instant) -> Result<Answer, ReadError> {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut reader = Reader::new(content_type.unwrap_or(""));
    let pool = response.headers().get(POOL).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut first_token = None;
    let connection_error = |error: reqwest::Error| ReadError::Connection(transport_kind(&error));
    while let Some(piece) = response.chunk().await.map_err(connection_error)? {
        reader.push(piece);
        if first_token.is_none() && reader.has_streamed_content() {
            first_token = Some(sent.elapsed());
        }
    }
    Ok(Answer {
        pool,
        usage: reader.finish().map_err(ReadError::Invalid)?,
        expected_output_tokens: planned.output_tokens.min(planned.max_tokens),
        latency: sent.elapsed(),
        first_token,
    })
}

async fn read_refusal(response: Response) -> Result<Outcome, String> {
    let status = response.status().as_u16();
    if retry_after_seconds(response.headers()).is_none() {
        discard(response).await?;
        return Err(format!("http {status} without Retry-After"));
    }
    let mut limits = limits(response.headers());
    if limits.is_empty() {
        limits.push("(not named)".to_owned());
    }
    discard(response).await?;
    Ok(Outcome::Ended(End::Refused { limits }))
}

/// Returns the kind of an error response: its status, the dialect's name for it, and the limit if
/// the response names one.
pub async fn error_kind(response: Response) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: ErrorObject,
    }
    let status = response.status().as_u16();
    let aws_name = response.headers().get(AWS_ERROR).and_then(|value| value.to_str().ok()).map(short_name);
    let limits = limits(response.headers());
    let Ok(body) = response.bytes().await else { return format!("http {status}, cut short") };
    let name = aws_name.or_else(|| serde_json::from_slice::<Body>(&body).ok()?.error.name());
    [format!("http {status}")].into_iter().chain(name).chain(limits).collect::<Vec<_>>().join(" ")
}

/// Reads the rest of a body, so that its connection can be reused.
async fn discard(mut response: Response) -> Result<(), String> {
    while response.chunk().await.map_err(|error| transport_kind(&error))?.is_some() {}
    Ok(())
}

/// Returns the `Retry-After` in seconds. The broker never sends the date form.
pub fn retry_after_seconds(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

fn limits(headers: &HeaderMap) -> Vec<String> {
    let names = headers.get_all(LIMIT).into_iter().filter_map(|value| value.to_str().ok());
    names.flat_map(|names| names.split(',')).map(short_name).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), http::HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn every_limit_of_a_refusal_is_read() {
        assert_eq!(limits(&headers(LIMIT, &["in_flight, tokens_per_day", "x"])), ["in_flight", "tokens_per_day", "x"]);
        assert!(limits(&headers(LIMIT, &["", ","])).is_empty());
    }

    #[test]
    fn retry_after_is_in_whole_seconds() {
        assert_eq!(retry_after_seconds(&headers(header::RETRY_AFTER, &["17"])), Some(17));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after_seconds(&headers(header::RETRY_AFTER, &[bad])), None, "{bad:?}");
        }
    }
}
