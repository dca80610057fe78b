//! A network namespace as a place where commands run and sockets live.

use crate::command::{ip, output};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

/// A named network namespace. Whoever made the world removes it ([`crate::teardown`]).
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, as in `ip netns`.
    pub netns: String,
}

impl Host {
    /// Makes the namespace.
    pub fn create(name: &str) -> Host {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Host { netns: name.to_owned() }
    }

    /// Where it can be entered.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.netns)
    }

    /// A command that will run in it. (`ip netns exec` would hide the bpf file system.)
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Runs a command line in it to its end.
    pub fn run(&self, line: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        let program = words.next().ok_or("nothing to run")?;
        output(self.command(program).args(words))
    }

    /// Runs `ip` in it; panics if it fails.
    pub fn ip(&self, words: &str) -> String {
        ip(&format!("-n {} {words}", self.netns))
    }

    /// Sets a sysctl in it.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{name}");
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// Runs a closure on a thread in the namespace. Sockets that it opens stay in the namespace
    /// and can be used from anywhere.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope.spawn(|| self.within(work)).join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let namespace = File::open(self.path()).unwrap_or_else(|e| panic!("{}: {e}", self.path()));
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("{}: {e}", self.path()));
        work()
    }

    /// One echo request with the given options (`-M do`, `-s 1400`, …): what ping printed, as an
    /// error if there was no answer.
    pub fn ping(&self, to: IpAddr, options: &str) -> Result<String, String> {
        self.run(&format!("ping -n -c 1 -W 2 {options} {to}"))
    }

    /// The names of its interfaces.
    pub fn links(&self) -> Vec<String> {
        let list = self.ip("-o link show");
        list.lines()
            .filter_map(|line| line.split(": ").nth(1))
            .map(|name| name.split('@').next().unwrap_or(name).to_owned())
            .collect()
    }
}
