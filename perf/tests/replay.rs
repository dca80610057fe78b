//! What a live agent's monitor says of a drop, `dataplane-perf replay` says of the capture.

use serde_json::Value;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::process::Process;
use tests::{Node, World, eventually, manifests};

const ONLY_FRIENDS: &str = "endpointSelector: {matchLabels: {app: redis}}
ingress:
- {fromEndpoints: [{matchLabels: {app: friend}}], toPorts: [{ports: [{port: '6379', protocol: TCP}]}]}
ingressDeny:
- {fromEndpoints: [{matchLabels: {app: enemy}}]}";

/// What both are to agree on.
const SAID: [&str; 8] =
    ["reason", "reasonCode", "direction", "why", "srcLabel", "dstLabel", "srcCluster", "dstCluster"];

#[test]
fn a_drop_is_replayed_with_its_reason() {
    let world = World::single();
    world.cluster(1).apply("policy.yaml", &manifests::policy("redis", ONLY_FRIENDS));
    let node = world.node(1, 1);
    let [redis, stranger, enemy] =
        ["redis", "stranger", "enemy"].map(|app| node.pod(&format!("default/{app}"), &format!("app={app}")));
    let (link, any) = (world.dir().join("link.pcap"), world.dir().join("any.pcap"));
    let captures = [capture(node, &format!("dp{}", stranger.id), &link), capture(node, "any", &any)];
    let monitor = node.monitor("--type=drop -o json");
    for pod in [&stranger, &enemy] {
        let to = (redis.ipv4, 6379).into();
        let connected = pod.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(500)));
        assert!(connected.is_err(), "{} reaches redis", pod.name);
    }
    let live = |identity: u64| {
        eventually("the monitor has the drop", || {
            let log = monitor.log();
            let mut records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            // A pod's stack also says things that are nobody's business.
            let is =
                |record: &Value| record["srcLabel"] == identity && record["summary"]["l4"]["dst"] == "6379";
            records.find(is).ok_or(log.clone())
        })
    };
    let identities = [stranger.identity(), enemy.identity()];
    let [stranger_live, enemy_live] = identities.map(live);
    for capture in captures {
        assert!(capture.stop().success());
    }
    let state = world.dir().join("state.json");
    fs::write(&state, node.cli.show("state dump")).unwrap();
    // Neither is needed any more: all is said by the files.
    node.stop();

    let replayed = replay(&link, &state, &["--interface", "default/stranger"]);
    assert_eq!(said(dropped(&replayed, identities[0])), said(&stranger_live));
    let replayed = replay(&any, &state, &[]);
    assert_eq!(said(dropped(&replayed, identities[0])), said(&stranger_live));
    assert_eq!(said(dropped(&replayed, identities[1])), said(&enemy_live));
    assert_ne!(stranger_live["why"], enemy_live["why"]);

    let error = run(&link, &state, &[]).unwrap_err();
    assert!(error.contains("does not say where it was taken; say it with --interface"), "{error}");
}

fn capture(node: &Node, interface: &str, file: &Path) -> Process {
    let mut command = node.host.command("tcpdump");
    command.args(["--immediate-mode", "-U", "-n", "-i", interface, "-w"]).arg(file).arg("tcp port 6379");
    let capture = Process::start(&mut command, &file.with_extension("log"));
    eventually("tcpdump listens", || {
        if capture.log().contains("listening on") { Ok(()) } else { Err(capture.log()) }
    });
    capture
}

fn run(capture: &Path, state: &Path, flags: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dataplane-perf"));
    command.args(["-o", "json", "replay"]).arg(capture).arg("--state").arg(state).args(flags);
    tests::command::output(&mut command)
}

fn replay(capture: &Path, state: &Path, flags: &[&str]) -> Vec<Value> {
    let lines = run(capture, state, flags).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is said of the first drop of a sender.
fn dropped(lines: &[Value], identity: u64) -> &Value {
    let dropped = lines.iter().filter(|line| line["verdict"] == "dropped");
    let mut events = dropped.flat_map(|line| line["events"].as_array().unwrap());
    let found = events.find(|event| event["type"] == "drop" && event["srcLabel"] == identity);
    found.unwrap_or_else(|| panic!("no drop of {identity} in {lines:#?}"))
}

fn said(record: &Value) -> Vec<&Value> {
    let summary = &record["summary"];
    let said = SAID.iter().map(|key| &record[key]);
    said.chain([&summary["l3"], &summary["l4"]["dst"], &summary["detail"]]).collect()
}
