//! Values in etcd: written bit for bit as Cilium writes them, read as leniently as it reads them
//! (`cilium-interop` 1.5, 2.1, 2.3–2.7).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

mod lenient;

/// A node (2.3).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Node {
    /// Node name; last part of the key.
    pub name: String,
    /// Cluster name.
    pub cluster: String,
    /// Addresses by type.
    #[serde(rename = "IPAddresses")]
    pub ip_addresses: Vec<NodeAddress>,
    /// Pod CIDR.
    #[serde(rename = "IPv4AllocCIDR")]
    pub ipv4_alloc_cidr: Option<Cidr>,
    /// More pod CIDRs.
    #[serde(rename = "IPv4SecondaryAllocCIDRs")]
    pub ipv4_secondary_alloc_cidrs: Option<Vec<Cidr>>,
    /// Pod CIDR.
    #[serde(rename = "IPv6AllocCIDR")]
    pub ipv6_alloc_cidr: Option<Cidr>,
    /// More pod CIDRs.
    #[serde(rename = "IPv6SecondaryAllocCIDRs")]
    pub ipv6_secondary_alloc_cidrs: Option<Vec<Cidr>>,
    /// Health endpoint.
    #[serde(rename = "IPv4HealthIP")]
    pub ipv4_health_ip: String,
    /// Health endpoint.
    #[serde(rename = "IPv6HealthIP")]
    pub ipv6_health_ip: String,
    /// Ingress listener.
    #[serde(rename = "IPv4IngressIP")]
    pub ipv4_ingress_ip: String,
    /// Ingress listener.
    #[serde(rename = "IPv6IngressIP")]
    pub ipv6_ingress_ip: String,
    /// Cluster id.
    #[serde(rename = "ClusterID")]
    pub cluster_id: u32,
    /// Who wrote it.
    pub source: String,
    /// IPsec key index.
    pub encryption_key: u8,
    /// Node labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Node annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// WireGuard public key.
    pub wireguard_pub_key: String,
    /// Boot id.
    #[serde(rename = "BootID")]
    pub boot_id: String,
}

/// An address of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `CiliumInternalIP`, `Hostname`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// The address.
    #[serde(rename = "IP")]
    pub ip: String,
}

/// A prefix as Go's `net.IPNet` is written in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cidr {
    /// Network address.
    #[serde(rename = "IP")]
    pub ip: String,
    /// Mask bytes in base64.
    #[serde(rename = "Mask")]
    pub mask: String,
}

/// Address → identity (2.6).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpIdentity {
    /// The address.
    #[serde(rename = "IP")]
    pub ip: String,
    /// Mask bytes in base64; `None` for a host entry.
    #[serde(rename = "Mask")]
    pub mask: Option<String>,
    /// Address of the node that hosts it.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// Numeric identity.
    #[serde(rename = "ID")]
    pub id: u32,
    /// Encryption key index.
    #[serde(rename = "Key")]
    pub key: u8,
    /// Unused.
    #[serde(rename = "Metadata")]
    pub metadata: String,
    /// Namespace of the pod.
    #[serde(rename = "K8sNamespace", skip_serializing_if = "String::is_empty")]
    pub k8s_namespace: String,
    /// Name of the pod.
    #[serde(rename = "K8sPodName", skip_serializing_if = "String::is_empty")]
    pub k8s_pod_name: String,
    /// Service account of the pod.
    #[serde(rename = "K8sServiceAccount", skip_serializing_if = "String::is_empty")]
    pub k8s_service_account: String,
    /// Named container ports.
    #[serde(rename = "NamedPorts", skip_serializing_if = "Vec::is_empty")]
    pub named_ports: Vec<NamedPort>,
}

/// A named container port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct NamedPort {
    /// Name.
    pub name: String,
    /// Number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// An exported service (2.7).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// Cluster name.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Frontends: address → port name → port.
    pub frontends: BTreeMap<String, Ports>,
    /// Backends: address → port name → port.
    pub backends: BTreeMap<String, Ports>,
    /// Host names of headless backends.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hostnames: BTreeMap<String, String>,
    /// Topology hints.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<String, Zone>,
    /// Labels of the Service.
    pub labels: Option<BTreeMap<String, String>>,
    /// Selector of the Service.
    pub selector: Option<BTreeMap<String, String>>,
    /// It is a global service.
    #[serde(rename = "includeExternal")]
    pub include_external: bool,
    /// Others may use its backends.
    pub shared: bool,
    /// Cluster id.
    #[serde(rename = "clusterID")]
    pub cluster_id: u32,
}

/// Topology of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Zone {
    /// The zone it is in.
    pub zone: String,
    /// The zones it should serve.
    pub for_zones: Vec<ZoneHint>,
}

/// A zone that a backend should serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZoneHint {
    /// Name of the zone.
    pub name: String,
}

/// Port name → port.
pub type Ports = BTreeMap<String, Port>;

/// Protocol and number of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Port {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: u16,
}

/// What a cluster says of itself (1.5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Cluster id.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: u32,
    /// What its writer can do.
    pub capabilities: Capabilities,
}

/// See `cilium-interop` 1.5.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Capabilities {
    /// It writes sync canaries.
    #[serde(skip_serializing_if = "is_false")]
    pub synced_canaries: bool,
    /// Its data lies under `cilium/cache/`.
    #[serde(skip_serializing_if = "is_false")]
    pub cached: bool,
    /// 255 or 511.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_connected_clusters: u32,
    /// MCS-API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_exports_enabled: Option<bool>,
    /// How backends are exported.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_slices_export_mode: String,
}

/// Reads the JSON of a record as Go's decoder does: case of field names does not matter, unknown fields
/// are passed over, `null` is the same as nothing.
///
/// # Errors
/// Where it is not JSON, or which field is of the wrong type.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    // Records deny unknown fields, so that what Cilium writes today is read in one pass.
    serde_json::from_slice(json).or_else(|_| lenient::from_json(json))
}

/// The JSON of a record as Go's encoder writes it: compact, `<`, `>`, `&` and the Unicode line
/// separators escaped.
pub fn to_json<T: Serialize>(record: &T) -> String {
    let json = serde_json::to_string(record).expect("records have string keys and no failing parts");
    // These characters can only stand inside of strings.
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

impl Cidr {
    /// The prefix, bits beyond its mask cut off; `None` if the address, the base64 or the mask is wrong.
    pub fn net(&self) -> Option<IpNet> {
        prefix(&self.ip, &self.mask).map(|net| net.trunc())
    }
}

impl From<IpNet> for Cidr {
    fn from(net: IpNet) -> Cidr {
        let mask = match net.netmask() {
            IpAddr::V4(mask) => STANDARD.encode(mask.octets()),
            IpAddr::V6(mask) => STANDARD.encode(mask.octets()),
        };
        Cidr { ip: net.network().to_string(), mask }
    }
}

impl Node {
    /// All its pod CIDRs; `Err` is the first one that is none, as `IP/mask`.
    pub fn pod_cidrs(&self) -> Result<Vec<IpNet>, String> {
        let first = [&self.ipv4_alloc_cidr, &self.ipv6_alloc_cidr].into_iter().flatten();
        let more = [&self.ipv4_secondary_alloc_cidrs, &self.ipv6_secondary_alloc_cidrs];
        first
            .chain(more.into_iter().flatten().flatten())
            .map(|cidr| cidr.net().ok_or_else(|| format!("{}/{}", cidr.ip, cidr.mask)))
            .collect()
    }
}

impl IpIdentity {
    /// The address as a full-length prefix, or the prefix; `None` if it is neither.
    pub fn net(&self) -> Option<IpNet> {
        match &self.mask {
            None => self.ip.parse::<IpAddr>().ok().map(IpNet::from),
            Some(mask) => prefix(&self.ip, mask),
        }
    }
}

fn prefix(ip: &str, mask: &str) -> Option<IpNet> {
    let mask = STANDARD.decode(mask).ok()?;
    let mask = match mask.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(mask).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(mask).ok()?),
        _ => return None,
    };
    IpNet::with_netmask(ip.parse().ok()?, mask).ok()
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

#[cfg(test)]
mod tests;
