//! Certificates as a mesh in the middle of a rotation has them: leaves are signed by an
//! intermediate CA, which goes with them, and the bundle has an older root beside the one in use.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

pub(crate) struct Pki {
    dir: TempDir,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// What signs others.
fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Pki {
    /// `ca.crt`, and certificates and keys of `server` and `client`.
    pub(crate) fn new() -> Pki {
        let root =
            |name| CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap();
        let (old, new) = (root("old root"), root("root"));
        let intermediate =
            CertifiedIssuer::signed_by(authority("intermediate"), KeyPair::generate().unwrap(), &new)
                .unwrap();
        let pki = Pki { dir: tempfile::tempdir().unwrap(), intermediate };
        fs::write(pki.path("ca.crt"), old.pem() + &new.pem()).unwrap();
        pki.issue("server", 2050);
        pki.issue("client", 2050);
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a certificate that ends with the year before `until`.
    pub(crate) fn issue(&self, name: &str, until: i32) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.intermediate).unwrap();
        // As whoever renews certificates does: at no instant is a file half-written.
        for (suffix, text) in [("key", key.serialize_pem()), ("crt", leaf.pem() + &self.intermediate.pem())] {
            let new = self.path("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, self.path(&format!("{name}.{suffix}"))).unwrap();
        }
    }
}
