//! Requests to servers of tenants: the only ones whose address somebody else has chosen.
//!
//! A request goes to an address that was looked at, and to no other: names are resolved here, redirects are not followed,
//! and no proxy of the environment is asked (Standard Webhooks, "Server side request forgery").

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

use crate::error_chain::with_causes;

/// How long an endpoint may take in all. Standard Webhooks ("Request timeouts") recommends 15 to 30 s.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of an answer is read, in bytes: a challenge fits many times.
const MOST_READ: usize = 4 * 1024;

/// Where requests may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Over https to addresses of the public Internet.
    #[default]
    Public,
    /// Also to this machine, and there over http too: where everything is on one machine.
    Loopback,
}

/// Why a request was not sent, or not answered. Never holds the URL beyond its host: the rest may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL is one that is never called.
    #[error("the URL cannot be used: {0}")]
    Refused(String),
    /// There was no answer.
    #[error("no answer: {0}")]
    Unreached(String),
}

/// What an endpoint answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// After how many seconds it wants to be asked again, if it said so.
    pub retry_after_s: Option<u64>,
    response: Response,
}

impl Answer {
    /// The first bytes of the body; none if it breaks off.
    pub async fn body(mut self) -> Bytes {
        let mut read = Vec::new();
        while let Ok(Some(chunk)) = self.response.chunk().await {
            read.extend_from_slice(&chunk[..chunk.len().min(MOST_READ - read.len())]);
            if read.len() == MOST_READ {
                break;
            }
        }
        read.into()
    }
}

/// The HTTP client for endpoints. Clones share it; it is made when it is first used, because loading the roots of trust
/// takes time that not every process has to spend.
#[derive(Clone, Default)]
pub struct Outbound {
    reach: Reach,
    client: Arc<OnceCell<Client>>,
}

impl Outbound {
    /// A client that reaches so far.
    pub fn new(reach: Reach) -> Self {
        Self { reach, client: Arc::default() }
    }

    /// Reads a URL that may be called, as far as it tells; a name is resolved when it is called.
    ///
    /// # Errors
    /// It may not: the scheme, a user's name, or an address that is not public.
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        let refused = |why: String| Err(OutboundError::Refused(why));
        let url = match Url::parse(url) {
            Ok(url) => url,
            Err(error) => return refused(format!("it cannot be read ({error})")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refused("a user name or a password has no place in it".to_owned());
        }
        if url.fragment().is_some() {
            return refused("a fragment (#) has no place in it".to_owned());
        }
        // Numbers of any spelling are addresses in dots by now (WHATWG URL Standard, "IPv4 parser").
        let address = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        match address {
            Some(address) if !self.reach.admits(address) => refused(format!("{address} is not a public address")),
            Some(address) if url.scheme() == "http" && self.reach == Reach::Loopback && address.is_loopback() => {
                Ok(url)
            }
            _ if url.scheme() == "https" => Ok(url),
            _ => refused(self.reach.schemes().to_owned()),
        }
    }

    /// Posts JSON to `url`.
    ///
    /// # Errors
    /// The URL may not be called, or there is no answer within 15 seconds.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: String) -> Result<Answer, OutboundError> {
        let url = self.check(url)?;
        let client = self.client.get_or_try_init(|| async { client(self.reach) }).await.map_err(unreached)?;
        let request = client.post(url).headers(headers).header(header::CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(unreached)?;
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after_s = retry_after.and_then(|seconds| seconds.trim().parse().ok());
        Ok(Answer { status: response.status(), retry_after_s, response })
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
        // Deliveries to one endpoint are rare, and each is to be resolved and looked at.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("Spillway/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn unreached(error: reqwest::Error) -> OutboundError {
    OutboundError::Unreached(with_causes(&error.without_url()))
}

impl Reach {
    fn admits(self, address: IpAddr) -> bool {
        address::is_public(address) || (self == Self::Loopback && address.is_loopback())
    }

    fn schemes(self) -> &'static str {
        match self {
            Self::Public => "it must begin with https://",
            Self::Loopback => "it must begin with https://, or with http:// and a loopback address such as 127.0.0.1",
        }
    }
}

/// Resolves names, and gives no address of one that has any which may not be called.
struct Resolver(Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            match addresses.iter().find(|address| !reach.admits(address.ip())) {
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
    fn a_public_https_url_may_be_called_on_any_port() {
        for url in
            ["https://example.com/hook?a=b", "https://example.com:8443", "https://8.8.8.8/", "https://[2600::1]/"]
        {
            assert!(check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn no_spelling_of_a_private_address_may_be_called() {
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
            let refused = check(&format!("https://{host}/hook")).expect_err(host);
            assert!(refused.to_string().ends_with("is not a public address"), "{host}: {refused}");
        }
    }

    #[test]
    fn what_is_no_plain_https_url_may_not_be_called() {
        for (url, why) in [
            ("http://example.com/", "https://"),
            ("ftp://example.com/", "https://"),
            ("file:///etc/passwd", "https://"),
            ("https://user@example.com/", "user name"),
            ("https://:word@example.com/", "password"),
            ("https://example.com/#part", "fragment"),
            ("https://", "cannot be read"),
            ("https://[fe80::1%25eth0]/", "cannot be read"),
            ("example.com/hook", "cannot be read"),
        ] {
            let refused = check(url).expect_err(url).to_string();
            assert!(refused.contains(why), "{url}: {refused}");
        }
    }

    #[test]
    fn http_is_for_this_machine_alone_and_only_where_it_may_be_reached() {
        let local = Outbound::new(Reach::Loopback);
        for url in ["http://127.0.0.1:9000/", "http://[::1]:9000/", "https://127.0.0.1/", "https://example.com/"] {
            assert!(local.check(url).is_ok(), "{url}");
        }
        for url in ["http://example.com/", "http://8.8.8.8/", "http://localhost/", "https://10.0.0.1/"] {
            assert!(local.check(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn of_an_answer_without_end_a_few_bytes_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let endless = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            assert!(stream.read(&mut [0; 1_000]).await.expect("a request") > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("a head");
            while stream.write_all(&[b'x'; 1_000]).await.is_ok() {}
        };
        let asked = async {
            let answer = Outbound::new(Reach::Loopback).post(&url, HeaderMap::new(), String::new()).await;
            answer.expect("an answer").body().await.len()
        };
        assert_eq!(tokio::join!(endless, asked).1, MOST_READ);
    }

    #[tokio::test]
    async fn a_name_with_an_address_that_is_not_public_is_not_called() {
        let resolve = |reach| Resolver(reach).resolve("localhost".parse().expect("a name"));
        let refused = resolve(Reach::Public).await.map(|_| ()).expect_err("loopback").to_string();
        assert!(refused.ends_with("which is not public"), "{refused}");
        assert!(resolve(Reach::Loopback).await.expect("loopback").count() > 0);
        let outbound = Outbound::default();
        let sent = outbound.post("https://localhost:1/s3cret", HeaderMap::new(), String::new()).await;
        let told = sent.map(|_| ()).expect_err("loopback").to_string();
        assert!(told.contains("which is not public") && !told.contains("s3cret"), "{told}");
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_a_url_fail_badly(text in "(https?://)?\\PC{0,40}") {
            if let Ok(url) = check(&text) {
                prop_assert_eq!(url.scheme(), "https");
            }
        }

        #[test]
        fn an_address_in_a_url_is_looked_at_however_it_is_written(bits: u32) {
            let address = std::net::Ipv4Addr::from_bits(bits);
            let expected = address::is_public(IpAddr::V4(address));
            for host in [address.to_string(), bits.to_string(), format!("{bits:#x}"), format!("0{bits:o}")] {
                prop_assert_eq!(check(&format!("https://{host}/")).is_ok(), expected, "{}", host);
            }
        }
    }
}
