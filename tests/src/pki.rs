//! A certificate authority, and certificates for an etcd and its clients.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A certificate with its key, as PEM files.
pub struct Pair {
    /// Certificate.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// A certificate authority that writes into a directory.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    /// Makes one.
    pub fn create(dir: &Path) -> Authority {
        fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "mesh");
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a self-signed certificate");
        let authority = Authority { issuer, dir: dir.to_owned() };
        authority.write("ca.crt", &authority.issuer.pem());
        authority
    }

    /// The file with its certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A certificate for servers at `addresses` and for clients named `name`.
    pub fn issue(&self, name: &str, addresses: &[IpAddr]) -> Pair {
        self.issue_until(name, addresses, 4096)
    }

    /// A certificate that ends with a year.
    pub fn issue_until(&self, name: &str, addresses: &[IpAddr], year: i32) -> Pair {
        let names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let mut params = CertificateParams::new(names).expect("addresses are valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = key();
        let cert = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        Pair {
            cert: self.write(&format!("{name}.crt"), &cert.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    fn write(&self, file: &str, pem: &str) -> PathBuf {
        let path = self.dir.join(file);
        fs::write(&path, pem).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        path
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
