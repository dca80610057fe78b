//! What measuring over networks needs.

use crate::report;
use nix::unistd::geteuid;
use std::env;
use std::path::Path;

/// Programs without which nothing can be built, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("ethtool", "ethtool"),
    ("nft", "nftables"),
    ("etcd", "etcd-server"),
];
/// A sender and a receiver that take CPUs from each other measure the scheduler.
const CPUS: usize = 2;

/// Says what is missing, before anything was built.
///
/// # Errors
/// Naming it, and what would be right.
pub fn check() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("network namespaces, BPF and AF_XDP need root: run this as root".into());
    }
    let cpus = report::cpus();
    if cpus < CPUS {
        return Err(format!(
            "this process may use {cpus} CPU: {CPUS} or more are needed (see taskset, cpuset)"
        ));
    }
    if let Some((program, package)) = PROGRAMS.iter().find(|(program, _)| !installed(program)) {
        return Err(format!("{program} is not installed: apt-get install {package}"));
    }
    if !Path::new("/sys/fs/bpf").exists() {
        return Err("/sys/fs/bpf is missing: mount -t bpf bpf /sys/fs/bpf".into());
    }
    if env::var_os("DATAPLANE_BIN").is_none() && !beside("dataplane") {
        let exe = env::current_exe().unwrap_or_default();
        return Err(format!("no dataplane beside {}: cargo build --release -p dataplane", exe.display()));
    }
    Ok(())
}

/// Whether a program can be found.
pub fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether there is a program beside this one, or beside the directory of a test.
fn beside(program: &str) -> bool {
    let exe = env::current_exe().unwrap_or_default();
    exe.ancestors().skip(1).take(2).any(|directory| directory.join(program).is_file())
}
