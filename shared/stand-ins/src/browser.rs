//! Protection against web pages. A browser lets every page send requests to loopback, and reads the
//! answers to the page if the page's own name resolves to loopback (DNS rebinding).

use std::net::IpAddr;

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{HOST, ORIGIN},
    uri::Authority,
};

use crate::faults::control::text;

/// Names that containers use for the machine that they run on.
const NAMES_FOR_CONTAINERS: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// Returns whether the client means this machine: each host that `request` names is a name of
/// loopback, or one of `more_names`. A client that names no host is no browser.
pub fn is_for_this_machine<B>(request: &Request<B>, more_names: &[String]) -> bool {
    let named = request.headers().get_all(HOST).iter().map(|host| Authority::try_from(host.as_bytes()).ok());
    let mut hosts = named.chain(request.uri().authority().cloned().map(Some));
    hosts.all(|host| host.is_some_and(|host| is_this_machine(host.host(), more_names)))
}

fn is_this_machine(host: &str, more_names: &[String]) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || more_names.contains(&host),
        Err(_) => {
            let is_localhost = host == "localhost" || host.ends_with(".localhost");
            is_localhost || NAMES_FOR_CONTAINERS.contains(&host.as_str()) || more_names.contains(&host)
        }
    }
}

/// Returns the refusal of a request that a web page may have sent. Browsers name the page's origin
/// in each request that is not a plain GET.
pub(crate) fn refusal<B>(request: &Request<B>) -> Option<Response<Bytes>> {
    if !is_for_this_machine(request, &[]) {
        return Some(text(StatusCode::MISDIRECTED_REQUEST, "Call this stand-in as localhost or 127.0.0.1."));
    }
    let is_from_page = request.headers().contains_key(ORIGIN);
    is_from_page.then(|| text(StatusCode::FORBIDDEN, "Web pages cannot call this stand-in: remove the Origin header."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_accepted() {
        let more_names = ["dev.example".to_owned(), "192.0.2.1".to_owned()];
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8787", true),
            ("bucket.localhost:1", true),
            ("127.0.0.1:8787", true),
            ("127.9.9.9", true),
            ("[::1]:8787", true),
            ("[::ffff:127.0.0.1]", true),
            ("host.docker.internal:8787", true),
            ("dev.example:8787", true),
            ("192.0.2.1", true),
            ("evil.example", false),
            ("evil.example:8787", false),
            ("localhost.evil.example", false),
            ("evillocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example@localhost:1@evil.example", false),
            ("0.0.0.0", false),
            ("192.0.2.2", false),
            ("a b[", false),
            ("", false),
        ] {
            let in_header = Request::get("/").header(HOST, host).body(()).expect("a request");
            assert_eq!(is_for_this_machine(&in_header, &more_names), expected, "{host}");
            if let Ok(in_uri) = Request::get(format!("http://{host}/")).body(()) {
                assert_eq!(is_for_this_machine(&in_uri, &more_names), expected, "{host}");
            }
        }
    }

    #[test]
    fn every_named_host_must_be_this_machine_and_none_need_be_named() {
        let request = |uri: &str, hosts: &[&str]| {
            let request = Request::get(uri);
            hosts.iter().fold(request, |request, host| request.header(HOST, *host)).body(()).expect("a request")
        };
        assert!(is_for_this_machine(&request("/", &[]), &[]));
        assert!(is_for_this_machine(&request("http://localhost/", &["127.0.0.1"]), &[]));
        assert!(!is_for_this_machine(&request("http://evil.example/", &["localhost"]), &[]));
        assert!(!is_for_this_machine(&request("/", &["localhost", "evil.example"]), &[]));
    }

    #[test]
    fn a_request_of_a_web_page_is_refused() {
        let request = |name: &str, value: &str| Request::post("/_sim/faults").header(name, value).body(());
        for (name, value, status) in [
            ("host", "localhost:1", None),
            ("host", "evil.example", Some(421)),
            ("origin", "https://evil.example", Some(403)),
            ("origin", "null", Some(403)),
            ("origin", "http://localhost:3000", Some(403)),
        ] {
            let refused = refusal(&request(name, value).expect("a request"));
            assert_eq!(refused.map(|refused| refused.status().as_u16()), status, "{name} {value}");
        }
    }
}
