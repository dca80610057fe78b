use super::*;
use clap::CommandFactory;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn args(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// The first line of the error that a command line gives.
fn error(line: &str) -> String {
    let error = parse(args(line)).expect_err(line);
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

const RUN: &str = "dataplane run --cluster-name c1 --cluster-id 7 --pod-cidr 10.60.1.0/24 --uplink eth0";

fn run_args(line: &str) -> run::Args {
    match parse(args(line)) {
        Ok(Cli { command: Command::Run(args) }) => *args,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_parses() {
    for line in [
        "endpoint add --pod default/redis-0 --netns redis --label app=db --label x= --port redis=6379/TCP",
        "endpoint list -o json",
        "endpoint get 12 --socket /tmp/s",
        "endpoint delete 12",
        "node list -o yaml",
        "identity list",
        "identity get 131200 -o json",
        "service list --clustermesh-affinity",
        "policy list",
        "policy validate -f policy.yaml",
        "ipcache list",
        "ct list --time-diff",
        "ct flush",
        "status --wait --wait-duration 30s --verbose",
        "status --brief",
        "clustermesh status",
        "clustermesh init --kvstore-config k.yaml --cluster-name c1 --cluster-id 1 --remote c2 --remote c3",
        "clustermesh troubleshoot c2 c3 --clustermesh-config /mesh -o json",
        "clustermesh troubleshoot --config /mesh/c2 --cluster-name c1 --cluster-id 1",
        "clustermesh connect --left-name c1 --left-dir /a --left-config a.yaml --right-name c2 --right-dir /b \
         --right-config b.yaml --dry-run",
        "clustermesh disconnect --left-name c1 --left-dir /a --right-name c2 --right-dir /b",
        "kvstore get cilium/.heartbeat --kvstore-config k.yaml",
        "kvstore list --keys-only --limit 7 -o json",
        "kvstore watch cilium/state/",
        "monitor --type=drop -t policy-verdict --from 1 --to 2 --related-to 3 -v -n -o json",
        "metrics",
        "cleanup --state-dir /tmp/x",
        "completion bash",
    ] {
        parse(args(&format!("dataplane {line}"))).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn errors_name_the_flag_the_value_and_what_would_be_right() {
    for (flags, expected) in [
        (
            "--cluster-name Prod",
            "error: invalid value 'Prod' for '--cluster-name <NAME>': must be 1 to 32 lower-case letters, digits and `-`, with a letter or digit at both ends",
        ),
        (
            "--cluster-id 0",
            "error: invalid value '0' for '--cluster-id <ID>': must be a number from 1 to 255",
        ),
        (
            "--cluster-id 256",
            "error: invalid value '256' for '--cluster-id <ID>': must be a number from 1 to 255",
        ),
        (
            "--pod-cidr 10.60.1.9/24",
            "error: invalid value '10.60.1.9/24' for '--pod-cidr <CIDR>': has host bits set; the network is 10.60.1.0/24",
        ),
        (
            "--node-ip 127.0.0.1",
            "error: invalid value '127.0.0.1' for '--node-ip <ADDRESS>': must be an address that other nodes can send to",
        ),
        ("--workers 65", "error: invalid value '65' for '--workers <N>': must be a number from 1 to 64"),
        ("--poll sometimes", "error: invalid value 'sometimes' for '--poll <MODE>'"),
        (
            "--clustermesh-cache-ttl 10",
            "error: invalid value '10' for '--clustermesh-cache-ttl <TIME>': must be a time span with units h, m, s, as in `30s`, `10m` or `1h30m`",
        ),
    ] {
        // The flag of interest replaces the good one.
        let name = flags.split_whitespace().next().unwrap_or_default();
        let good: Vec<_> =
            RUN.split(" --").filter(|part| !name.ends_with(part.split(' ').next().unwrap_or(""))).collect();
        assert_eq!(error(&format!("{} {flags}", good.join(" --"))), expected);
    }
}

#[test]
fn flags_must_fit_together() {
    for (more, expected) in [
        (
            "--pod-cidr 10.61.0.0/24",
            "error: --pod-cidr: 10.60.1.0/24, 10.61.0.0/24: there can be one per address family",
        ),
        (
            "--node-ip 10.0.0.1 --node-ip 10.0.0.2",
            "error: --node-ip: 10.0.0.1, 10.0.0.2: there can be one per address family",
        ),
        ("--uplink eth0", "error: --uplink: eth0: is given twice"),
        ("--workers 2 --cpus 3", "error: --cpus: names 1 CPUs but --workers is 2"),
    ] {
        let error = run_args(&format!("{RUN} {more}")).config().expect_err(more);
        assert_eq!(error.to_string().lines().next(), Some(expected));
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn flags_become_configuration() {
    let config = run_args(&format!(
        "{RUN} --pod-cidr fd00:60:1::/112 --uplink eth1 --node-ip 10.0.1.1 --cpus 3,1 --poll busy \
         --policy-mode always --state-dir /run/n1 --clustermesh-cache-ttl 1m30s"
    ))
    .config()
    .unwrap();
    assert_eq!((config.cluster_name.as_str(), config.cluster_id), ("c1", 7));
    assert_eq!(config.pod_cidrs, ["10.60.1.0/24".parse().unwrap(), "fd00:60:1::/112".parse().unwrap()]);
    assert_eq!(config.uplinks, ["eth0", "eth1"]);
    assert_eq!((config.cpus.as_slice(), config.workers), ([3, 1].as_slice(), None));
    assert_eq!(config.poll, agent::Poll::Busy);
    assert_eq!(config.policy_mode, control::agent::PolicyMode::Always);
    assert_eq!(config.socket, Path::new("/run/n1/dataplane.sock"));
    assert_eq!(config.clustermesh_cache_ttl.as_secs(), 90);
}

/// A directory of options.
fn options(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn options_come_from_a_directory_and_flags_win() {
    let dir = options(&[
        ("cluster-name", "c1\n"),
        ("cluster-id", "7\n"),
        ("pod-cidr", "10.60.1.0/24\nfd00:60:1::/112\n"),
        ("uplink", "eth0,eth1"),
        ("poll", "busy"),
    ]);
    fs::create_dir(dir.path().join("..data")).unwrap();
    let line = format!("dataplane run --config-dir {} --uplink eth9 --poll adaptive", dir.path().display());
    let config = run_args(&line).config().unwrap();
    assert_eq!((config.cluster_name.as_str(), config.cluster_id), ("c1", 7));
    assert_eq!(config.pod_cidrs.len(), 2);
    assert_eq!(config.uplinks, ["eth9"]);
    assert_eq!(config.poll, agent::Poll::Adaptive);
}

#[test]
fn errors_in_a_directory_of_options_name_the_file() {
    for (name, text, expected) in [
        ("cluster-nam", "c1", "no option of `dataplane run` has this name"),
        ("config-dir", "/", "no option of `dataplane run` has this name"),
        ("cluster-id", "900", "invalid value '900' for '--cluster-id <ID>': must be a number from 1 to 255"),
        ("offload", "never", "invalid value 'never' for '--offload <MODE>' [possible values: on, off]"),
        (
            "offload-after",
            "0",
            "invalid value '0' for '--offload-after <N>': must be a number from 1 to 1000000",
        ),
    ] {
        let dir = options(&[(name, text)]);
        let path = dir.path().join(name);
        assert_eq!(
            error(&format!("{RUN} --config-dir {}", dir.path().display()).replace("--cluster-id 7", "")),
            format!("error: {}: {expected}", path.display())
        );
    }
    let missing = error("dataplane run --config-dir /does/not/exist");
    assert!(missing.starts_with("error: /does/not/exist: No such file or directory"), "{missing}");
    let dir = options(&[("cluster-name", "c1")]);
    let incomplete = error(&format!("dataplane run --config-dir {}", dir.path().display()));
    assert_eq!(incomplete, "error: the following required arguments were not provided:");
}
