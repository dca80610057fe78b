//! The command line: what it refuses and how, and what it prints.

use serde_json::Value;
use std::fs;
use std::process::Command;
use tests::manifests::service;
use tests::node::{Cli, dataplane};
use tests::{World, eventually};

#[test]
fn wrong_flags_are_refused_with_name_value_and_what_would_be_right() {
    let good = "--cluster-name=c1 --cluster-id=1 --pod-cidr=10.1.0.0/24 --uplink=eth0";
    for (option, value, complaint) in [
        ("--cluster-name", "Bad_Name", "lower-case"),
        ("--cluster-id", "0", "1"),
        ("--cluster-id", "256", "255"),
        ("--pod-cidr", "10.1.0.5/24", "10.1.0.0/24"),
        ("--pod-cidr", "10.1.0/24", "10.1.0/24"),
        ("--node-ip", "10.1", "10.1"),
        ("--policy-mode", "sometimes", "never"),
        ("--poll", "lazy", "adaptive"),
        ("--workers", "0", "0"),
        ("--metrics", "9962", "9962"),
        ("--no-such-flag", "x", "--no-such-flag"),
    ] {
        let mut flags: Vec<String> =
            good.split(' ').filter(|flag| !flag.starts_with(option)).map(str::to_owned).collect();
        flags.push(format!("{option}={value}"));
        let output = Command::new(dataplane()).arg("run").args(&flags).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}={value}: {text}");
        for word in ["error: ", option, value, complaint] {
            assert!(text.contains(word), "{option}={value}: {word} is missing: {text}");
        }
    }
}

#[test]
fn a_client_without_an_agent_says_which_socket_it_tried() {
    let nowhere = std::env::temp_dir().join("no-such-directory/dataplane.sock");
    let refusal = Cli { socket: nowhere.clone() }.run("node list").unwrap_err();
    assert!(
        refusal.contains("exit status: 1") && refusal.contains(&nowhere.display().to_string()),
        "{refusal}"
    );
}

#[test]
fn files_that_cannot_be_read_are_named_before_anything_is_made() {
    let world = World::lay(&[1]);
    let node = world.node(1, 1);
    for (flags, complaint) in [
        (["--manifests=/no/such/manifests"], "/no/such/manifests"),
        (["--kvstore-config=/no/such/file"], "/no/such/file"),
        (["--config-dir=/no/such/directory"], "/no/such/directory"),
        (["--uplink=nic9"], "nic9"),
    ] {
        let refusal = node.run_to_end(&flags).unwrap_err();
        assert!(refusal.contains("error: ") && refusal.contains(complaint), "{flags:?}: {refusal}");
        assert_eq!(node.host.links().len(), 2, "after: {refusal}");
    }
}

/// What it prints with `-o json`, and that it says the same with `-o yaml`.
fn structured(cli: &Cli, words: &str) -> Value {
    let json = cli.json(words);
    let yaml = cli.say(&format!("{words} -o yaml"));
    let parsed: Value = serde_norway::from_str(&yaml).unwrap_or_else(|e| panic!("{words}: {e}\n{yaml}"));
    // Times and counters go on in between.
    assert_eq!(fields(&json), fields(&parsed), "{words}");
    json
}

/// The paths of all that is neither a list nor an object.
fn fields(value: &Value) -> Vec<String> {
    let below = |name: &str, value| fields(value).into_iter().map(|path| format!("{name}/{path}")).collect();
    let inner: Vec<Vec<String>> = match value {
        Value::Array(all) => all.iter().map(|value| below("-", value)).collect(),
        Value::Object(all) => all.iter().map(|(name, value)| below(name, value)).collect(),
        _ => return vec![String::new()],
    };
    inner.concat()
}

#[test]
fn every_list_comes_as_table_json_and_yaml() {
    let world = World::of(&[1, 1]);
    let node = world.node(1, 1);
    world.cluster(1).apply("web.yaml", &service("web", 10, ""));
    world.cluster(1).apply(
        "policy.yaml",
        &tests::manifests::policy("open", "endpointSelector: {}\ningress: [{fromEntities: [all]}]"),
    );
    let pod = node.pod("default/web", "app=web");
    let _server = pod.serve(8080, "web");
    node.host.reaches(pod.addresses(), 8080, "web", tests::reach::ALL);
    eventually("the policy and the service are there", || {
        let text = node.cli.show("policy list") + &node.cli.show("service list");
        if text.contains("open") && text.contains("10.96.0.10:80/TCP") { Ok(()) } else { Err(text) }
    });
    for (list, headers) in [
        ("node list", "Name IPv4 Address Endpoint CIDR IPv6 Address"),
        ("identity list", "ID LABELS"),
        ("endpoint list", "ENDPOINT POLICY (ingress) POLICY (egress) IDENTITY LABELS"),
        ("service list", "ID Frontend Service Type Backend"),
        ("policy list", "open"),
        ("ipcache list", "IDENTITY"),
        ("ct list", "TCP"),
    ] {
        let table = node.cli.show(list);
        let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(headers), "{list}: {table}");
        let entries = structured(&node.cli, list);
        assert!(entries.as_array().is_some_and(|all| !all.is_empty()), "{list}: {entries:#}");
    }
    assert_eq!(structured(&node.cli, &format!("endpoint get {}", pod.id))["id"], pod.id);
    let identity = structured(&node.cli, &format!("identity get {}", pod.identity()));
    assert_eq!(identity["id"], pod.identity(), "{identity:#}");
    assert_eq!(structured(&node.cli, "status")["cluster-name"], "cluster1");
    let remotes = structured(&node.cli, "clustermesh status");
    assert_eq!(
        (&remotes[0]["name"], &remotes[0]["ready"]),
        (&"cluster2".into(), &true.into()),
        "{remotes:#}"
    );
    let identity = node.cli.show(&format!("identity get {}", pod.identity()));
    assert!(identity.contains("k8s:app=web"), "{identity}");
    let refusal = node.cli.run("endpoint get 64999").unwrap_err();
    assert!(refusal.contains("64999"), "{refusal}");
    let status = node.cli.show("status --verbose");
    for line in ["KVStore:", "IPAM:", "IPv4: 1/25", "ClusterMesh:"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert!(node.cli.show("completion bash").contains("dataplane"));
    node.cli.show("ct flush");
    assert_eq!(node.cli.json("ct list"), Value::Array(Vec::new()));
}

#[test]
fn options_come_from_a_directory_too_and_metrics_are_served() {
    let world = World::single();
    let node = world.node(1, 1);
    node.stop();
    let dir = world.dir().join("config");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("metrics"), format!("{}:9962\n", node.ipv4)).unwrap();
    fs::write(dir.join("cluster-name"), "flags-win\n").unwrap();
    node.launch(&["--config-dir", dir.to_str().unwrap()]);
    node.ready();
    assert_eq!(node.cli.json("status")["cluster-name"], "cluster1");
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", node.ipv4);
    let metrics = world.outside.enter(|| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect((node.ipv4, 9962)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(metrics.starts_with("HTTP/1.") && metrics.contains("200 OK"), "{metrics}");
    for series in ["# TYPE cilium_drop_count counter", "cilium_forward_count_total", "dataplane_conntrack"] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    fs::write(dir.join("cluster-nam"), "x").unwrap();
    node.stop();
    let refusal = node.run_to_end(&["--config-dir", dir.to_str().unwrap()]).unwrap_err();
    assert!(refusal.contains("error: ") && refusal.contains("cluster-nam"), "{refusal}");
}
