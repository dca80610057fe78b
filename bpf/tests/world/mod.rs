//! A node of three network namespaces: host with the hub, and two pods; and a bare forwarder
//! that stands where the workers stand.

// Not every test uses everything.
#![allow(dead_code, unused_imports)]

mod forwarder;
mod inject;
mod priority;

pub(crate) use forwarder::{Forwarder, open};
pub(crate) use inject::inject;
pub(crate) use priority::tag_all;

use bpf::{Bpf, Config, Options, TcMode, XdpMode};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};
use wire::{MacAddr, hub};

pub(crate) const GATEWAY: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 1]);
pub(crate) const HOST_V4: &str = "10.9.0.254";
pub(crate) const POD_V4: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
pub(crate) const POD_V6: [&str; 2] = ["fd00:9::1", "fd00:9::2"];

/// A pod: its namespace, its link-layer address, and the host side of its veth; or a machine
/// outside, which has none.
pub(crate) struct Pod {
    pub(crate) netns: String,
    pub(crate) mac: MacAddr,
    pub(crate) ifindex: u32,
}

pub(crate) struct World {
    pub(crate) host: String,
    pub(crate) pods: Vec<Pod>,
    pub(crate) dir: PathBuf,
    pub(crate) queues: u32,
    pub(crate) hub: [u32; 2],
}

/// Says so and gives `None` without root.
pub(crate) fn world(queues: u32) -> Option<World> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: network namespaces need root");
        return None;
    }
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("dpC{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut world = World {
        host: format!("{name}h"),
        pods: Vec::new(),
        dir: bpf::instance_dir(&name),
        queues,
        hub: [0; 2],
    };
    world.build(&name);
    Some(world)
}

impl World {
    fn build(&mut self, name: &str) {
        let (host, queues) = (self.host.clone(), self.queues);
        run(&format!("ip netns add {host}"));
        run(&format!("ip -n {host} link set lo up"));
        run(&format!(
            "ip -n {host} link add dphub0 numtxqueues {queues} numrxqueues {queues} address {} type veth \
             peer name dphub1 numtxqueues {queues} numrxqueues {queues}",
            hub::HOST_MAC
        ));
        for hub in ["dphub0", "dphub1"] {
            run(&format!("nsenter --net=/run/netns/{host} ethtool -L {hub} rx {queues} tx {queues}"));
            sysctl(&host, &format!("ipv6/conf/{hub}/disable_ipv6"), if hub == "dphub1" { "1" } else { "0" });
        }
        run(&format!("nsenter --net=/run/netns/{host} ethtool -K dphub0 tx off"));
        run(&format!("ip -n {host} link set dphub0 arp off addrgenmode none up"));
        run(&format!("ip -n {host} link set dphub1 up"));
        run(&format!("ip -n {host} address add {HOST_V4}/32 dev lo"));
        run(&format!("ip -n {host} route add 10.9.0.0/24 dev dphub0 src {HOST_V4}"));
        self.hub = [self.ifindex("dphub0"), self.ifindex("dphub1")];
        for index in 0..2 {
            let netns = format!("{name}p{index}");
            run(&format!("ip netns add {netns}"));
            let mac = MacAddr([2, 0, 0, 0, 1, index]);
            let veth = format!("pod{index}");
            run(&format!(
                "ip -n {host} link add {veth} address {GATEWAY} type veth peer name eth0 address {mac} netns {netns}"
            ));
            run(&format!("ip -n {host} link set {veth} addrgenmode none up"));
            run(&format!("ip -n {netns} link set lo up"));
            run(&format!("ip -n {netns} link set eth0 addrgenmode none up"));
            for (address, gateway) in
                [(POD_V4[index as usize], "169.254.9.1"), (POD_V6[index as usize], "fe80::9")]
            {
                let length = if address.contains(':') { 128 } else { 32 };
                run(&format!("ip -n {netns} address add {address}/{length} dev eth0 nodad"));
                run(&format!("ip -n {netns} neighbor add {gateway} lladdr {GATEWAY} dev eth0 nud permanent"));
                run(&format!("ip -n {netns} route add default via {gateway} dev eth0 onlink"));
            }
            self.pods.push(Pod { netns, mac, ifindex: self.ifindex(&veth) });
        }
    }

    pub(crate) fn ifindex(&self, device: &str) -> u32 {
        let shown = run(&format!("ip -n {} -o link show {device}", self.host));
        shown.split(':').next().and_then(|index| index.parse().ok()).expect("an interface index")
    }

    /// Loads, configures and attaches everything, as an agent does at its start.
    pub(crate) fn attach(&self, tc: TcMode) -> Bpf {
        let bpf = self
            .enter(&self.host, || Bpf::load(&self.dir, &Options { tc, ..Options::default() }))
            .expect("programs load");
        self.enter(&self.host, || -> Result<(), bpf::Error> {
            bpf.configure(&Config {
                hub: self.hub[0],
                workers: self.queues,
                gateway_mac: GATEWAY.0,
                offload: true,
            })?;
            assert_eq!(bpf.attach_hub(self.hub[0], self.hub[1])?, XdpMode::Native);
            self.pods.iter().filter(|pod| pod.ifindex > 0).try_for_each(|pod| bpf.attach_pod(pod.ifindex))
        })
        .expect("programs attach");
        bpf
    }

    /// Runs something in a namespace, on a thread of its own.
    pub(crate) fn enter<R: Send>(&self, netns: &str, action: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/run/netns/{netns}")).expect("a network namespace");
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).expect("setns");
                action()
            });
            inside.join().expect("no panic inside")
        })
    }

    pub(crate) fn in_pod<R: Send>(&self, pod: usize, action: impl FnOnce() -> R + Send) -> R {
        self.enter(&self.pods[pod].netns, action)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for netns in self.pods.iter().map(|pod| &pod.netns).chain([&self.host]) {
            let _ = Command::new("ip").args(["netns", "delete", netns]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command line and returns what it printed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).output().expect("a command");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn sysctl(netns: &str, key: &str, value: &str) {
    let write = format!("echo {value} >/proc/sys/net/{key}");
    let status = Command::new("nsenter")
        .args([&format!("--net=/run/netns/{netns}"), "sh", "-c", &write])
        .status()
        .expect("nsenter");
    assert!(status.success(), "{key} = {value}");
}
