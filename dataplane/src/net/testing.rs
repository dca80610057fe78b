//! Network namespaces for tests; removed when dropped.

use super::netns::Netns;
use std::future::Future;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh network namespace below `/run/netns`.
pub(crate) struct TestNetns {
    pub(crate) name: String,
}

impl TestNetns {
    /// Creates one with a name that nobody else uses.
    pub(crate) fn new(role: &str) -> TestNetns {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dpunit-{role}-{}-{n}", std::process::id());
        ip(&["netns", "add", &name]);
        TestNetns { name }
    }

    /// It, opened.
    pub(crate) fn open(&self) -> Netns {
        Netns::open(&self.name).unwrap()
    }

    /// `ip` inside it.
    pub(crate) fn ip(&self, command: &str) {
        let args: Vec<_> = ["-n", &self.name].into_iter().chain(command.split_whitespace()).collect();
        ip(&args);
    }

    /// Runs a test body inside it and gives back what it returns.
    pub(crate) fn run<T, F, W>(&self, work: W) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
        W: FnOnce() -> F + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.open().run(move || async { Ok(work().await) })).unwrap()
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

/// Whether the test may change the network; says so if not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root for network namespaces");
    }
    root
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status().unwrap();
    assert!(done.success() || std::thread::panicking(), "ip {args:?}: {done}");
}
