//! The kernel's part: XDP redirection, tc steering and delivery; loaded, attached and pinned.
//!
//! Everything is pinned below one bpffs directory per agent, so it stays when the process ends:
//! without a worker's socket the programs drop, they never let a packet pass. The next process
//! loads its own programs over the same maps and swaps them into the links without a gap.

mod error;
mod links;
mod load;
mod maps;
mod sys;

pub use error::Error;
pub use maps::{Config, Loss, MAX_QUEUES, MAX_UPLINKS};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, Program};
use links::{Hook, Links};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

/// Where bpffs is usually mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// How tc programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TcMode {
    /// As tcx links (Linux 6.6); filters on older kernels.
    #[default]
    Tcx,
    /// As filters of a clsact qdisc.
    Clsact,
}

/// What the programs are loaded with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How tc programs are attached.
    pub tc: TcMode,
    /// Slots of the table of verdicts, a power of two.
    pub verdicts: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { tc: TcMode::default(), verdicts: 1 << 16 }
    }
}

/// Where an XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the driver made an skb.
    Generic,
}

/// The loaded programs and their maps.
#[derive(Debug)]
pub struct Bpf {
    object: Object,
    links: Links,
    tc: TcMode,
}

/// The directory of the agent `instance` (any name that is unique on the machine).
pub fn instance_dir(instance: &str) -> PathBuf {
    Path::new(BPFFS).join("dataplane").join(instance)
}

/// Unpins everything below the directory of an agent. What is attached to interfaces that still
/// exist is detached (filters of [`TcMode::Clsact`] go with their interfaces).
pub fn cleanup(dir: &Path) -> Result<(), Error> {
    links::remove_all(dir)
}

impl Bpf {
    /// Loads the programs. Maps and links that an earlier process pinned in `dir` are taken over:
    /// its sockets, addresses, counters and verdicts stay, its links run the new programs from now
    /// on. Only a table of verdicts of another size is replaced by an empty one.
    pub fn load(dir: &Path, options: &Options) -> Result<Bpf, Error> {
        if !options.verdicts.is_power_of_two() {
            return Err(invalid("number of verdicts", options.verdicts, "take a power of two"));
        }
        let links = Links::open(dir.join("links"))?;
        if !sys::is_bpffs(dir).map_err(|e| Error::new("statfs", dir.display(), e))? {
            let advice = "mount it: mount -t bpf bpf /sys/fs/bpf";
            return Err(Error::advised(
                "pin in",
                dir.display(),
                io::Error::other("no BPF file system"),
                advice,
            ));
        }
        let bpf = Bpf { object: load::object(dir, options)?, links, tc: options.tc };
        let taken = bpf.links.take_over(|hook| bpf.program(hook))?;
        if taken > 0 {
            tracing::info!(links = taken, dir = %dir.display(), "took over attached programs");
        }
        Ok(bpf)
    }

    /// Tells the programs what they have to know; before it they drop everything.
    pub fn configure(&self, config: &Config) -> Result<(), Error> {
        if !(1..=MAX_QUEUES).contains(&config.workers) {
            return Err(invalid("number of workers", config.workers, "1 to 64 are possible"));
        }
        self.set("config_map", &0u32.to_ne_bytes(), &config.bytes())
    }

    /// The memory of the table of verdicts, which the programs read and count in: slots of
    /// `struct verdict`. Mapped anew by every call and never unmapped.
    pub fn verdicts(&self) -> Result<&'static [AtomicU64], Error> {
        let map = self.map(load::VERDICTS)?;
        let words = map.max_entries() as usize * (load::SLOT_SIZE / size_of::<AtomicU64>());
        sys::map_words(map.as_fd(), words).map_err(|e| Error::new("map memory of", load::VERDICTS, e))
    }

    /// Which destinations the uplinks take from the host: (address, prefix length).
    pub fn set_pod_cidrs(&self, cidrs: &[(IpAddr, u8)]) -> Result<(), Error> {
        let wanted: Vec<_> = cidrs.iter().map(|&(address, length)| maps::prefix(address, length)).collect();
        for key in &wanted {
            self.set("pod_cidrs", key, &[1])?;
        }
        self.retain("pod_cidrs", |key| wanted.iter().any(|w| w == key))
    }

    /// Gives a queue of the hub to a socket. The entry goes when the socket is closed.
    pub fn set_hub_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.set("hub_sockets", &queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
    }

    /// Gives a queue of the uplink at `slot` (its position in [`Bpf::attach_uplinks`]) to a socket.
    pub fn set_uplink_socket(&self, slot: u32, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        if queue >= MAX_QUEUES {
            return Err(invalid("uplink queue", queue, "reduce them to 64 with ethtool -L"));
        }
        let key = slot * MAX_QUEUES + queue;
        self.set("uplink_sockets", &key.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
    }

    /// Attaches delivery and steering to the hub's host side and redirection to its worker side.
    pub fn attach_hub(&self, host_side: u32, worker_side: u32) -> Result<XdpMode, Error> {
        self.attach_tc(Hook::HubIngress, host_side)?;
        self.attach_tc(Hook::HubEgress, host_side)?;
        self.links.attach_xdp(Hook::HubXdp, worker_side, self.program(Hook::HubXdp)?.as_fd())
    }

    /// Attaches redirection to these uplinks and detaches it from any other.
    pub fn attach_uplinks(&self, ifindexes: &[u32]) -> Result<Vec<XdpMode>, Error> {
        if ifindexes.len() > MAX_UPLINKS as usize {
            return Err(invalid("number of uplinks", ifindexes.len(), "16 are possible"));
        }
        for (slot, ifindex) in (0u32..).zip(ifindexes) {
            self.set("uplinks", &ifindex.to_ne_bytes(), &slot.to_ne_bytes())?;
        }
        let program = self.program(Hook::UplinkXdp)?;
        let attach = |&ifindex| self.links.attach_xdp(Hook::UplinkXdp, ifindex, program.as_fd());
        let modes = ifindexes.iter().map(attach).collect::<Result<_, _>>()?;
        ifindexes.iter().try_for_each(|&ifindex| self.attach_tc(Hook::UplinkIngress, ifindex))?;
        for (hook, ifindex) in self.links.list()? {
            if hook == Hook::UplinkXdp && !ifindexes.contains(&ifindex) {
                self.links.remove_uplink(ifindex)?;
            }
        }
        self.retain("uplinks", |key| ifindexes.iter().any(|ifindex| key == ifindex.to_ne_bytes()))?;
        Ok(modes)
    }

    /// Attaches steering to both directions of a pod's host-side interface.
    pub fn attach_pod(&self, ifindex: u32) -> Result<(), Error> {
        self.attach_tc(Hook::PodIngress, ifindex)?;
        self.attach_tc(Hook::PodEgress, ifindex)
    }

    /// Forgets a pod's interface. Delete the interface first: a pod whose interface is up
    /// without steering talks to the host's stack.
    pub fn detach_pod(&self, ifindex: u32) -> Result<(), Error> {
        self.links.remove(Hook::PodIngress, ifindex)?;
        self.links.remove(Hook::PodEgress, ifindex)
    }

    /// Frames lost in the kernel's part of the way, by reason.
    pub fn losses(&self) -> Result<Vec<(Loss, u64)>, Error> {
        let map = self.map("losses")?;
        let read = |loss: Loss| {
            let per_cpu = map.lookup_percpu(&(loss as u32).to_ne_bytes(), MapFlags::ANY);
            let per_cpu = per_cpu.map_err(|e| Error::libbpf("read map", "losses", e))?.unwrap_or_default();
            let sum = per_cpu.iter().filter_map(|v| v.first_chunk()).map(|v| u64::from_ne_bytes(*v)).sum();
            Ok((loss, sum))
        };
        Loss::ALL.into_iter().map(read).collect()
    }

    fn attach_tc(&self, hook: Hook, ifindex: u32) -> Result<(), Error> {
        let mode = self.links.attach_tc(hook, ifindex, self.program(hook)?.as_fd(), self.tc)?;
        tracing::debug!(program = hook.program(), ifindex, ?mode, "attached");
        Ok(())
    }

    fn program(&self, hook: Hook) -> Result<Program<'_>, Error> {
        let missing = || invalid("BPF program", hook.program(), "it is not in the object file");
        self.object.progs().find(|program| program.name() == hook.program()).ok_or_else(missing)
    }

    fn map(&self, name: &'static str) -> Result<MapHandle, Error> {
        let missing = || invalid("BPF map", name, "it is not in the object file");
        let map = self.object.maps().find(|map| map.name() == name).ok_or_else(missing)?;
        MapHandle::try_from(&map).map_err(|e| Error::libbpf("open map", name, e))
    }

    fn set(&self, name: &'static str, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let map = self.map(name)?;
        map.update(key, value, MapFlags::ANY).map_err(|e| Error::libbpf("write map", name, e))
    }

    /// Deletes the keys that are not wanted.
    fn retain(&self, name: &'static str, wanted: impl Fn(&[u8]) -> bool) -> Result<(), Error> {
        let map = self.map(name)?;
        let surplus: Vec<_> = map.keys().filter(|key| !wanted(key)).collect();
        surplus
            .iter()
            .try_for_each(|key| map.delete(key))
            .map_err(|e| Error::libbpf("delete from map", name, e))
    }
}

fn invalid(what: &'static str, value: impl ToString, advice: &'static str) -> Error {
    Error::advised(what, value, io::ErrorKind::InvalidInput.into(), advice)
}

#[cfg(test)]
mod tests;
