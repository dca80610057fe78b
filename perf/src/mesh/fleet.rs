//! Simulated remote clusters: everything they have in etcd, as kvstoremesh mirrors it.

use std::net::Ipv4Addr;
use std::ops::Range;

/// Addresses of each cluster, of a node, and addresses that share an identity.
pub(super) const ADDRESSES: u32 = 10_000;
const OF_NODE: u32 = 1024;
const OF_IDENTITY: u32 = 10;
/// One address in so many is of a pod with a named port.
const NAMED: u32 = 4;
/// Each cluster has a /16 from here on for its pods, and one for its nodes.
const PODS: u32 = 0x0c00_0000;
const NODES: u32 = 0x1400_0000;
/// Numbers of identities begin with it in each cluster.
const FIRST_IDENTITY: u32 = 256;

/// The namespace of pods with this identity.
pub(super) fn namespace(identity: u32) -> String {
    format!("shop-{}", identity % 50)
}

/// A key and its value.
pub(super) type Record = (String, String);

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Remote(u32);

/// Those with numbers from 0.
pub(super) fn remotes(numbers: Range<u32>) -> impl Iterator<Item = Remote> + Clone {
    numbers.map(Remote)
}

impl Remote {
    /// The one that an address is probed of.
    pub(super) fn first() -> Remote {
        Remote(0)
    }

    pub(super) fn number(number: u32) -> Remote {
        Remote(number)
    }

    pub(super) fn name(self) -> String {
        format!("remote{}", self.0)
    }

    /// Everything it has.
    pub(super) fn records(self) -> Vec<Record> {
        let name = self.name();
        let mut records: Vec<Record> = (0..ADDRESSES.div_ceil(OF_NODE)).map(|node| self.node(node)).collect();
        records.extend(
            (0..ADDRESSES / OF_IDENTITY).map(|number| self.identity(number, &format!("app-{number}"))),
        );
        records.extend((0..ADDRESSES).map(|number| self.address(number, number / OF_IDENTITY)));
        for kind in ["nodes", "identities", "ip", "services"] {
            records.push((format!("cilium/synced/{name}/cilium/cache/{kind}/v1"), "done".to_owned()));
        }
        let capabilities = r#"{"syncedCanaries":true,"cached":true,"maxConnectedClusters":255}"#;
        let config = format!(r#"{{"id":{},"capabilities":{capabilities}}}"#, self.id());
        records.push((format!("cilium/cluster-config/{name}"), config));
        records
    }

    fn id(self) -> u32 {
        // 101 is the node's own.
        if self.0 < 100 { self.0 + 1 } else { self.0 + 2 }
    }

    fn node(self, number: u32) -> Record {
        let (name, id) = (self.name(), self.id());
        let pods = Ipv4Addr::from(self.network(PODS) + number * OF_NODE);
        let address = self.host(number);
        let record = format!(
            r#"{{"Name":"node-{number}","Cluster":"{name}","IPAddresses":[{{"Type":"InternalIP","IP":"{address}"}}],"IPv4AllocCIDR":{{"IP":"{pods}","Mask":"///8AA=="}},"ClusterID":{id},"Source":"kvstore"}}"#
        );
        (format!("cilium/cache/nodes/v1/{name}/node-{number}"), record)
    }

    /// One of its identities, of pods with this label.
    pub(super) fn identity(self, number: u32, app: &str) -> Record {
        let (name, identity) = (self.name(), self.identity_number(number));
        let namespace = namespace(number);
        let labels = format!(
            "k8s:app={app};k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace};\
             k8s:io.cilium.k8s.policy.cluster={name};k8s:io.cilium.k8s.policy.serviceaccount=default;\
             k8s:io.kubernetes.pod.namespace={namespace};"
        );
        (format!("cilium/cache/identities/v1/{name}/id/{identity}"), labels)
    }

    /// One of its addresses, with one of its identities.
    pub(super) fn address(self, number: u32, identity: u32) -> Record {
        self.pod(
            Ipv4Addr::from(self.network(PODS) + number),
            number / OF_NODE,
            identity,
            number.is_multiple_of(NAMED),
        )
    }

    /// Any address of a pod on one of its nodes, with one of its identities.
    pub(super) fn pod(self, ip: Ipv4Addr, node: u32, identity: u32, named: bool) -> Record {
        let (host, id) = (self.host(node), self.identity_number(identity));
        let (namespace, suffix) = (namespace(identity), u32::from(ip));
        let ports =
            if named { r#","NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]"# } else { "" };
        let record = format!(
            r#"{{"IP":"{ip}","Mask":null,"HostIP":"{host}","ID":{id},"Key":0,"Metadata":"","K8sNamespace":"{namespace}","K8sPodName":"app-{identity}-{suffix:08x}","K8sServiceAccount":"default"{ports}}}"#
        );
        (format!("cilium/cache/ip/v1/{}/{ip}", self.name()), record)
    }

    fn host(self, node: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network(NODES) + 1 + node)
    }

    fn identity_number(self, identity: u32) -> u32 {
        (self.id() << 16) + FIRST_IDENTITY + identity
    }

    fn network(self, first: u32) -> u32 {
        first + (self.0 << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_and_their_nodes_have_addresses_of_their_own() {
        let ends = |number| Remote(number).network(PODS)..Remote(number).network(PODS) + ADDRESSES;
        assert!(remotes(0..200).all(|remote| remote.id() <= 255 && remote.id() != 101));
        assert!((1..200).all(|number| ends(number - 1).end <= ends(number).start));
        assert!(ends(199).end <= NODES);
        let records = Remote(0).records();
        let keys: std::collections::BTreeSet<_> = records.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), records.len());
    }
}
