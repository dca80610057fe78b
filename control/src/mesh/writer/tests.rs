use super::super::memory::MemoryStore;
use super::*;

const IP: &str = "cilium/state/ip/v1/default/10.2.1.5";
const LEADER: &str = "leader";

fn writer() -> Writer {
    let writer = Writer::new(Duration::from_secs(900));
    writer.begin();
    for stage in Stage::ALL {
        writer.begin_listing(stage);
        writer.end_listing(stage);
    }
    writer
}

fn want(writer: &Writer, stage: Stage, keys: &[(&str, &str)]) {
    writer.replace(stage, keys.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
}

async fn value(store: &MemoryStore, key: &str) -> Option<String> {
    store.get(key).await.unwrap().map(|entry| String::from_utf8(entry.value).unwrap())
}

/// Makes somebody the leader; returns what shows that it is.
async fn elect(store: &MemoryStore, name: &str) -> (&'static str, i64) {
    store.put(LEADER, name.as_bytes(), 0).await.unwrap();
    (LEADER, store.get(LEADER).await.unwrap().unwrap().revision)
}

#[tokio::test]
async fn the_first_to_claim_an_address_keeps_it_until_it_goes() {
    let (store, first, second) = (MemoryStore::default(), writer(), writer());
    want(&first, Stage::Ip, &[(IP, "first")]);
    first.pass(&store, None).await.unwrap();
    want(&second, Stage::Ip, &[(IP, "second")]);
    second.pass(&store, None).await.unwrap();
    assert_eq!(value(&store, IP).await.unwrap(), "first");
    assert_eq!(second.taken(Stage::Ip), BTreeMap::from([(IP.into(), b"first".to_vec())]));
    want(&first, Stage::Ip, &[(IP, "first, changed")]);
    first.pass(&store, None).await.unwrap();
    assert_eq!(value(&store, IP).await.unwrap(), "first, changed", "it may change its own");

    // Somebody deletes it, the second takes it, and only then the first withdraws what it has not.
    store.delete_if(IP, &[]).await.unwrap();
    second.observe(Stage::Ip, Change::Delete(IP.into()));
    second.pass(&store, None).await.unwrap();
    assert_eq!(value(&store, IP).await.unwrap(), "second");
    assert!(second.taken(Stage::Ip).is_empty());
    want(&first, Stage::Ip, &[]);
    first.pass(&store, None).await.unwrap();
    assert_eq!(value(&store, IP).await.unwrap(), "second", "an old delete removes no newer owner");
}

#[tokio::test]
async fn who_no_longer_leads_writes_nothing_for_the_cluster() {
    let (store, writer) = (MemoryStore::default(), writer());
    let leadership = elect(&store, "n1").await;
    want(&writer, Stage::Service, &[("service", "1")]);
    writer.pass(&store, Some(leadership)).await.unwrap();
    assert_eq!(value(&store, "service").await.unwrap(), "1");
    // It was asleep and does not know yet.
    elect(&store, "n2").await;
    want(&writer, Stage::Service, &[("other", "2")]);
    want(&writer, Stage::Node, &[("node", "n1")]);
    writer.pass(&store, Some(leadership)).await.unwrap();
    assert_eq!(value(&store, "service").await.unwrap(), "1");
    assert_eq!((value(&store, "other").await, value(&store, "node").await), (None, Some("n1".into())));
}

#[tokio::test]
async fn canaries_wait_until_everything_else_is_written() {
    let (store, writer) = (MemoryStore::default(), writer());
    want(&writer, Stage::Node, &[("node", "n1")]);
    writer.pass(&store, None).await.unwrap();
    let lease = store.get("node").await.unwrap().unwrap().lease;
    store.revoke(lease).await.unwrap();
    writer.observe(Stage::Node, Change::Delete("node".into()));
    let leadership = elect(&store, "n1").await;
    want(&writer, Stage::Canary, &[("canary", "now")]);
    writer.pass(&store, Some(leadership)).await.unwrap();
    assert_eq!((value(&store, "node").await, value(&store, "canary").await), (None, None));
    writer.pass(&store, Some(leadership)).await.unwrap();
    assert_eq!(
        (value(&store, "node").await, value(&store, "canary").await),
        (Some("n1".into()), Some("now".into()))
    );
}

#[tokio::test]
async fn keys_that_are_written_again_and_again_take_the_same_room() {
    let (store, writer) = (MemoryStore::default(), writer());
    let uses: Vec<String> = (0..900).map(|i| format!("use {i}")).collect();
    want(&writer, Stage::IdentityUse, &uses.iter().map(|key| (key.as_str(), "1")).collect::<Vec<_>>());
    for _ in 0..5 {
        writer.pass(&store, None).await.unwrap();
        writer.doubt(Stage::IdentityUse);
    }
    for key in &uses {
        store.delete_if(key, &[]).await.unwrap();
        writer.observe(Stage::IdentityUse, Change::Delete(key.clone()));
    }
    writer.pass(&store, None).await.unwrap();
    let entries = store.list("use").await.unwrap().entries;
    let leases: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.lease).collect();
    assert_eq!((entries.len(), leases.len()), (900, 1));
}

/// Keys by lease.
async fn leases(store: &MemoryStore) -> Vec<usize> {
    let mut keys = BTreeMap::<LeaseId, usize>::new();
    for entry in store.list("").await.unwrap().entries {
        *keys.entry(entry.lease).or_default() += 1;
    }
    keys.into_values().collect()
}

#[tokio::test]
async fn leases_are_as_full_on_the_next_connection() {
    let (store, writer) = (MemoryStore::default(), writer());
    for i in 0..900 {
        writer.add(Stage::IdentityUse, format!("use {i}"), "1".into());
        writer.add(Stage::Ip, format!("ip {i}"), "1".into());
    }
    writer.pass(&store, None).await.unwrap();
    assert_eq!(leases(&store).await, [1000, 800]);

    writer.begin();
    writer.begin_listing(Stage::Ip);
    for entry in store.list("ip 1").await.unwrap().entries {
        writer.observe(Stage::Ip, Change::Put(entry));
    }
    writer.begin(); // the listing was broken off
    for i in 900..1000 {
        writer.put(&store, Stage::IdentityUse, format!("use {i}"), "1".into()).await.unwrap();
    }
    writer.begin_listing(Stage::Ip);
    writer.pass(&store, None).await.unwrap();
    for entry in store.list("ip").await.unwrap().entries {
        writer.observe(Stage::Ip, Change::Put(entry));
    }
    writer.end_listing(Stage::Ip);
    for i in 900..1000 {
        writer.add(Stage::Ip, format!("ip {i}"), "1".into());
    }
    writer.pass(&store, None).await.unwrap();
    assert_eq!(leases(&store).await, [1000, 1000]);
}

#[tokio::test]
async fn a_late_delete_spares_what_was_written_anew() {
    let (store, writer) = (MemoryStore::default(), writer());
    let key = "use";
    writer.put(&store, Stage::IdentityUse, key.into(), "1".into()).await.unwrap();
    writer.remove(Stage::IdentityUse, key);
    let [delete] = writer.tasks(Stage::IdentityUse).try_into().ok().expect("one task");
    writer.put(&store, Stage::IdentityUse, key.into(), "2".into()).await.unwrap();
    assert!(writer.execute(&store, Stage::IdentityUse, delete, None).await.unwrap());
    assert_eq!(value(&store, key).await.unwrap(), "2");
    assert!(writer.has(Stage::IdentityUse, key), "so that it can be deleted later");

    writer.remove(Stage::IdentityUse, key);
    store.delete_if(key, &[]).await.unwrap();
    writer.pass(&store, None).await.unwrap();
    assert!(!writer.has(Stage::IdentityUse, key), "it need not be tried again");
}
