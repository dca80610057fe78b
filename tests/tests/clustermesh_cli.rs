//! A mesh made, looked at and taken apart by the command line: `clustermesh init`, `connect`,
//! `troubleshoot`, `disconnect` and `kvstore`, with certificates that say who everybody is.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tests::manifests::{service, service_addresses};
use tests::node::dataplane;
use tests::pki::{Authority, Pair};
use tests::process::Process;
use tests::reach::{ALL, PORTS};
use tests::{Node, World, eventually};

/// Two clusters whose etcds nobody has set up, with directories of their own for remote clusters.
struct Mesh {
    world: World,
}

/// How a command ended: its status, and all it said.
struct Said {
    status: Option<i32>,
    text: String,
}

impl Mesh {
    fn lay() -> Mesh {
        let mut world = World::lay(&[1, 1]);
        let dir = world.dir().to_owned();
        for cluster in &mut world.clusters {
            let mesh = dir.join(format!("{}-mesh", cluster.name));
            fs::create_dir(&mesh).unwrap();
            let admin = format!("admin-{}", cluster.name);
            let kvstore = config(&dir, &cluster.name, &admin, &cluster.etcd().authority);
            for node in &mut cluster.nodes {
                node.replace_flag("--kvstore-config", &kvstore.display().to_string());
                node.replace_flag("--clustermesh-config", &mesh.display().to_string());
            }
        }
        Mesh { world }
    }

    fn node(&self, cluster: usize) -> &Node {
        self.world.node(cluster, 1)
    }

    /// Runs `dataplane` on the node of a cluster, where its agent is found too.
    fn run(&self, cluster: usize, words: &str) -> Said {
        let node = self.node(cluster);
        let mut command = node.host.command("timeout");
        command.arg("120").arg(dataplane()).args(words.split_whitespace());
        command.env("DATAPLANE_SOCKET", &node.cli.socket).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap()).concat();
        Said { status: output.status.code(), text }
    }

    fn show(&self, cluster: usize, words: &str) -> String {
        let said = self.run(cluster, words);
        assert_eq!(said.status, Some(0), "{words}: {}", said.text);
        said.text
    }

    /// A client configuration that `init` or an agent of a cluster uses.
    fn kvstore(&self, cluster: usize, user: &str) -> PathBuf {
        let name = &self.world.cluster(cluster).name;
        let authority = &self.world.cluster(cluster).etcd().authority;
        config(self.world.dir(), name, user, authority)
    }

    fn init(&self, cluster: usize) -> String {
        let (name, other) = (format!("cluster{cluster}"), format!("cluster{}", 3 - cluster));
        let file = self.kvstore(cluster, &format!("admin-{name}"));
        format!(
            "clustermesh init --kvstore-config {} --cluster-name {name} --cluster-id {} --remote {other}",
            file.display(),
            100 + cluster
        )
    }

    /// Runs etcdctl as the administrator of a cluster.
    fn ctl(&self, cluster: usize, words: &str) -> String {
        self.ctl_as(cluster, &format!("admin-cluster{cluster}"), words).unwrap()
    }

    fn ctl_as(&self, cluster: usize, user: &str, words: &str) -> Result<String, String> {
        let etcd = self.world.cluster(cluster).etcd();
        let pair = certificate(&etcd.authority, user);
        etcd.host.run(&format!(
            "env ETCDCTL_API=3 etcdctl --endpoints=https://10.0.{cluster}.100:2379 --cacert={} --cert={} --key={} {words}",
            etcd.authority.ca().display(),
            pair.cert.display(),
            pair.key.display()
        ))
    }

    fn sides(&self) -> String {
        let dir = self.world.dir().display();
        format!(
            "--left-name cluster1 --left-dir {dir}/cluster1-mesh --right-name cluster2 --right-dir {dir}/cluster2-mesh"
        )
    }
}

/// The certificate of a user, always the same.
fn certificate(authority: &Authority, user: &str) -> Pair {
    let [cert, key] = ["crt", "key"].map(|end| authority.ca().with_file_name(format!("{user}.{end}")));
    if cert.exists() { Pair { cert, key } } else { authority.issue(user, &[]) }
}

/// Writes a client configuration of a cluster's etcd.
fn config(dir: &Path, cluster: &str, user: &str, authority: &Authority) -> PathBuf {
    let pair = certificate(authority, user);
    let number = cluster.trim_start_matches("cluster");
    let file = dir.join(format!("{cluster}-{user}.yaml"));
    let text = format!(
        "endpoints:\n- https://10.0.{number}.100:2379\ntrusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n",
        authority.ca().display(),
        pair.cert.display(),
        pair.key.display()
    );
    fs::write(&file, text).unwrap();
    file
}

/// The names of the files in a directory.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_mesh_is_set_up_joined_looked_at_and_parted() {
    let mesh = Mesh::lay();
    let world = &mesh.world;
    world.clusters.iter().for_each(|cluster| cluster.etcd().start());
    sets_up_users_once_and_locks_nobody_out(&mesh);
    users_may_do_what_their_roles_say(&mesh);
    world.nodes().for_each(Node::start);
    refuses_the_etcd_of_another_cluster(&mesh);

    let connect = format!(
        "clustermesh connect {} --left-config {} --right-config {}",
        mesh.sides(),
        mesh.kvstore(1, "remote-cluster2").display(),
        mesh.kvstore(2, "remote-cluster1").display()
    );
    let directories = ["cluster1-mesh", "cluster2-mesh"].map(|name| world.dir().join(name));
    let said = mesh.show(1, &format!("{connect} --dry-run"));
    assert!(said.contains(&format!("would write {}/cluster2", directories[0].display())), "{said}");
    assert_eq!(directories.each_ref().map(|dir| files(dir).len()), [0, 0]);
    let swapped = connect.replace("--left-name cluster1", "--left-name cluster7");
    let refusal = mesh.run(1, &swapped);
    assert_eq!(refusal.status, Some(1), "{}", refusal.text);
    assert!(refusal.text.contains("cilium/cluster-config/cluster7"), "{}", refusal.text);
    assert_eq!(directories.each_ref().map(|dir| files(dir).len()), [0, 0]);

    mesh.show(1, &connect);
    let certificates = ["etcd-client-ca.crt", "etcd-client.crt", "etcd-client.key"];
    let expected: Vec<String> = certificates.iter().fold(vec!["cluster2".into()], |mut all, end| {
        all.push(format!("cluster2.{end}"));
        all
    });
    assert_eq!(files(&directories[0]), expected);
    assert!(mesh.show(1, &connect).contains("nothing to do"));
    reaches_the_other_cluster(&mesh);
    says_that_all_is_well(&mesh);
    shows_keys(&mesh);

    mesh.show(1, &format!("clustermesh disconnect {}", mesh.sides()));
    assert_eq!(directories.each_ref().map(|dir| files(dir).len()), [0, 0]);
    eventually("the other cluster is forgotten", || {
        let list = mesh.node(1).cli.show("node list");
        if list.contains("cluster2/") { Err(list) } else { Ok(()) }
    });
    let again = mesh.run(1, &format!("clustermesh disconnect {}", mesh.sides()));
    assert!(again.status == Some(1) && again.text.contains("are not connected"), "{}", again.text);
    reads_the_cache_with_the_role_for_it(&mesh);
}

fn sets_up_users_once_and_locks_nobody_out(mesh: &Mesh) {
    let stranger = mesh.init(1).replace("cluster1-admin-cluster1", "cluster1-client");
    mesh.kvstore(1, "client");
    let refusal = mesh.run(1, &stranger);
    assert_eq!(refusal.status, Some(1), "{}", refusal.text);
    assert!(refusal.text.contains("common name 'client' would be locked out"), "{}", refusal.text);
    for cluster in [1, 2] {
        let said = mesh.show(cluster, &mesh.init(cluster));
        assert!(said.ends_with("turned authentication on\n"), "{said}");
        let said = mesh.show(cluster, &mesh.init(cluster));
        assert!(said.starts_with("nothing to do"), "{said}");
    }
    let users = mesh.ctl(1, "user list");
    assert_eq!(
        users.split_whitespace().collect::<Vec<_>>(),
        ["admin-cluster1", "local-cluster1", "remote", "remote-cluster2", "root"]
    );
    let role = mesh.ctl(1, "role get remote");
    for range in [
        "[cilium/.heartbeat, cilium/.heartbeau)",
        "[cilium/state/, cilium/state0)",
        "cilium/cluster-config/cluster1\n",
        "[cilium/synced/cluster1/, cilium/synced/cluster10)",
    ] {
        assert!(role.contains(range), "{range}: {role}");
    }
    // What somebody granted besides is taken back.
    mesh.ctl(1, "role grant-permission remote readwrite --prefix other/");
    let said = mesh.show(1, &mesh.init(1));
    assert_eq!(said, "role remote: took back other/\n");
}

/// As clustermesh-apiserver grants it (`cilium-interop` 2.13), tried with each user's certificate.
fn users_may_do_what_their_roles_say(mesh: &Mesh) {
    let all = [
        "get cilium/.heartbeat",
        "get cilium/state/ --prefix",
        "get cilium/cluster-config/cluster1",
        "get cilium/synced/cluster1/ --prefix",
        "get cilium/cluster-config/cluster2",
        "get cilium/cluster-config/ --prefix",
        "get cilium/synced/ --prefix",
        "get cilium/cache/ --prefix",
        "get cilium/ --prefix",
        "get other",
        "put cilium/state/x y",
        "put cilium/cache/x y",
        "del cilium/state/ --prefix",
        "user list",
    ];
    let remote = [0, 1, 2, 3];
    for (user, may) in [
        ("remote", &remote[..]),
        ("remote-cluster2", &remote),
        ("local-cluster1", &[0, 2, 3, 4, 5, 6, 7]),
        ("remote-cluster7", &[]),
        ("admin-cluster1", &(0..all.len()).collect::<Vec<_>>()),
        ("root", &(0..all.len()).collect::<Vec<_>>()),
    ] {
        for (number, words) in all.iter().enumerate() {
            match mesh.ctl_as(1, user, words) {
                Ok(_) => assert!(may.contains(&number), "{user} may {words}"),
                Err(error) => {
                    assert!(!may.contains(&number), "{user} may not {words}: {error}");
                    let refused = ["permission denied", "user name not found"];
                    assert!(refused.iter().any(|why| error.contains(why)), "{user}: {words}: {error}");
                }
            }
        }
    }
}

/// What kvstoremesh has copied of a third cluster into the first one's etcd is read by a user that may
/// read nothing else.
fn reads_the_cache_with_the_role_for_it(mesh: &Mesh) {
    let put = |key: &str, value: &str| _ = mesh.ctl(1, &format!("put {key} {value}"));
    let identity = 103 << 16;
    let capabilities = r#"{"syncedCanaries":true,"cached":true,"maxConnectedClusters":255}"#;
    put("cilium/cluster-config/cluster3", &format!(r#"{{"id":103,"capabilities":{capabilities}}}"#));
    let labels = "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=cluster3;";
    put(&format!("cilium/cache/identities/v1/cluster3/id/{identity}"), labels);
    let record = format!(r#"{{"IP":"10.80.1.5","Mask":null,"HostIP":"10.0.3.1","ID":{identity},"Key":0}}"#);
    put("cilium/cache/ip/v1/cluster3/10.80.1.5", &record);
    for kind in ["nodes", "identities", "ip", "services"] {
        put(&format!("cilium/synced/cluster3/cilium/cache/{kind}/v1"), "2026-11-22T05:16:46Z");
    }
    let file = mesh.kvstore(1, "local-cluster1");
    fs::copy(&file, mesh.world.dir().join("cluster1-mesh/cluster3")).unwrap();
    let node = mesh.node(1);
    eventually("cluster3 is read", || {
        let (status, list) = (node.cli.say("clustermesh status"), node.cli.show("ipcache list"));
        let ready = status.contains("1/1 remote clusters ready") && list.contains("10.80.1.5");
        if ready { Ok(()) } else { Err(status + &list) }
    });
    let said = mesh.show(1, "clustermesh troubleshoot cluster3");
    assert!(said.contains("user local-cluster1 with role local"), "{said}");
}

fn refuses_the_etcd_of_another_cluster(mesh: &Mesh) {
    let file = mesh.kvstore(1, "root");
    for (name, id, complaint) in
        [("cluster7", 7, "it has the user admin-cluster1"), ("cluster1", 7, "cluster1 has id 101, not 7")]
    {
        let words = format!(
            "clustermesh init --kvstore-config {} --cluster-name {name} --cluster-id {id}",
            file.display()
        );
        let refusal = mesh.run(1, &words);
        assert_eq!(refusal.status, Some(1), "{}", refusal.text);
        assert!(refusal.text.contains(complaint), "{}", refusal.text);
    }
}

fn reaches_the_other_cluster(mesh: &Mesh) {
    let world = &mesh.world;
    world.cluster(1).apply("web.yaml", &service("web", 10, "service.cilium.io/global: 'true'"));
    world.cluster(2).apply("web.yaml", &service("web", 11, "service.cilium.io/global: 'true'"));
    let client = mesh.node(1).pod("default/client", "");
    let server = mesh.node(2).pod("default/server", "app=web");
    let _server = server.serve(8080, "server");
    client.reaches(server.addresses(), 8080, "server", ALL);
    client.reaches(service_addresses(10), 80, "server", PORTS);
}

fn says_that_all_is_well(mesh: &Mesh) {
    for cluster in [1, 2] {
        let said = mesh.show(cluster, "clustermesh troubleshoot");
        let other = format!("cluster{}", 3 - cluster);
        assert!(said.starts_with(&format!("{other}:\n  ok config:")), "{said}");
        assert!(said.contains(&format!("user remote-cluster{cluster} with role remote")), "{said}");
        assert!(said.contains("  ok heartbeat:") && !said.contains("fix:"), "{said}");
    }
    let reports: Value =
        serde_json::from_str(&mesh.show(1, "clustermesh troubleshoot cluster2 -o json")).unwrap();
    assert_eq!(
        (&reports[0]["cluster"], &reports[0]["ok"]),
        (&"cluster2".into(), &true.into()),
        "{reports:#}"
    );
    assert_eq!(reports[0]["steps"].as_array().map(Vec::len), Some(10), "{reports:#}");
    let refusal = mesh.run(1, "clustermesh troubleshoot cluster9");
    assert!(refusal.status == Some(1) && refusal.text.contains("there is cluster2"), "{}", refusal.text);
}

fn shows_keys(mesh: &Mesh) {
    let node = mesh.show(1, "kvstore get cilium/state/nodes/v1/cluster1/node1");
    let node: Value = serde_json::from_str(&node).unwrap();
    assert_eq!(node["Name"], "node1");
    let list = mesh.show(1, "kvstore list cilium/state/nodes/ --keys-only");
    assert_eq!(list, "cilium/state/nodes/v1/cluster1/node1\n");
    assert_eq!(mesh.show(1, "kvstore list --limit 3").lines().count(), 3);
    let config: Value =
        serde_json::from_str(&mesh.show(1, "kvstore get cilium/cluster-config/cluster1 -o json")).unwrap();
    assert!(config["value"].as_str().unwrap().starts_with("{\"id\":101,"), "{config:#}");
    assert!(config["lease"].is_string() && config["mod_revision"].is_u64(), "{config:#}");
    let missing = mesh.run(1, "kvstore get cilium/none");
    assert!(missing.status == Some(1) && missing.text.contains("'cilium/none'"), "{}", missing.text);
    let file = mesh.kvstore(2, "remote-cluster1");
    let denied = mesh.run(1, &format!("kvstore list --kvstore-config {}", file.display()));
    assert!(denied.status == Some(1) && denied.text.contains("permission denied"), "{}", denied.text);

    let mut command = mesh.node(1).host.command(&dataplane().display().to_string());
    command.args(["kvstore", "watch", "test/"]).env("DATAPLANE_SOCKET", &mesh.node(1).cli.socket);
    let mut watch = Process::start(&mut command, &mesh.world.dir().join("watch.log"));
    let mut put = 0;
    eventually("a change is seen", || {
        put += 1;
        mesh.ctl(1, &format!("put test/x {put}"));
        if watch.log().contains("put test/x => ") { Ok(()) } else { Err(watch.log()) }
    });
    mesh.ctl(1, "del test/ --prefix");
    eventually("the deletion is seen", || {
        let log = watch.log();
        if log.contains("delete test/x\n") { Ok(()) } else { Err(log) }
    });
    watch.signal(nix::sys::signal::Signal::SIGINT);
    assert!(watch.wait().success(), "{}", watch.log());
}

/// What one thing being wrong looks like: the lines of the client file that are replaced, the step that
/// fails, and what is said.
struct Fault<'a> {
    wrong: [(&'a str, String); 2],
    step: &'a str,
    said: [&'a str; 2],
}

#[test]
fn each_thing_that_is_wrong_is_found_where_it_is() {
    let mesh = Mesh::lay();
    let world = &mesh.world;
    world.clusters.iter().for_each(|cluster| cluster.etcd().start());
    for cluster in [1, 2] {
        mesh.show(cluster, &mesh.init(cluster));
    }
    world.nodes().for_each(Node::start);
    let remote = fs::read_to_string(mesh.kvstore(2, "remote-cluster1")).unwrap();
    let good = world.dir().join("cluster2");
    fs::write(&good, &remote).unwrap();
    let well = format!("clustermesh troubleshoot --config {} --cluster-id 101", good.display());
    eventually("all is well", || {
        let Said { status, text } = mesh.run(1, &well);
        if status == Some(0) { Ok(()) } else { Err(text) }
    });

    let theirs = &world.cluster(2).etcd().authority;
    let stranger = Authority::create(&world.dir().join("stranger"));
    let line = |key: &str, path: PathBuf| format!("{key}: {}", path.display());
    let client = |pair: &Pair| [line("cert-file", pair.cert.clone()), line("key-file", pair.key.clone())];
    let identity = |pair: &Pair| {
        let [cert, key] = client(pair);
        [("cert-file", cert), ("key-file", key)]
    };
    let one = |key: &'static str, text: &str| [(key, text.to_owned()), ("", String::new())];
    let faults = [
        Fault {
            wrong: one("key-file", "key-file: /no/such/key"),
            step: "config",
            said: ["/no/such/key", "correct"],
        },
        Fault {
            wrong: identity(&theirs.issue_until("old", &[], 2020)),
            step: "client-certificate",
            said: ["expired at 2020", "renew cert-file"],
        },
        Fault {
            wrong: one("- https", "- https://no-such-host.invalid:2379"),
            step: "dns",
            said: ["no-such-host.invalid", "cilium-host-aliases"],
        },
        Fault {
            wrong: one("- https", "- https://10.0.2.100:2399"),
            step: "tcp",
            said: ["refused", "start etcd"],
        },
        Fault {
            wrong: one("trusted-ca-file", &line("trusted-ca-file", stranger.ca())),
            step: "tls",
            said: ["is signed by", "into trusted-ca-file"],
        },
        Fault {
            wrong: one(
                "- https",
                "- https://other.example:2379\ncilium-host-aliases: [{hostname: other.example, ips: [10.0.2.100]}]",
            ),
            step: "tls",
            said: ["is for 10.0.2.100, not for other.example", "use one of these names"],
        },
        Fault {
            wrong: identity(&stranger.issue("remote", &[])),
            step: "tls",
            said: ["refuses the client certificate 'CN=remote'", "--trusted-ca-file"],
        },
        Fault {
            wrong: identity(&theirs.issue("nobody", &[])),
            step: "authentication",
            said: ["no user 'nobody'", "etcdctl user add nobody"],
        },
    ];
    for Fault { wrong, step, said } in faults {
        let text: Vec<String> = remote
            .lines()
            .map(|line| {
                let change = wrong.iter().find(|(key, _)| !key.is_empty() && line.starts_with(key));
                change.map_or(line.to_owned(), |(_, new)| new.clone())
            })
            .collect();
        fs::write(&good, text.join("\n")).unwrap();
        fails(&mesh, &well, step, &said);
    }
    fs::write(&good, &remote).unwrap();

    fails(&mesh, &well.replace("101", "102"), "cluster-config", &["id 102", "--cluster-id"]);
    let misnamed = world.dir().join("cluster9");
    fs::write(&misnamed, fs::read(mesh.kvstore(2, "root")).unwrap()).unwrap();
    let said = ["but there is cilium/cluster-config/cluster2", "name"];
    fails(&mesh, &well.replace("/cluster2", "/cluster9"), "cluster-config", &said);
    // Without its agent nobody writes the canary again.
    mesh.node(2).stop();
    let canary = "cilium/synced/cluster2/cilium/state/ip/v1";
    mesh.ctl(2, &format!("del {canary}"));
    fails(&mesh, &well, "canaries", &[canary, "publishes cluster cluster2"]);
    mesh.ctl(2, "role revoke-permission remote cilium/state/ cilium/state0");
    fails(&mesh, &well, "permissions", &["cilium/state/nodes/v1/cluster2/", "clustermesh init"]);
}

/// The step and no other fails, and says so.
fn fails(mesh: &Mesh, words: &str, step: &str, said: &[&str]) {
    let output = mesh.run(1, words);
    let text = output.text;
    assert_eq!(output.status, Some(1), "{step}: {text}");
    let failures: Vec<&str> = text.lines().filter(|line| line.contains("FAIL")).collect();
    assert_eq!(failures.len(), 1, "{step}: {text}");
    assert!(failures[0].starts_with(&format!("  FAIL {step}:")), "{step}: {text}");
    for words in said {
        assert!(text.contains(words), "{step}: '{words}' is missing: {text}");
    }
}
