//! Certificates and keys that a client configuration names: read anew at every connect, so that
//! rotation works, and told when they end.

use super::ConfigError;
use crate::model::CertificateStatus;
use k8s_openapi::jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use x509_parser::pem::Pem;

/// Paths of certificates and keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TlsFiles {
    /// The configuration that names them.
    pub(super) file: PathBuf,
    /// CAs that may have signed the server's certificate; `None`: those that the system trusts.
    pub(super) ca: Option<PathBuf>,
    /// Certificate, with intermediate ones behind it, and key of the client.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// What is in them.
#[derive(PartialEq)]
pub(crate) struct TlsMaterial {
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) certificates: Vec<Certificate>,
}

/// A certificate, or several that are of use together, in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Certificate {
    /// Key of the configuration that names the file.
    key: &'static str,
    file: PathBuf,
    subject: String,
    /// When it ends, seconds since 1970.
    ends: i64,
}

impl TlsFiles {
    /// Reads the files.
    pub(crate) fn load(&self) -> Result<TlsMaterial, ConfigError> {
        let mut certificates = Vec::new();
        let ca = match &self.ca {
            None => None,
            Some(path) => {
                let (pem, all) = self.certificates("trusted-ca-file", path)?;
                // A bundle holds the CA of before beside its successor: what counts is the last to end.
                certificates.extend(all.into_iter().max_by_key(|certificate| certificate.ends));
                Some(pem)
            }
        };
        let identity = match &self.identity {
            None => None,
            Some((path, key)) => {
                let (pem, chain) = self.certificates("cert-file", path)?;
                // A chain is as good as the first of it to end.
                certificates.extend(chain.into_iter().min_by_key(|certificate| certificate.ends));
                let key_pem = self.read("key-file", key)?;
                if !String::from_utf8_lossy(&key_pem).contains("PRIVATE KEY-----") {
                    let problem = format!("'{}' holds no PEM block PRIVATE KEY", key.display());
                    return Err(self.wrong("key-file", problem));
                }
                Some((pem, key_pem))
            }
        };
        Ok(TlsMaterial { ca, identity, certificates })
    }

    fn wrong(&self, key: &'static str, problem: String) -> ConfigError {
        ConfigError { file: self.file.clone(), key, problem }
    }

    fn read(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
        std::fs::read(path)
            .map_err(|error| self.wrong(key, format!("'{}' cannot be read: {error}", path.display())))
    }

    /// The text of a file and all certificates in it.
    fn certificates(
        &self,
        key: &'static str,
        path: &Path,
    ) -> Result<(Vec<u8>, Vec<Certificate>), ConfigError> {
        let text = self.read(key, path)?;
        let wrong = |problem: String| self.wrong(key, format!("'{}' {problem}", path.display()));
        let mut found = Vec::new();
        for pem in Pem::iter_from_buffer(&text) {
            let pem = pem.map_err(|error| wrong(format!("is not PEM: {error}")))?;
            if pem.label != "CERTIFICATE" {
                continue;
            }
            let certificate = pem
                .parse_x509()
                .map_err(|error| wrong(format!("holds a certificate that cannot be read: {error}")))?;
            found.push(Certificate {
                key,
                file: path.into(),
                subject: certificate.subject().to_string(),
                ends: certificate.validity().not_after.timestamp(),
            });
        }
        match found.is_empty() {
            true => Err(wrong("holds no PEM block CERTIFICATE".into())),
            false => Ok((text, found)),
        }
    }
}

impl Certificate {
    pub(crate) fn status(&self) -> CertificateStatus {
        let ends = Timestamp::from_second(self.ends).unwrap_or(Timestamp::MAX);
        let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs().cast_signed());
        CertificateStatus {
            kind: self.key.into(),
            file: self.file.display().to_string(),
            subject: self.subject.clone(),
            expires: ends.to_string(),
            expires_in_seconds: self.ends.saturating_sub(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn certificate(name: &str, ends: i32) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(ends, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn a_bundle_ends_with_its_last_ca_and_a_chain_with_its_first_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let files = TlsFiles {
            file: "east".into(),
            ca: Some(put("ca", certificate("old", 2030) + &certificate("new", 2050))),
            identity: Some((
                put("cert", certificate("leaf", 2045) + &certificate("middle", 2040)),
                put("key", KeyPair::generate().unwrap().serialize_pem()),
            )),
        };
        let shown: Vec<_> = files.load().unwrap().certificates.iter().map(Certificate::status).collect();
        let brief: Vec<_> = shown
            .iter()
            .map(|c| (c.kind.as_str(), c.subject.contains("CN=new"), c.expires.as_str()))
            .collect();
        assert_eq!(
            brief,
            [("trusted-ca-file", true, "2050-01-01T00:00:00Z"), ("cert-file", false, "2040-01-01T00:00:00Z")]
        );
    }

    #[test]
    fn files_that_are_wrong_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.crt");
        let files = TlsFiles { file: "east".into(), ca: Some(ca.clone()), identity: None };
        let error = || files.load().err().unwrap().to_string();
        assert!(error().starts_with(&format!("east: trusted-ca-file: '{}' cannot be read", ca.display())));
        for (text, want) in [
            ("", "holds no PEM block CERTIFICATE"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "holds a certificate that cannot",
            ),
            ("-----BEGIN CERTIFICATE-----\nhalf", "is not PEM"),
        ] {
            std::fs::write(&ca, text).unwrap();
            assert!(error().contains(want), "{}", error());
        }
    }
}
