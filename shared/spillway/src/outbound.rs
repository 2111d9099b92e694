//! Requests to servers of tenants: the only requests whose address a tenant chooses.
//!
//! A request goes only to an address that was checked. Names are resolved here, redirects are not
//! followed, and proxy settings in the environment are ignored (Standard Webhooks, "Server side
//! request forgery").

pub mod address;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use reqwest::{
    Client, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use tokio::sync::OnceCell;

use crate::{config::WebhookPorts, error_chain::with_causes, units::Millis};

/// Timeout of a request. Standard Webhooks ("Request timeouts") recommends 15 to 30 s.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of bytes of a response that are read. A challenge is much shorter.
const MAX_BODY_BYTES: usize = 4 * 1024;

/// Addresses that requests may go to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses, over https.
    #[default]
    Public,
    /// Also loopback addresses, on any port and over http too: for deployments on one machine.
    Loopback,
}

/// Why a request was not sent or not answered. Of the URL, the text contains only the host, because
/// the rest may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL is not allowed.
    #[error("the URL cannot be used: {0}")]
    NotAllowed(String),
    /// The endpoint did not answer.
    #[error("no answer: {0}")]
    Unavailable(String),
}

/// The response of an endpoint.
#[derive(Debug)]
pub struct OutboundResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// How long the endpoint asks to wait before the next attempt.
    pub retry_after: Option<Millis>,
    response: Response,
}

impl OutboundResponse {
    /// Returns the first bytes of the body, up to the point where the connection breaks.
    pub async fn body(mut self) -> Bytes {
        let mut read = Vec::new();
        while let Ok(Some(chunk)) = self.response.chunk().await {
            read.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - read.len())]);
            if read.len() == MAX_BODY_BYTES {
                break;
            }
        }
        read.into()
    }
}

/// The HTTP client for endpoints. Clones share one client. It is created on first use, because
/// loading the root certificates takes time and not every process needs it.
#[derive(Clone, Default)]
pub struct Outbound {
    reach: Reach,
    ports: WebhookPorts,
    client: Arc<OnceCell<Client>>,
}

impl Outbound {
    /// A client for these ports of public addresses.
    pub fn new(ports: WebhookPorts) -> Self {
        Self { ports, ..Self::default() }
    }

    /// The client that may also call loopback addresses.
    pub fn with_loopback(self) -> Self {
        Self { reach: Reach::Loopback, ports: self.ports, client: Arc::default() }
    }

    /// Parses a URL and checks that it is allowed. A name is only resolved, and its addresses are
    /// only checked, when the URL is called.
    ///
    /// # Errors
    /// Returns an error if the URL is malformed, or has another scheme, credentials, a fragment, an
    /// address out of reach, or another port.
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        let not_allowed = |reason: String| Err(OutboundError::NotAllowed(reason));
        let url = match Url::parse(url) {
            Ok(url) => url,
            Err(error) => return not_allowed(format!("it is malformed ({error})")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return not_allowed("it must not contain credentials".to_owned());
        }
        if url.fragment().is_some() {
            return not_allowed("it must not contain a fragment (#)".to_owned());
        }
        // The parser has turned every form of an IPv4 address into dotted decimal (WHATWG URL
        // Standard, "IPv4 parser").
        let address = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        let is_loopback = address.is_some_and(|address| self.reach == Reach::Loopback && address.is_loopback());
        match (address, url.port_or_known_default()) {
            (Some(address), _) if !self.reach.includes(address) => {
                not_allowed(format!("{address} is not a public address"))
            }
            _ if is_loopback && matches!(url.scheme(), "http" | "https") => Ok(url),
            _ if url.scheme() != "https" => not_allowed(self.reach.schemes().to_owned()),
            (_, Some(port)) if !self.ports.includes(port) => {
                not_allowed(format!("its port is {port}, but must be {}", self.ports.names()))
            }
            _ => Ok(url),
        }
    }

    /// Posts JSON to `url`.
    ///
    /// # Errors
    /// Returns an error if the URL is not allowed, or if the endpoint does not answer within 15
    /// seconds.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: String) -> Result<OutboundResponse, OutboundError> {
        let url = self.check(url)?;
        let client = self.client.get_or_try_init(|| async { client(self.reach) }).await.map_err(unavailable)?;
        let request = client.post(url).headers(headers).header(header::CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(unavailable)?;
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|seconds| seconds.trim().parse().ok()).map(Millis::from_s);
        Ok(OutboundResponse { status: response.status(), retry_after, response })
    }
}

fn client(reach: Reach) -> reqwest::Result<Client> {
    Client::builder()
        .dns_resolver(Arc::new(Resolver(reach)))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .https_only(reach == Reach::Public)
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        // Deliveries to an endpoint are rare, and each must resolve the name and check the address.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("Spillway/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn unavailable(error: reqwest::Error) -> OutboundError {
    OutboundError::Unavailable(with_causes(&error.without_url()))
}

impl Reach {
    fn includes(self, address: IpAddr) -> bool {
        address::is_public(address) || (self == Self::Loopback && address.is_loopback())
    }

    fn schemes(self) -> &'static str {
        match self {
            Self::Public => "it must begin with https://",
            Self::Loopback => "it must begin with https://, or with http:// and a loopback address such as 127.0.0.1",
        }
    }
}

/// Resolves names. Fails for a name if any of its addresses is out of reach.
struct Resolver(Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            match addresses.iter().find(|address| !reach.includes(address.ip())) {
                Some(address) => Err(format!("it has the address {}, which is not public", address.ip()).into()),
                None => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn check(url: &str) -> Result<Url, OutboundError> {
        Outbound::default().check(url)
    }

    #[test]
    fn a_public_https_url_is_allowed() {
        for url in
            ["https://example.com/hook?a=b", "https://example.com:8443", "https://8.8.8.8:443/", "https://[2600::1]/"]
        {
            assert!(check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn only_the_ports_of_https_or_of_the_operator_are_allowed() {
        let widened = Outbound::new(WebhookPorts::parse("443,10443").expect("ports"));
        for host in ["example.com", "8.8.8.8", "[2600::1]"] {
            for port in [22, 25, 80, 6379, 10443] {
                let error = check(&format!("https://{host}:{port}/")).expect_err(host).to_string();
                assert!(error.ends_with(&format!("its port is {port}, but must be 443 or 8443")), "{error}");
            }
            assert!(widened.check(&format!("https://{host}:10443/")).is_ok());
            assert!(widened.check(&format!("https://{host}:8443/")).is_err());
            let local = Outbound::default().with_loopback();
            assert!(local.check(&format!("https://{host}:6379/")).is_err(), "only loopback has all ports");
        }
    }

    #[test]
    fn no_form_of_a_private_address_is_allowed() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "0x7f000001",
            "127.0.0.1.",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "0",
            "10.0.0.1",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::a9fe:a9fe]",
            "[fd00:ec2::254]",
            "[fe80::1]",
        ] {
            let error = check(&format!("https://{host}/hook")).expect_err(host);
            assert!(error.to_string().ends_with("is not a public address"), "{host}: {error}");
        }
    }

    #[test]
    fn only_a_plain_https_url_is_allowed() {
        for (url, reason) in [
            ("http://example.com/", "https://"),
            ("ftp://example.com/", "https://"),
            ("file:///etc/passwd", "https://"),
            ("https://user@example.com/", "credentials"),
            ("https://:word@example.com/", "credentials"),
            ("https://example.com/#part", "fragment"),
            ("https://", "malformed"),
            ("https://[fe80::1%25eth0]/", "malformed"),
            ("example.com/hook", "malformed"),
        ] {
            let error = check(url).expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn http_is_allowed_for_loopback_addresses_within_reach_only() {
        let local = Outbound::default().with_loopback();
        for url in ["http://127.0.0.1:9000/", "http://[::1]:9000/", "https://127.0.0.1/", "https://example.com/"] {
            assert!(local.check(url).is_ok(), "{url}");
        }
        for url in ["http://example.com/", "http://8.8.8.8/", "http://localhost/", "https://10.0.0.1/"] {
            assert!(local.check(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn an_endless_body_is_read_up_to_a_maximum() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let endless = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            assert!(stream.read(&mut [0; 1_000]).await.expect("a request") > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("a head");
            while stream.write_all(&[b'x'; 1_000]).await.is_ok() {}
        };
        let request = async {
            let response = Outbound::default().with_loopback().post(&url, HeaderMap::new(), String::new()).await;
            response.expect("a response").body().await.len()
        };
        assert_eq!(tokio::join!(endless, request).1, MAX_BODY_BYTES);
    }

    #[tokio::test]
    async fn a_name_with_an_address_out_of_reach_is_not_called() {
        let resolve = |reach| Resolver(reach).resolve("localhost".parse().expect("a name"));
        let error = resolve(Reach::Public).await.map(|_| ()).expect_err("loopback").to_string();
        assert!(error.ends_with("which is not public"), "{error}");
        assert!(resolve(Reach::Loopback).await.expect("loopback").count() > 0);
        let outbound = Outbound::default();
        let sent = outbound.post("https://localhost:8443/s3cret", HeaderMap::new(), String::new()).await;
        let error = sent.map(|_| ()).expect_err("loopback").to_string();
        assert!(error.contains("which is not public") && !error.contains("s3cret"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_https_url_or_an_error(text in "(https?://)?\\PC{0,40}") {
            if let Ok(url) = check(&text) {
                prop_assert_eq!(url.scheme(), "https");
            }
        }

        #[test]
        fn every_form_of_an_address_in_a_url_is_checked(bits: u32) {
            let address = std::net::Ipv4Addr::from_bits(bits);
            let expected = address::is_public(IpAddr::V4(address));
            for host in [address.to_string(), bits.to_string(), format!("{bits:#x}"), format!("0{bits:o}")] {
                prop_assert_eq!(check(&format!("https://{host}/")).is_ok(), expected, "{}", host);
            }
        }
    }
}
