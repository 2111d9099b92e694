//! HTTPS with a certificate authority that is created for this process. Its key is never stored.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};

use crate::server::{self, Listener};

/// Arguments for HTTPS.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Serve HTTPS (HTTP/2 and 1.1) as well, on this port [8788 without a value; 0 for any free
    /// port]. Prints the path of the certificate authority that clients must trust
    #[arg(long = "tls", value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "8788")]
    pub tls_port: Option<u16>,
}

/// HTTPS endpoint of the API.
pub struct Tls {
    /// Base URL, such as `https://127.0.0.1:8788`.
    pub url: String,
    /// File (PEM) of the certificate authority that clients must trust.
    pub ca_file: PathBuf,
    /// Deletes the file when dropped; `None` if the file is in the caller's directory.
    _directory: Option<TempDir>,
}

/// Listens on `host` and `port` (0 for any free port) with a certificate for `host` and loopback.
/// Writes the certificate authority to `ca.pem` in `directory`, or in a temporary directory.
///
/// # Errors
/// Returns an error if the port is taken or the file cannot be written.
pub async fn bind(host: IpAddr, port: u16, directory: Option<&Path>) -> anyhow::Result<(Listener, Tls)> {
    let tcp = server::listen((host, port).into())
        .with_context(|| format!("port {port} cannot be used; choose another with --tls=PORT"))?;
    let url = format!("https://{}", tcp.local_addr()?);
    let temporary = match directory {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("spillway-").tempdir()?),
    };
    let directory = directory.or(temporary.as_ref().map(TempDir::path)).unwrap_or(Path::new("."));
    let ca_file = std::path::absolute(directory.join("ca.pem"))?;
    let (ca, config) = certificates(host).context("cannot create a certificate")?;
    std::fs::write(&ca_file, ca).with_context(|| format!("cannot write {}", ca_file.display()))?;
    let listener = Listener { tcp, tls: Some(TlsAcceptor::from(Arc::new(config))) };
    Ok((listener, Tls { url, ca_file, _directory: temporary }))
}

impl Tls {
    /// Prints the certificate authority and the URL.
    pub fn print(&self) {
        println!("ca {}", self.ca_file.display());
        println!("ready-tls {}", self.url);
    }
}

/// Creates a certificate authority (PEM) and a server configuration with a certificate from it.
fn certificates(host: IpAddr) -> anyhow::Result<(String, ServerConfig)> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Spillway on this machine");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut names = vec!["localhost".to_owned()];
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    names.extend(addresses.iter().map(IpAddr::to_string));
    if !host.is_unspecified() && !addresses.contains(&host) {
        names.push(host.to_string());
    }
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;

    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone(), authority.der().clone()];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((authority.pem(), config))
}
