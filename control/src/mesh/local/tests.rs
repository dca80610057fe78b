use super::*;

#[test]
fn an_address_that_moved_to_another_node_is_left_to_it() {
    let addresses = vec!["172.16.1.1".parse().unwrap()];
    let local = Local::new(Shared::alone(tokio::sync::mpsc::channel(1).0, addresses));
    let entry = |host: &str| {
        let value = format!(r#"{{"IP":"10.1.1.5","HostIP":"{host}","ID":65537}}"#).into_bytes();
        Entry { key: "10.1.1.5".into(), value, lease: 1, revision: 1 }
    };
    let prefix = keys::prefix(Kind::Ips, Layout::State, "east");
    let ours = || local.writer.has(Stage::Ip, &format!("{prefix}10.1.1.5"));
    local.show_writer(Stage::Ip, &prefix, &Batch::Entries(vec![entry("172.16.1.1")]));
    assert!(ours(), "from an earlier life, to be withdrawn");
    local.show_writer(Stage::Ip, &prefix, &Batch::Changes(vec![Change::Put(entry("172.16.1.2"))]));
    assert!(!ours());
}
