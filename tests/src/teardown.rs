//! Removing worlds, by the names and process ids that are theirs and nothing else. Nothing here
//! panics: it runs while a failed test unwinds.

use crate::command::output;
use crate::host::Host;
use crate::node::dataplane;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The directory of a world.
pub(crate) fn dir(prefix: &str) -> PathBuf {
    std::env::temp_dir().join(prefix)
}

/// There is a world of this name.
pub fn exists(prefix: &str) -> bool {
    namespaces(prefix).next().is_some() || dir(prefix).exists()
}

/// Ends every process of the world, has `dataplane cleanup` remove what its agents made, removes
/// namespaces and files. What should not have been left is returned in words.
pub fn remove(prefix: &str) -> Vec<String> {
    let hosts: Vec<Host> = namespaces(prefix).map(|netns| Host { netns }).collect();
    let mut complaints = Vec::new();
    complaints.extend(hosts.iter().filter_map(|host| kill_all(host).err()));
    complaints.extend(hosts.iter().filter_map(|host| clean(host, prefix).err()));
    complaints.extend(hosts.iter().filter_map(|host| ip(&["netns", "del", &host.netns]).err()));
    let dir = dir(prefix);
    if dir.exists() {
        complaints.extend(fs::remove_dir_all(&dir).err().map(|e| format!("{dir:?}: {e}")));
    }
    complaints
}

/// Removes the worlds of test processes that did not live to do so themselves.
pub(crate) fn remove_orphans() {
    let mut orphans: Vec<String> = namespaces("dpt").filter_map(|name| orphan(&name)).collect();
    orphans.dedup();
    for prefix in orphans {
        eprintln!("removing {prefix}, left by a test that was killed");
        remove(&prefix);
    }
}

/// `dpt-PID-N` of a namespace whose process is gone.
fn orphan(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix("dpt-")?.split('-');
    let (pid, number) = (parts.next()?, parts.next()?);
    if Path::new("/proc").join(pid).exists() { None } else { Some(format!("dpt-{pid}-{number}")) }
}

/// Has a node cleaned up by its own means, and looks at what is left.
fn clean(host: &Host, prefix: &str) -> Result<(), String> {
    let node = host.netns.strip_prefix(prefix).unwrap_or_default().trim_start_matches('-');
    let state_dir = dir(prefix).join(node).join("state");
    if !state_dir.exists() {
        return Ok(());
    }
    let pins = pins(&state_dir);
    let program = dataplane().display().to_string();
    output(host.command(&program).arg("cleanup").arg("--state-dir").arg(&state_dir))?;
    let links = ip(&["-n", &host.netns, "-o", "link", "show"])?;
    let strangers: Vec<&str> =
        links.lines().filter(|l| !l.contains(": lo:") && !l.contains(": eth0@")).collect();
    if !strangers.is_empty() || links.contains("xdp") {
        return Err(format!("{}: cleanup left links or programs: {links}", host.netns));
    }
    if let Some(pins) = pins.filter(|pins| pins.exists()) {
        return Err(format!("{}: cleanup left {pins:?}", host.netns));
    }
    let files: Vec<_> =
        fs::read_dir(&state_dir).into_iter().flatten().flatten().map(|f| f.file_name()).collect();
    if !files.is_empty() {
        return Err(format!("{}: cleanup left files: {files:?}", host.netns));
    }
    Ok(())
}

/// The directory with the agent's pins below the bpf file system.
fn pins(state_dir: &Path) -> Option<PathBuf> {
    let state = fs::read(state_dir.join("endpoints.json")).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&state).ok()?;
    Some(Path::new("/sys/fs/bpf/dataplane").join(state["instance"].as_str()?))
}

fn kill_all(host: &Host) -> Result<(), String> {
    let mut ending: Vec<i32> = Vec::new();
    for _ in 0..500 {
        let ids = ip(&["netns", "pids", &host.netns])?;
        ending.extend(ids.split_whitespace().filter_map(|id| id.parse::<i32>().ok()));
        for &id in &ending {
            // It may have ended in the meantime.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        ending.retain(|&id| runs(id));
        if ids.is_empty() && ending.is_empty() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("{}: processes that cannot be killed: {ending:?}", host.netns))
}

/// It still has threads, and with them files and locks; not so a child that is only to be reaped.
fn runs(id: i32) -> bool {
    let proc = Path::new("/proc").join(id.to_string());
    let dead = fs::read_to_string(proc.join("stat")).map_or(true, |stat| stat.contains(") Z "));
    let threads = fs::read_dir(proc.join("task")).map_or(0, Iterator::count);
    threads > 1 || !dead
}

fn namespaces(prefix: &str) -> impl Iterator<Item = String> {
    let prefix = format!("{prefix}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().filter(move |name| name.starts_with(&prefix))
}

fn ip(words: &[&str]) -> Result<String, String> {
    output(Command::new("ip").args(words))
}
