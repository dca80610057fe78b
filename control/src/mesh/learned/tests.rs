use super::*;
use crate::mesh::memory::MemoryStore;
use tokio::sync::mpsc;

fn record(ip: &str) -> (String, Vec<u8>) {
    let value = format!(r#"{{"IP":"{ip}","HostIP":"172.16.2.1","ID":131073}}"#);
    (format!("cilium/state/ip/v1/default/{ip}"), value.into_bytes())
}

#[tokio::test(start_paused = true)]
async fn what_the_watch_has_missed_is_repaired_and_counted() {
    let (store, (updates, mut received)) = (MemoryStore::default(), mpsc::channel(16));
    let learned = Learned::new(Shared::alone(updates, vec![]), "west".into(), 2, true);
    let ((old, value), (new, other)) = (record("10.2.1.1"), record("10.2.1.2"));
    store.put(&old, &value, 0).await.unwrap();
    let mut next = async || match received.recv().await {
        Some(Update::IpUpsert(_, net, _)) => format!("+{net}"),
        Some(Update::IpDelete(_, net)) => format!("-{net}"),
        other => panic!("{other:?}"),
    };
    let repaired = async {
        assert_eq!(next().await, "+10.2.1.1/32");
        store.replace_unseen(&old, &new, &other);
        assert_eq!(next().await, "+10.2.1.2/32");
        assert_eq!(next().await, "-10.2.1.1/32");
        while lock(&learned.audits).last.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        end = learned.follow(&store, (Kind::Ips, Layout::State), Gate::None, None, |_| {}) => panic!("{end:?}"),
        () = repaired => {}
    }
    assert_eq!(lock(&learned.audits).repaired, 2);
}
