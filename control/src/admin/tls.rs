//! Certificates of a client configuration, and one TLS handshake as the agent would make it, looked
//! at from inside.

use super::Error;
use super::certificate::Certificate;
use super::client::ANSWER;
use crate::mesh::config::TlsFiles;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// What a client of HTTP/2 says first: its preface and an empty SETTINGS frame (RFC 9113 3.4, 6.5).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What it looks like when the server closes.
const CLOSED: [io::ErrorKind; 3] =
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];

/// Certificates and what the handshake makes of them.
pub(super) struct Material {
    /// The CAs that servers are checked against; none: those that the system trusts.
    pub(super) authorities: Vec<Certificate>,
    /// The client's certificate, then those of intermediate CAs.
    pub(super) client: Vec<Certificate>,
    config: Arc<ClientConfig>,
    seen: Arc<Seen>,
}

/// Checks servers as always, and keeps the certificate that was shown.
#[derive(Debug)]
struct Seen {
    verifier: Arc<WebPkiServerVerifier>,
    server: Mutex<Option<CertificateDer<'static>>>,
}

/// How a handshake ended.
pub(super) struct Handshake {
    /// What the server showed.
    pub(super) server: Option<Certificate>,
    pub(super) result: Result<(), Refusal>,
}

/// Why there is no connection.
pub(super) enum Refusal {
    /// The server's certificate is signed by none of our CAs.
    UnknownAuthority,
    /// It is for other names.
    OtherName,
    Expired,
    NotValidYet,
    /// The server refuses the client's certificate, or wants one; its alert.
    Client(String),
    /// The server does not speak TLS.
    Plain,
    Other(String),
}

impl Material {
    /// Reads and checks the files.
    pub(super) fn load(file: &Path, files: &TlsFiles) -> Result<Material, Error> {
        let pem = files.load()?;
        let wrong = |key: &str, what: String| Error(format!("{}: {key}: {what}", file.display()));
        let mut roots = RootCertStore::empty();
        let authorities = match &pem.ca {
            Some(pem) => {
                let (ca, shown) = certificates(pem).map_err(|what| wrong("trusted-ca-file", what))?;
                for certificate in ca {
                    roots.add(certificate).map_err(|error| wrong("trusted-ca-file", error.to_string()))?;
                }
                shown
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Vec::new()
            }
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let verifier = verifier.map_err(|error| wrong("trusted-ca-file", error.to_string()))?;
        let seen = Arc::new(Seen { verifier, server: Mutex::default() });
        let (chain, client) = match &pem.identity {
            Some((cert, _)) => certificates(cert).map_err(|what| wrong("cert-file", what))?,
            None => Default::default(),
        };
        let key = match &pem.identity {
            Some((_, key)) => Some(
                PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("key-file", error.to_string()))?,
            ),
            None => None,
        };
        let config = configure(provider, seen.clone(), chain, key);
        let config = config.map_err(|error| wrong("key-file", format!("does not fit cert-file: {error}")))?;
        Ok(Material { authorities, client, config: Arc::new(config), seen })
    }

    /// Shakes hands with a server that is to be `host`, and waits for its first word: only then is
    /// it known what it thinks of the client's certificate.
    pub(super) async fn handshake(&self, host: &str, stream: TcpStream) -> Handshake {
        *self.server() = None;
        let result = match timeout(ANSWER, self.greet(host, stream)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => Err(Refusal::Other(format!("no answer within {} s", ANSWER.as_secs()))),
        };
        let server = self.server().as_ref().and_then(|der| Certificate::parse(der));
        let result = match result {
            // It has closed before it showed who it is.
            Err(Refusal::Client(_)) if server.is_none() => Err(Refusal::Plain),
            result => result,
        };
        Handshake { server, result }
    }

    async fn greet(&self, host: &str, stream: TcpStream) -> io::Result<()> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(self.config.clone()).connect(name, stream).await?;
        stream.write_all(HELLO).await?;
        match stream.read(&mut [0; 9]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<CertificateDer<'static>>> {
        self.seen.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn configure(
    provider: Arc<CryptoProvider>,
    seen: Arc<Seen>,
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous() // no less is checked: see Seen
        .with_custom_certificate_verifier(seen);
    let mut config = match key {
        Some(key) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// All certificates of a PEM file.
fn certificates(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Vec<Certificate>), String> {
    let ders: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    let parsed = ders.iter().enumerate().map(|(i, der)| {
        Certificate::parse(der).ok_or_else(|| format!("certificate {} in it is no X.509 certificate", i + 1))
    });
    let parsed = parsed.collect::<Result<_, _>>()?;
    Ok((ders, parsed))
}

fn refusal(error: &io::Error) -> Refusal {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(InvalidCertificate(wrong)) => match wrong {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Refusal::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Refusal::OtherName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Refusal::NotValidYet
            }
            other => Refusal::Other(other.to_string()),
        },
        Some(AlertReceived(alert)) => {
            let alert = format!("{alert:?}");
            match alert.contains("Cert") || alert.contains("CA") {
                true => Refusal::Client(alert),
                false => Refusal::Other(format!("the server refuses TLS: {alert}")),
            }
        }
        Some(InvalidMessage(_)) => Refusal::Plain,
        Some(other) => Refusal::Other(other.to_string()),
        // The alert of a server that does not like the client may be lost when it closes at once.
        None if CLOSED.contains(&error.kind()) => Refusal::Client("connection closed".into()),
        None => Refusal::Other(error.to_string()),
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
