//! Looking into an etcd without an agent.

use crate::etcd::Etcd;
use crate::eventually;
use control::admin::{Error, Event, Kvstore, Record, Value};
use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use std::cell::Cell;

/// Writes `test/000` and so on.
async fn fill(etcd: &Etcd, count: usize) {
    let mut client = etcd.client().await.unwrap();
    let keys: Vec<String> = (0..count).map(|number| format!("test/{number:03}")).collect();
    for some in keys.chunks(100) {
        let puts: Vec<_> = some.iter().map(|key| TxnOp::put(key.as_str(), "x", None)).collect();
        let new = some.iter().map(|key| Compare::version(key.as_str(), CompareOp::Equal, 0));
        client.txn(Txn::new().when(new.collect::<Vec<_>>()).and_then(puts)).await.unwrap();
    }
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let etcd = Etcd::start_with_passwords("reader", "secret").await;
    etcd.allow_only("reader", &["cilium/.heartbeat"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = async |config: &str| {
        std::fs::write(file.path(), config).unwrap();
        Kvstore::open(file.path()).await
    };
    let good = etcd.config();
    let nobody = good.lines().take(2).collect::<Vec<_>>().join("\n");
    let error = |error: Option<Error>| error.unwrap().to_string();
    let store = open(&good).await.unwrap();
    let said = [
        error(store.get("").await.err()),
        error(store.get("secret").await.err()),
        error(store.list("cilium/", false).next(1).await.err()),
        error(open(&nobody).await.unwrap().get("cilium/.heartbeat").await.err()),
        error(open(&good.replace("secret", "wrong")).await.err()),
        error(open(&good.replace("http:", "https:")).await.err()),
        error(open("endpoints: ['http://127.0.0.1:1']").await.err()),
    ];
    let name = file.path().display().to_string();
    for (said, words) in said.iter().zip([
        ["the key is empty", "kvstore list"],
        ["'secret': ", "use the client file of a user who may"],
        ["'cilium/': ", "use the client file of a user who may"],
        ["'cilium/.heartbeat': ", "add cert-file and key-file, or username and password"],
        [name.as_str(), "correct username and password"],
        ["https://127.0.0.1:", "the server does not speak TLS"],
        ["http://127.0.0.1:1: connection refused", "start etcd there"],
    ]) {
        assert!(words.iter().all(|words| said.contains(words)), "{words:?}: {said}");
    }
}

#[tokio::test]
async fn keys_come_page_by_page_and_up_to_a_limit() {
    let etcd = Etcd::start().await;
    fill(&etcd, 600).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), etcd.config()).unwrap();
    let store = Kvstore::open(file.path()).await.unwrap();
    for (prefix, limit, want) in [
        ("test/", usize::MAX, 600),
        ("", usize::MAX, 600),
        ("test/", 300, 300),
        ("test/59", 20, 10),
        ("u", 7, 0),
    ] {
        let (mut pages, mut keys) = (store.list(prefix, true), Vec::new());
        while let Some(records) = pages.next(limit - keys.len()).await.unwrap() {
            assert!(records.len() <= 256 && records.iter().all(|record| record.value.is_none()));
            keys.extend(records.into_iter().map(|record| record.key));
            if keys.len() == limit {
                break;
            }
        }
        assert_eq!(keys.len(), want, "'{prefix}' up to {limit}");
        assert!(keys.is_sorted() && keys.iter().all(|key| key.starts_with(prefix)));
    }
    let record = store.get("test/007").await.unwrap().unwrap();
    assert_eq!((record.value, record.lease), (Some(Value::Text("x".into())), None));
    assert_eq!(store.get("test/").await.unwrap(), None);
}

#[tokio::test]
async fn changes_come_in_order_with_bytes_that_are_no_text() {
    let etcd = Etcd::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), etcd.config()).unwrap();
    let store = Kvstore::open(file.path()).await.unwrap();
    let (mut seen, begun) = (Vec::new(), Cell::new(false));
    let watched = store.watch("test/", |event| {
        match event {
            Event::Put(Record { key, .. }) if key == "test/begin" => begun.set(true),
            event => seen.push(event),
        }
        // Nobody wants to know more.
        if seen.len() == 2 { Err(Done) } else { Ok(()) }
    });
    let changed = async {
        let mut client = etcd.client().await.unwrap();
        eventually("the watch is there", async || {
            client.put("test/begin", "", None).await.unwrap();
            begun.get()
        })
        .await;
        client.put("test/a", [0xff], None).await.unwrap();
        client.delete("test/a", None).await.unwrap();
    };
    assert!(tokio::join!(watched, changed).0.is_err());
    match seen.as_slice() {
        [Event::Put(put), Event::Delete { key, mod_revision }] => {
            assert_eq!((put.key.as_str(), key.as_str()), ("test/a", "test/a"));
            assert_eq!(put.value, Some(Value::Binary("/w==".into())));
            assert_eq!(*mod_revision, put.mod_revision + 1);
        }
        other => panic!("{other:?}"),
    }
}

/// Why the test stops watching.
#[derive(Debug)]
struct Done;

impl From<Error> for Done {
    fn from(error: Error) -> Done {
        panic!("{error}");
    }
}
