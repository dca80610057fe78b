use super::*;
use proptest::prelude::*;
use serde::de::DeserializeOwned;

/// Keys and values recorded from real Cilium programs, one pair a line.
const RECORDED: &str = include_str!("testdata/recorded.txt");

fn again<T: Serialize + DeserializeOwned>(value: &str) -> String {
    to_json(&from_json::<T>(value.as_bytes()).unwrap())
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

fn read<T: DeserializeOwned>(value: &str) -> T {
    from_json(value.as_bytes()).unwrap()
}

#[test]
fn older_and_sparse_values_are_read() {
    let node: Node = read(r#"{"Name":"n","Cluster":"c","ClusterID":3,"IPAddresses":null,"NodeIdentity":0}"#);
    assert_eq!((node.ip_addresses, node.cluster_id), (vec![], 3));
    let service: Service =
        read(r#"{"cluster":"c","namespace":"n","name":"s","backends":null,"hostnames":{}}"#);
    assert_eq!((service.backends.len(), service.shared), (0, false));
    let ip: IpIdentity = read(r#"{"IP":"10.2.0.5","HostIP":"172.30.0.77","ID":131073}"#);
    assert_eq!(ip.net(), Some("10.2.0.5/32".parse().unwrap()));
}

#[test]
fn field_names_and_nulls_are_read_as_go_does() {
    let exact = r#"{"cluster":"c","namespace":"n","name":"s","frontends":{},"backends":{"10.0.0.1":{"WEB":{"Protocol":"TCP","Port":80},"none":{}},"10.0.0.2":{}},"zones":{"10.0.0.1":{"zone":"Z","forZones":[{"name":""}]}},"labels":{"App":"x","empty":""},"selector":null,"includeExternal":false,"shared":true,"clusterID":7}"#;
    let odd = r#"{"CLUSTER":"c","namespace":"n","Name":"wrong","name":"s","NAME":"wrong","frontends":null,"Backends":{"10.0.0.1":{"WEB":{"protocol":"TCP","PORT":80,"new":[1]},"none":null},"10.0.0.2":null},"zones":{"10.0.0.1":{"Zone":"Z","forzones":[null]}},"labels":{"App":"x","empty":null},"includeExternal":null,"shared":true,"clusterid":7,"hostnames":{}}"#;
    let service: Service = read(odd);
    assert_eq!(service, read(exact));
    assert_eq!(to_json(&service).replace(r#""none":{"Protocol":"","Port":0}"#, r#""none":{}"#), exact);
    let config: ClusterConfig = read(r#"{"ID":3,"Capabilities":{"SYNCEDCANARIES":true}}"#);
    assert_eq!((config.id, config.capabilities.synced_canaries), (3, true));
}

#[test]
fn wrong_types_are_named() {
    let table = [
        (
            r#"{"backends":{"10.0.0.1":{"a":{"Port":"80"}}}}"#,
            "backends.10.0.0.1.a.Port: invalid type: string",
        ),
        (r#"{"clusterID":-1}"#, "clusterID: invalid value: integer `-1`"),
        (r#"{"shared":1}"#, "shared: invalid type: integer `1`"),
        ("7", "invalid type: integer `7`"),
        (r#"{"name":"#, "EOF while parsing"),
    ];
    for (value, why) in table {
        let error = from_json::<Service>(value.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{value}: {error}");
    }
}

#[test]
fn angle_brackets_are_escaped_as_go_does() {
    let ip = IpIdentity { metadata: "a<b>&\u{2028}".into(), ..Default::default() };
    assert!(to_json(&ip).contains(r#""Metadata":"a\u003cb\u003e\u0026\u2028""#));
}

proptest! {
    /// Whatever the case of its field names, a record says the same.
    #[test]
    fn case_of_field_names_does_not_matter(line in 0..RECORDED.lines().count(), upper: bool) {
        let (_, value) = RECORDED.lines().nth(line).unwrap().split_once(' ').unwrap();
        let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(value) else { return Ok(()) };
        let fold = |name: String| if upper { name.to_ascii_uppercase() } else { name.to_ascii_lowercase() };
        let folded: serde_json::Map<_, _> = fields.into_iter().map(|(name, value)| (fold(name), value)).collect();
        let folded = serde_json::to_vec(&folded).unwrap();
        prop_assert_eq!(from_json::<Node>(&folded).ok(), from_json(value.as_bytes()).ok());
        prop_assert_eq!(from_json::<IpIdentity>(&folded).ok(), from_json(value.as_bytes()).ok());
        prop_assert_eq!(from_json::<Service>(&folded).ok(), from_json(value.as_bytes()).ok());
        prop_assert_eq!(from_json::<ClusterConfig>(&folded).ok(), from_json(value.as_bytes()).ok());
    }

    #[test]
    fn no_record_panics(json in "[\\[\\]{}\":,a-zA-Z0-9 -]{0,60}") {
        let _ = from_json::<Service>(json.as_bytes());
    }

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
