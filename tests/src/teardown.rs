//! Removing worlds, by the names and process ids that are theirs and nothing else.

use crate::command::{ip, output};
use crate::host::Host;
use crate::node::dataplane;
use crate::wait::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of a world.
pub(crate) fn dir(prefix: &str) -> PathBuf {
    std::env::temp_dir().join(prefix)
}

/// Ends every process of the world, has `dataplane cleanup` remove what its agents made, removes
/// namespaces and files. What should not have been left is returned in words.
pub fn remove(prefix: &str) -> Vec<String> {
    let hosts: Vec<Host> =
        namespaces().into_iter().filter(|name| belongs(name, prefix)).map(|name| Host { name }).collect();
    for host in &hosts {
        eventually(&format!("the processes in {} end", host.name), || kill_all(host));
    }
    let mut complaints: Vec<String> = hosts.iter().filter_map(|host| clean(host, prefix).err()).collect();
    for host in &hosts {
        ip(&format!("netns del {}", host.name));
    }
    let dir = dir(prefix);
    if dir.exists() {
        complaints.extend(fs::remove_dir_all(&dir).err().map(|e| format!("{dir:?}: {e}")));
    }
    complaints
}

/// Removes the worlds of test processes that did not live to do so themselves.
pub(crate) fn remove_orphans() {
    let owner = |name: &str| -> Option<(String, u32)> {
        let (pid, rest) = name.strip_prefix("dpt")?.split_once('-')?;
        let number = rest.split('-').next()?;
        Some((format!("dpt{pid}-{number}"), pid.parse().ok()?))
    };
    let mut orphans: Vec<String> = namespaces()
        .iter()
        .filter_map(|name| owner(name))
        .filter(|(_, pid)| !Path::new(&format!("/proc/{pid}")).exists())
        .map(|(prefix, _)| prefix)
        .collect();
    orphans.dedup();
    for prefix in orphans {
        eprintln!("removing {prefix}, left by a test that was killed");
        remove(&prefix);
    }
}

/// What a namespace has left after its agent has cleaned up.
fn clean(host: &Host, prefix: &str) -> Result<(), String> {
    let node = host.name.trim_start_matches(prefix).trim_start_matches('-');
    let state_dir = dir(prefix).join(node).join("state");
    if !state_dir.exists() {
        return Ok(());
    }
    let program = dataplane().display().to_string();
    output(host.command(&program).arg("cleanup").arg("--state-dir").arg(&state_dir))?;
    let links: Vec<String> =
        host.links().into_iter().filter(|link| !["lo", "eth0"].contains(&&link[..])).collect();
    if !links.is_empty() {
        return Err(format!("{}: links left behind: {links:?}", host.name));
    }
    let programs = host.run("tc filter show dev eth0 ingress")? + &host.ip("link show eth0");
    if programs.contains("prog/xdp") || programs.contains("bpf") {
        return Err(format!("{}: programs left on the uplink: {programs}", host.name));
    }
    let files: Vec<_> = fs::read_dir(&state_dir)
        .map(|dir| dir.flatten().map(|f| f.file_name()).collect())
        .unwrap_or_default();
    if !files.is_empty() {
        return Err(format!("{}: files left behind: {files:?}", host.name));
    }
    Ok(())
}

fn kill_all(host: &Host) -> Result<(), String> {
    let ids = ip(&format!("netns pids {}", host.name));
    let ids: Vec<i32> = ids.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    for &id in &ids {
        // It may have ended in the meantime.
        let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
    }
    if ids.is_empty() { Ok(()) } else { Err(format!("still there: {ids:?}")) }
}

fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn belongs(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))
}
