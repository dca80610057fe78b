use super::*;
use crate::mesh::store::{Change as StoreChange, Entry};
use proptest::prelude::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const ORIGIN: &str = "test";
/// Environment variable that names the file of [`writes_until_killed`].
const FILE: &str = "DATAPLANE_TEST_FILE";
const KINDS: [Kind; 2] = [Kind::Ips, Kind::Nodes];

type Records = BTreeMap<(&'static str, String), Vec<u8>>;

fn records(file: &File, cluster: &str) -> Records {
    let mut records = Records::new();
    let take = |kind: Kind, chunk: Vec<StoreChange>| {
        for change in chunk {
            let StoreChange::Put(Entry { key, value, .. }) = change else { panic!("{change:?}") };
            assert!(records.insert((kind.name(), key), value).is_none());
        }
        true
    };
    file.read(cluster, 3, take).unwrap();
    records
}

fn item(cluster: &str, change: Change) -> Item {
    Item { cluster: cluster.into(), change }
}

fn change() -> impl Strategy<Value = Change> {
    let kind = || prop::sample::select(&KINDS[..]);
    let key = || "[a-c]{1,2}";
    prop_oneof![
        8 => (kind(), key(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(k, n, v)| Change::Put(k, n, v)),
        4 => (kind(), key()).prop_map(|(k, n)| Change::Delete(k, n)),
        1 => (1u32..9).prop_map(Change::Begin),
        1 => Just(Change::Forget),
    ]
}

/// What the file must hold after a change.
#[derive(Default)]
struct Model {
    row: Option<Row>,
    records: Records,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(kind, key, value) => {
                self.records.insert((kind.name(), key.clone()), value.clone());
            }
            Change::Delete(kind, key) => _ = self.records.remove(&(kind.name(), key.clone())),
            Change::Begin(id) => {
                *self = Model { row: Some(Row { id: *id, confirmed: None }), ..Model::default() };
            }
            Change::Forget => *self = Model::default(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_file_holds_what_was_written(
        batches in prop::collection::vec(prop::collection::vec((0usize..2, change()), 0..12), 1..6)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let clusters = ["east", "west"];
        let mut models = [Model::default(), Model::default()];
        for (time, batch) in (1..).zip(batches) {
            let (file, unusable) = File::open(&path, ORIGIN).unwrap();
            prop_assert!(unusable.is_none());
            batch.iter().for_each(|(cluster, change)| models[*cluster].apply(change));
            let items: Vec<_> =
                batch.into_iter().map(|(cluster, change)| item(clusters[cluster], change)).collect();
            file.write(&items, &[("west", time)]).unwrap();
            if let Some(row) = &mut models[1].row {
                row.confirmed = Some(time);
            }
            drop(file);
            let (file, _) = File::open(&path, ORIGIN).unwrap();
            let rows = file.clusters().unwrap();
            for (cluster, model) in clusters.into_iter().zip(&models) {
                prop_assert_eq!(rows.get(cluster), model.row.as_ref());
                prop_assert_eq!(&records(&file, cluster), &model.records);
            }
        }
    }
}

fn name(address: &str) -> Name {
    Name::Ip(address.parse().unwrap())
}

async fn open(dir: &TempDir, cluster: &str) -> Arc<Persistence> {
    Persistence::open(dir.path().join("learned"), cluster, 1).await
}

async fn read(persistence: &Arc<Persistence>, cluster: &str) -> Vec<String> {
    let (mut keys, mut chunks) = (Vec::new(), persistence.read(cluster));
    while let Some((_, chunk)) = chunks.recv().await {
        keys.extend(chunk.into_iter().map(|change| match change {
            StoreChange::Put(entry) => entry.key,
            StoreChange::Delete(key) => panic!("{key}"),
        }));
    }
    keys
}

#[tokio::test]
async fn the_next_run_knows_what_was_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir, "east").await;
    for (cluster, confirmed) in [("west", true), ("north", false), ("south", true)] {
        let journal = first.journal(cluster);
        journal.begin(2);
        journal.put(&name("10.2.1.5/32"), b"{}");
        journal.put(&name("10.2.0.0/16"), b"{}");
        journal.put(&Name::Identity(wire::Identity(131073)), b"k8s:a=b;");
        journal.delete(&name("10.2.0.0/16"));
        first.confirm(cluster, confirmed);
    }
    first.close().await;
    let second = open(&dir, "east").await;
    second.retain(|name| name != "south");
    let west = second.earlier("west").unwrap();
    assert!(west.id == 2 && west.age < Duration::from_secs(3600), "{west:?}");
    assert_eq!(read(&second, "west").await, ["131073", "10.2.1.5"], "identities come first");
    assert_eq!([second.earlier("west"), second.earlier("north"), second.earlier("south")], [None; 3]);
    second.close().await;
    let third = open(&dir, "east").await;
    assert!(third.earlier("west").is_some(), "it is still there");
    assert!(read(&third, "south").await.is_empty());
    third.close().await;
    let other = open(&dir, "elsewhere").await;
    assert_eq!((other.earlier("west"), other.problem()), (None, None), "it is of another cluster");
    other.close().await;
}

#[tokio::test]
async fn whatever_is_in_the_file_the_agent_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("learned");
    let first = open(&dir, "east").await;
    let journal = first.journal("west");
    journal.begin(2);
    for i in 0..2000u32 {
        journal.put(&Name::Ip(std::net::IpAddr::from((0x0a02_0000 + i).to_be_bytes()).into()), &[b'x'; 100]);
    }
    first.confirm("west", true);
    first.close().await;
    let good = std::fs::read(&path).unwrap();
    let mut random = 1u64;
    for round in 0..40 {
        let mut bad = good.clone();
        match round {
            0 => bad.clear(),
            1 => bad = b"not a database".to_vec(),
            2 => bad.truncate(good.len() / 2),
            _ => {
                for _ in 0..200 {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let at = (random >> 16) as usize % bad.len();
                    bad[at] ^= 1 << (random >> 61);
                }
            }
        }
        std::fs::write(&path, bad).unwrap();
        let persistence = open(&dir, "east").await;
        if persistence.earlier("west").is_some() {
            read(&persistence, "west").await;
        }
        persistence.journal("west").put(&name("10.2.1.5/32"), b"{}");
        persistence.close().await;
    }
}

#[tokio::test]
async fn without_a_place_nothing_is_kept() {
    let persistence = Persistence::open("/proc/nowhere".into(), "east", 1).await;
    let problem = persistence.problem().unwrap();
    assert!(problem.starts_with("/proc/nowhere: "), "{problem}");
    persistence.journal("west").begin(2);
    persistence.room().await;
    persistence.close().await;
}

/// What the other process of [`a_killed_process_leaves_what_it_wrote_last`] does.
fn write_until_killed(path: &Path) {
    let file = File::open(path, ORIGIN).unwrap().0;
    for round in 0u64.. {
        let put = |i| Change::Put(Kind::Ips, format!("key {i}"), round.to_string().into_bytes());
        let items: Vec<_> = (0..500).map(|i| item("west", put(i))).collect();
        file.write(&items, &[]).unwrap();
        println!("\nwritten {round}");
    }
}

#[test]
fn a_killed_process_leaves_what_it_wrote_last() {
    if let Some(path) = std::env::var_os(FILE) {
        return write_until_killed(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    for attempt in 0..4 {
        let path = dir.path().join("file");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "mesh::persist::tests::a_killed_process_leaves_what_it_wrote_last",
            ])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut written = output.filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
        let last = written.nth(3 + 5 * attempt).expect("it writes until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
        let (file, unusable) = File::open(&path, ORIGIN).unwrap();
        assert!(unusable.is_none(), "{unusable:?}");
        let values: BTreeSet<_> = records(&file, "west").into_values().collect();
        assert_eq!(values.len(), 1, "a batch is written as a whole");
        let value: u64 = String::from_utf8(values.into_iter().next().unwrap()).unwrap().parse().unwrap();
        assert!(value >= last, "{value} is there, {last} was written");
    }
}
