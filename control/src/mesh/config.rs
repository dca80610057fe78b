//! etcd client configuration files as Cilium reads them (`cilium-interop` 1.3) and the rules for
//! cluster names and ids (1.1).

mod tls;

pub(crate) use self::tls::{Certificate, TlsFiles, TlsMaterial};
use crate::records::ClusterConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A file is a configuration only if its text has this in it.
pub(crate) const MARK: &str = "endpoints:";

/// How to reach one etcd.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientConfig {
    pub(crate) endpoints: Vec<Endpoint>,
    /// Set iff there is an `https` endpoint.
    pub(crate) tls: Option<TlsFiles>,
    /// Name and password.
    pub(crate) user: Option<(String, String)>,
}

/// One member of an etcd, or a load balancer before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    /// As configured.
    pub(crate) url: String,
    /// What the server's certificate is checked against.
    pub(crate) host: String,
    /// URLs to connect to: the same, or one per alias address.
    pub(crate) dial: Vec<String>,
}

/// What is wrong with which key of which file.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError {
    file: PathBuf,
    key: &'static str,
    problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            "" => write!(f, "{}: {}", self.file.display(), self.problem),
            key => write!(f, "{}: {key}: {}", self.file.display(), self.problem),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Raw {
    endpoints: Vec<String>,
    trusted_ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    #[serde(default)]
    insecure_transport: bool,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    username: Option<String>,
    password: Option<String>,
    #[serde(default)]
    cilium_host_aliases: Vec<HostAlias>,
}

#[derive(Deserialize)]
struct HostAlias {
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    ips: Vec<IpAddr>,
}

impl ClientConfig {
    /// Reads and checks a file.
    pub(crate) fn read(file: &Path) -> Result<ClientConfig, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.into(),
            key: "",
            problem: format!("cannot be read: {error}"),
        })?;
        ClientConfig::parse(file, &text)
    }

    /// Checks the text of a file. Keys that this agent does not use are passed over, as Cilium does.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<ClientConfig, ConfigError> {
        let wrong = |key, problem: String| ConfigError { file: file.into(), key, problem };
        let raw: Raw = serde_norway::from_str(text)
            .map_err(|error| wrong("", format!("not an etcd client configuration: {error}")))?;
        if raw.insecure_skip_tls_verify {
            let problem = "true is not supported; name the server's CA in trusted-ca-file";
            return Err(wrong("insecure-skip-tls-verify", problem.into()));
        }
        if raw.endpoints.is_empty() {
            return Err(wrong("endpoints", "is empty; give at least one URL like https://HOST:2379".into()));
        }
        let aliases =
            aliases(&raw.cilium_host_aliases).map_err(|problem| wrong("cilium-host-aliases", problem))?;
        let mut endpoints = Vec::new();
        for url in &raw.endpoints {
            endpoints.push(endpoint(url, &aliases).map_err(|problem| wrong("endpoints", problem))?);
        }
        let https = raw.endpoints.iter().find(|url| url.starts_with("https://"));
        if let (Some(url), true) = (https, raw.insecure_transport) {
            let problem = format!("true contradicts the endpoint '{url}'; write http:// or remove this key");
            return Err(wrong("insecure-transport", problem));
        }
        let identity = match (raw.cert_file, raw.key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("key-file", "missing; it goes with cert-file".into())),
            (None, Some(_)) => return Err(wrong("cert-file", "missing; it goes with key-file".into())),
        };
        let tls = https.map(|_| TlsFiles { file: file.into(), ca: raw.trusted_ca_file, identity });
        let user = match (raw.username, raw.password) {
            (Some(name), Some(password)) => Some((name, password)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("password", "missing; it goes with username".into())),
            (None, Some(_)) => return Err(wrong("username", "missing; it goes with password".into())),
        };
        Ok(ClientConfig { endpoints, tls, user })
    }

    /// What is in the certificate files now; none without TLS.
    pub(crate) fn load_tls(&self) -> Result<Option<TlsMaterial>, ConfigError> {
        self.tls.as_ref().map(TlsFiles::load).transpose()
    }
}

fn aliases(raw: &[HostAlias]) -> Result<BTreeMap<&str, &[IpAddr]>, String> {
    let mut aliases = BTreeMap::new();
    for alias in raw {
        if alias.hostname.is_empty() {
            return Err("an entry has no hostname".into());
        }
        if alias.ips.is_empty() {
            return Err(format!("hostname '{}' has no ips", alias.hostname));
        }
        if aliases.insert(alias.hostname.as_str(), alias.ips.as_slice()).is_some() {
            return Err(format!("hostname '{}' is given twice", alias.hostname));
        }
    }
    Ok(aliases)
}

fn endpoint(url: &str, aliases: &BTreeMap<&str, &[IpAddr]>) -> Result<Endpoint, String> {
    let wrong = || format!("'{url}' is not a URL like https://HOST:2379 or http://HOST:2379");
    let (scheme, authority) = url.split_once("://").ok_or_else(wrong)?;
    if !matches!(scheme, "http" | "https") {
        return Err(wrong());
    }
    let (host, port) = authority.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let v6 = bare.contains(':');
    let fits = if v6 {
        bare.len() < host.len() && bare.parse::<IpAddr>().is_ok()
    } else {
        !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    if !fits {
        return Err(wrong());
    }
    let dial = match aliases.get(bare) {
        None => vec![format!("{scheme}://{host}:{port}")],
        Some(ips) => ips.iter().map(|ip| format!("{scheme}://{}", SocketAddr::new(*ip, port))).collect(),
    };
    Ok(Endpoint { url: url.into(), host: bare.into(), dial })
}

/// Longest cluster name.
const NAME_MAX: usize = 32;

/// Checks a cluster name (`cilium-interop` 1.1).
pub(crate) fn check_cluster_name(name: &str) -> Result<(), String> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let fits = (1..=NAME_MAX).contains(&bytes.len())
        && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
        && bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric);
    match fits {
        true => Ok(()),
        false => Err(format!(
            "cluster name '{name}' is not allowed: at most {NAME_MAX} lower-case letters, digits and '-', \
             beginning and ending with a letter or digit"
        )),
    }
}

/// Largest cluster id, and what clusters say of how many there may be: it decides which bits of an identity
/// are the cluster's.
pub(crate) const MAX_ID: u32 = 255;
/// What a cluster may say of the way it exports endpoints.
const EXPORT_MODES: [&str; 3] = ["", "services-and-endpointslices", "endpointslices-only"];

/// Checks what a cluster says of itself (`cilium-interop` 1.5).
pub(crate) fn check_cluster_config(name: &str, config: &ClusterConfig) -> Result<(), String> {
    let mode = config.capabilities.endpoint_slices_export_mode.as_str();
    let max = config.capabilities.max_connected_clusters;
    if ![0, MAX_ID].contains(&max) {
        return Err(format!(
            "cluster {name} has maxConnectedClusters {max}: only clusters with --max-connected-clusters={MAX_ID} can \
             be read, as others number identities differently"
        ));
    }
    if config.id == 0 || config.id > MAX_ID {
        return Err(format!("cluster {name} has id {}; ids are 1–{MAX_ID}", config.id));
    }
    if !EXPORT_MODES.contains(&mode) {
        return Err(format!("cluster {name} has the unknown endpointSlicesExportMode '{mode}'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<ClientConfig, String> {
        ClientConfig::parse(Path::new("east"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn typical_file() {
        let config = parse(
            "endpoints:\n- https://east.mesh.example:2379\ntrusted-ca-file: /c/ca.crt\nkey-file: /c/k\ncert-file: /c/c\n\
             ca-file: /old\ndial-timeout: 5\ncilium-host-aliases:\n- hostname: east.mesh.example\n  ips: [10.0.0.1, 'fd00::1']\n",
        )
        .unwrap();
        assert_eq!(config.endpoints[0].host, "east.mesh.example");
        assert_eq!(config.endpoints[0].dial, ["https://10.0.0.1:2379", "https://[fd00::1]:2379"]);
        let tls = config.tls.unwrap();
        assert_eq!((tls.ca, tls.identity), (Some("/c/ca.crt".into()), Some(("/c/c".into(), "/c/k".into()))));
    }

    #[test]
    fn errors_name_file_key_and_value() {
        let table = [
            ("endpoints: []", "east: endpoints: is empty"),
            ("endpoints: [ftp://a:1]", "east: endpoints: 'ftp://a:1'"),
            ("endpoints: ['http://a']", "east: endpoints: 'http://a'"),
            ("endpoints: ['http://a:0']", "east: endpoints: 'http://a:0'"),
            ("endpoints: ['http://a:99999']", "east: endpoints: 'http://a:99999'"),
            ("endpoints: ['http://fd00::1:2379']", "east: endpoints: 'http://fd00::1:2379'"),
            ("endpoints: x", "east: not an etcd client configuration: endpoints: invalid type"),
            ("endpoints: ['https://a:1']\ntrusted-ca-file: /ca\ncert-file: /c", "east: key-file: missing"),
            (
                "endpoints: ['https://a:1']\ninsecure-transport: true",
                "east: insecure-transport: true contradicts",
            ),
            (
                "endpoints: ['https://a:1']\ninsecure-skip-tls-verify: true",
                "east: insecure-skip-tls-verify: true",
            ),
            ("endpoints: ['http://a:1']\nusername: u", "east: password: missing"),
            (
                "endpoints: ['http://a:1']\ncilium-host-aliases: [{hostname: a}]",
                "east: cilium-host-aliases: hostname 'a'",
            ),
        ];
        for (text, want) in table {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(want), "{text}: {error}");
        }
    }

    #[test]
    fn cluster_names() {
        for good in ["a", "cluster1", "a-b", "0", "default", &"a".repeat(32)] {
            assert_eq!(check_cluster_name(good), Ok(()), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a.b", "a_b", "ü", &"a".repeat(33)] {
            assert!(check_cluster_name(bad).unwrap_err().contains(&format!("'{bad}'")), "{bad}");
        }
    }

    #[test]
    fn what_clusters_may_say_of_themselves() {
        let check =
            |json: &str| check_cluster_config("east", &crate::records::from_json(json.as_bytes()).unwrap());
        for good in [r#"{"id":255}"#, r#"{"id":1,"capabilities":{"maxConnectedClusters":255}}"#] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, want) in [
            ("{}", "id 0; ids are 1–255"),
            (r#"{"id":256}"#, "id 256"),
            (r#"{"id":300,"capabilities":{"maxConnectedClusters":511}}"#, "maxConnectedClusters 511: only"),
            (
                r#"{"id":1,"capabilities":{"endpointSlicesExportMode":"new"}}"#,
                "endpointSlicesExportMode 'new'",
            ),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.starts_with("cluster east has ") && error.contains(want), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = parse(&text);
            let _ = parse(&format!("endpoints: ['{}']", text.replace('\'', "")));
        }
    }
}
