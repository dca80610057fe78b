#[path = "../../../tests/mesh/pki.rs"]
mod pki;
#[expect(dead_code, reason = "the tests of the mesh need more of it")]
#[path = "../../../tests/mesh/etcd.rs"]
mod real;

use super::*;
use real::Etcd;
use std::path::Path;

/// Waits for something that must come.
async fn eventually(_what: &str, mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_watch_that_is_refused_is_none() {
    let etcd = Etcd::start_with_passwords("reader", "secret").await;
    etcd.allow_only("reader", &[keys::HEARTBEAT]).await;
    let config = ClientConfig::parse(Path::new("west"), &etcd.config()).unwrap();
    let store = EtcdStore::connect(&config).await.unwrap();
    assert!(store.watch(keys::HEARTBEAT, 1).await.is_ok());
    // The stream opens all the same: whoever took that for a watch would take what it knows for confirmed.
    let refusal = store.watch("cilium/state/ip/v1/", 1).await.err().unwrap().to_string();
    assert!(refusal.starts_with("watch refused: "), "{refusal}");
}
