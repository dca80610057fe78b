use super::super::memory::MemoryStore;
use super::*;

/// What a batch is, in short: `[` begins and `]` ends a listing, `…` ends an incomplete one.
fn told(batch: &Batch) -> String {
    match batch {
        Batch::Begin { audit: None } => "[".into(),
        Batch::Begin { audit: Some(since) } => format!("audit {since}["),
        Batch::Entries(entries) => entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>().join(" "),
        Batch::End { complete } => if *complete { "]" } else { "…" }.into(),
        Batch::Changes(changes) => {
            let name = |change: &Change| match change {
                Change::Put(entry) => format!("+{}", entry.key),
                Change::Delete(key) => format!("-{key}"),
            };
            changes.iter().map(name).collect::<Vec<_>>().join(" ")
        }
    }
}

/// The next batch.
async fn one(follower: &mut Follower<'_>) -> String {
    told(&follower.next().await.unwrap())
}

/// The next listing.
async fn listing(follower: &mut Follower<'_>) -> String {
    let (begin, entries, end) = (one(follower).await, one(follower).await, one(follower).await);
    format!("{begin}{entries}{end}")
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
    assert_eq!(listing(&mut follower).await, "[a]");
    put(&store, "pq").await;
    put(&store, "p/b/c").await;
    store.delete_if("p/a", &[]).await.unwrap();
    assert_eq!(one(&mut follower).await, "+b/c");
    assert_eq!(one(&mut follower).await, "-a");
    assert_eq!(follower.seen(), 5);
}

#[tokio::test]
async fn nothing_is_read_before_the_canary() {
    let store = MemoryStore::default();
    put(&store, "p/a").await;
    let mut follower = Follower::new(&store, "p/".into(), Gate::Read("canary".into()));
    let (all, ()) = tokio::join!(listing(&mut follower), async {
        tokio::task::yield_now().await;
        put(&store, "p/b").await;
        put(&store, "canary").await;
    });
    assert_eq!(all, "[a b]");
}

#[tokio::test]
async fn nothing_is_complete_before_the_canary() {
    let store = MemoryStore::default();
    put(&store, "p/a").await;
    let mut follower = Follower::new(&store, "p/".into(), Gate::Forget("canary".into()));
    assert_eq!(listing(&mut follower).await, "[a…");
    put(&store, "p/b").await;
    assert_eq!(one(&mut follower).await, "+b");
    put(&store, "canary").await;
    assert_eq!(listing(&mut follower).await, "[a b]");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_connection_is_gone_on_with() {
    let store = MemoryStore::default();
    put(&store, "p/a").await;
    let mut follower = Follower::resume(&store, "p/".into(), Gate::None, 2).await.unwrap();
    put(&store, "p/b").await;
    assert_eq!(one(&mut follower).await, "+b");
    // It may have lost what nobody can tell at once.
    let begun = Instant::now();
    assert_eq!(listing(&mut follower).await, "audit 2[a b]");
    assert!(begun.elapsed() <= 2 * AUDIT_RESUMED);
    // The store in memory keeps no history.
    let mut follower = Follower::resume(&store, "p/".into(), Gate::None, 1).await.unwrap();
    assert_eq!(listing(&mut follower).await, "[a b]");
}

#[tokio::test(start_paused = true)]
async fn now_and_then_everything_is_listed_again() {
    let store = MemoryStore::default();
    put(&store, "p/a").await;
    let mut follower = Follower::new(&store, "p/".into(), Gate::None);
    assert_eq!(listing(&mut follower).await, "[a]");
    let begun = Instant::now();
    // What the watch has told is compared with the same revision …
    assert_eq!(listing(&mut follower).await, "audit 1[a]");
    let jitter = AUDIT.mul_f64(AUDIT_JITTER);
    assert!(begun.elapsed() >= AUDIT - jitter && begun.elapsed() <= AUDIT + 2 * jitter);
    put(&store, "p/b").await;
    assert_eq!(one(&mut follower).await, "+b");
    // … and if that is no longer kept, with the newest one; what is told from there on is complete.
    put(&store, "q").await;
    assert_eq!(one(&mut follower).await, "audit 2[");
    assert_eq!(listing(&mut follower).await, "audit 2[a b]");
    put(&store, "p/c").await;
    assert_eq!(one(&mut follower).await, "+c");
}

#[tokio::test]
async fn waits_until_a_key_goes() {
    let store = MemoryStore::default();
    wait_gone(&store, "k").await.unwrap();
    put(&store, "k").await;
    put(&store, "key").await;
    let gone = tokio::join!(wait_gone(&store, "k"), async {
        store.delete_if("key", &[]).await.unwrap();
        put(&store, "k").await;
        store.delete_if("k", &[]).await.unwrap();
    });
    gone.0.unwrap();
}
