use super::*;
use proptest::prelude::*;
use serde::de::DeserializeOwned;

/// Keys and values recorded from real Cilium programs, one pair a line.
const RECORDED: &str = include_str!("testdata/recorded.txt");

fn again<T: Serialize + DeserializeOwned>(value: &str) -> String {
    to_json(&serde_json::from_str::<T>(value).unwrap())
}

#[test]
fn recorded_values_are_reproduced_byte_for_byte() {
    for line in RECORDED.lines() {
        let (key, value) = line.split_once(' ').unwrap();
        let ours = match key.trim_start_matches("cilium/").trim_start_matches("state/") {
            k if k.starts_with("nodes/") => again::<Node>(value),
            k if k.starts_with("ip/") => again::<IpIdentity>(value),
            k if k.starts_with("services/") => again::<Service>(value),
            k if k.starts_with("cluster-config/") => again::<ClusterConfig>(value),
            k if k.starts_with("identities/") => crate::labels::Labels::parse(value).to_string(),
            _ => panic!("no record type for {key}"),
        };
        assert_eq!(ours, value, "{key}");
    }
}

#[test]
fn older_and_sparse_values_are_read() {
    let node: Node = serde_json::from_str(
        r#"{"Name":"n","Cluster":"c","ClusterID":3,"IPAddresses":null,"NodeIdentity":0}"#,
    )
    .unwrap();
    assert_eq!((node.ip_addresses, node.cluster_id), (vec![], 3));
    let service: Service =
        serde_json::from_str(r#"{"cluster":"c","namespace":"n","name":"s","backends":null,"hostnames":{}}"#)
            .unwrap();
    assert_eq!((service.backends.len(), service.shared), (0, false));
    let ip: IpIdentity =
        serde_json::from_str(r#"{"IP":"10.2.0.5","HostIP":"172.30.0.77","ID":131073}"#).unwrap();
    assert_eq!(ip.net(), Some("10.2.0.5/32".parse().unwrap()));
    assert!(serde_json::from_str::<Service>(r#"{"backends":{"10.0.0.1":{"a":{"Port":"80"}}}}"#).is_err());
}

#[test]
fn angle_brackets_are_escaped_as_go_does() {
    let ip = IpIdentity { metadata: "a<b>&\u{2028}".into(), ..Default::default() };
    assert!(to_json(&ip).contains(r#""Metadata":"a\u003cb\u003e\u0026\u2028""#));
}

proptest! {
    #[test]
    fn prefixes_survive_go_form(v4: u32, v6: u128, len4 in 0u8..=32, len6 in 0u8..=128) {
        let nets = [
            IpNet::new(IpAddr::from(v4.to_be_bytes()), len4).unwrap().trunc(),
            IpNet::new(IpAddr::from(v6.to_be_bytes()), len6).unwrap().trunc(),
        ];
        for net in nets {
            prop_assert_eq!(Cidr::from(net).net(), Some(net));
        }
    }

    #[test]
    fn no_mask_panics(ip in "[0-9a-f.:]{0,20}", mask in "[A-Za-z0-9/+=]{0,24}") {
        let _ = prefix(&ip, &mask);
    }
}
