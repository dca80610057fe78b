use super::super::memory::MemoryStore;
use super::*;

fn names(batch: &Batch) -> (Vec<String>, Option<bool>) {
    match batch {
        Batch::Listing { entries, complete } => {
            (entries.iter().map(|e| e.key.clone()).collect(), Some(*complete))
        }
        Batch::Changes(changes) => {
            let name = |change: &Change| match change {
                Change::Put(entry) => format!("+{}", entry.key),
                Change::Delete(key) => format!("-{key}"),
            };
            (changes.iter().map(name).collect(), None)
        }
    }
}

async fn put(store: &MemoryStore, key: &str) {
    store.put(key, b"v", 0).await.unwrap();
}

#[tokio::test]
async fn lists_then_watches_below_its_prefix_only() {
    let store = MemoryStore::default();
    put(&store, "p/a").await;
    put(&store, "pq").await;
    let mut follower = Follower::new(&store, "p/".into(), Gate::None);
    assert_eq!(names(&follower.next().await.unwrap()), (vec!["a".into()], Some(true)));
    put(&store, "pq").await;
    put(&store, "p/b/c").await;
    store.delete("p/a", i64::MAX).await.unwrap();
    assert_eq!(names(&follower.next().await.unwrap()).0, ["+b/c"]);
    assert_eq!(names(&follower.next().await.unwrap()).0, ["-a"]);
}

#[tokio::test]
async fn nothing_is_read_before_the_canary() {
    let store = MemoryStore::default();
    put(&store, "p/a").await;
    let mut follower = Follower::new(&store, "p/".into(), Gate::Read("canary".into()));
    let (batch, ()) = tokio::join!(follower.next(), async {
        tokio::task::yield_now().await;
        put(&store, "p/b").await;
        put(&store, "canary").await;
    });
    assert_eq!(names(&batch.unwrap()), (vec!["a".into(), "b".into()], Some(true)));
}

#[tokio::test]
async fn nothing_is_complete_before_the_canary() {
    let store = MemoryStore::default();
    put(&store, "p/a").await;
    let mut follower = Follower::new(&store, "p/".into(), Gate::Forget("canary".into()));
    assert_eq!(names(&follower.next().await.unwrap()).1, Some(false));
    put(&store, "p/b").await;
    assert_eq!(names(&follower.next().await.unwrap()).0, ["+b"]);
    put(&store, "canary").await;
    assert_eq!(names(&follower.next().await.unwrap()), (vec!["a".into(), "b".into()], Some(true)));
}

#[tokio::test]
async fn waits_until_a_key_goes() {
    let store = MemoryStore::default();
    wait_gone(&store, "k").await.unwrap();
    put(&store, "k").await;
    put(&store, "key").await;
    let gone = tokio::join!(wait_gone(&store, "k"), async {
        store.delete("key", i64::MAX).await.unwrap();
        put(&store, "k").await;
        store.delete("k", i64::MAX).await.unwrap();
    });
    gone.0.unwrap();
}
