//! Clients that trust the certificate authority of a deployment.

use std::{net::SocketAddr, path::Path, sync::Arc};

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// Returns an HTTP client for an AWS SDK that trusts only `ca_file`.
pub fn trusting(ca_file: &Path) -> SharedHttpClient {
    let trust = TrustStore::empty().with_pem_certificate(std::fs::read(ca_file).expect("a certificate"));
    let context = TlsContext::builder().with_trust_store(trust).build().expect("a context");
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context).build_https()
}

/// An open connection.
pub enum Connection {
    Http1(http1::SendRequest<String>),
    Http2(http2::SendRequest<String>),
}

impl Connection {
    /// Sends `request` and returns the response.
    pub async fn send(&mut self, request: Request<String>) -> Response<Incoming> {
        let sent = match self {
            Self::Http1(connection) => connection.send_request(request).await,
            Self::Http2(connection) => connection.send_request(request).await,
        };
        sent.expect("an answer")
    }
}

/// Connects to the server called `name` at `address`. Trusts only `ca_file` and offers only the
/// protocol `version` (`h2` or `http/1.1`).
pub async fn connect(address: SocketAddr, name: &str, version: &str, ca_file: &Path) -> std::io::Result<Connection> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![version.into()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(version.as_bytes()));
    let stream = TokioIo::new(stream);
    Ok(if version == "h2" {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Connection::Http2(sender)
    } else {
        let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Connection::Http1(sender)
    })
}
