//! Views of workers, links and conntrack.

use super::Agent;
use crate::api::model::{
    ConntrackStatus, DatapathStatus, HoldStatus, LinkStatus, OffloadStatus, SocketStatus, WorkerStatus,
};
use crate::net::hub;
use crate::offload::Totals;
use crate::worker::{SocketShared, WorkerShared, hold};
use bpf::XdpMode;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use xsk::Mode;

impl Agent {
    /// Workers and links.
    pub fn datapath(&self) -> DatapathStatus {
        DatapathStatus {
            poll: self.config.poll.to_string(),
            workers: self.workers.iter().map(|worker| worker_status(worker)).collect(),
            links: self.xdp.iter().map(|&(ref name, xdp)| self.link_status(name, xdp)).collect(),
            kernel_drops: self.kernel_drops(),
        }
    }

    /// Conntrack totals.
    pub fn conntrack(&self) -> ConntrackStatus {
        let flow::Stats { capacity, entries, evicted, full } = self.flows.stats();
        ConntrackStatus { entries, capacity, evicted, full }
    }

    /// The verdict cache.
    pub fn offload(&self) -> OffloadStatus {
        let totals = self.offload.refresh();
        let verdicts::Stats { capacity, entries, inserted, removed, full, .. } =
            self.offload.verdicts.stats();
        let Totals { packets, bytes, expired, orphaned, revoked, .. } = totals;
        let by_workers = removed.saturating_sub(expired + orphaned + revoked);
        let removed =
            [("closed", by_workers), ("expired", expired), ("orphaned", orphaned), ("revoked", revoked)];
        OffloadStatus {
            enabled: self.config.offload,
            after: self.config.offload_after,
            entries,
            capacity,
            inserted,
            removed: removed.map(|(cause, count)| (cause.to_owned(), count)).into(),
            full,
            packets,
            bytes,
        }
    }

    fn link_status(&self, name: &str, xdp: XdpMode) -> LinkStatus {
        let node = &self.publisher.current().node;
        let uplink = node.uplinks.iter().find(|uplink| uplink.name == name);
        let socket =
            self.workers.iter().flat_map(|worker| &worker.sockets).find(|socket| socket.device == name);
        LinkStatus {
            name: name.into(),
            role: if name == hub::WORKER_END { "hub" } else { "uplink" }.into(),
            mtu: uplink.map_or(node.pod_mtu, |uplink| uplink.mtu),
            mode: socket.map_or("none", |socket| mode(socket.mode)).into(),
            xdp: match xdp {
                XdpMode::Native => "native",
                XdpMode::Generic => "generic",
            }
            .into(),
        }
    }

    fn kernel_drops(&self) -> BTreeMap<String, u64> {
        let losses = self.bpf.losses().inspect_err(|error| tracing::warn!(%error, "kernel drops"));
        losses.unwrap_or_default().into_iter().map(|(loss, count)| (loss.name().into(), count)).collect()
    }
}

fn worker_status(worker: &WorkerShared) -> WorkerStatus {
    WorkerStatus {
        index: worker.index,
        cpu: worker.cpu,
        alive: worker.alive(),
        error: worker.failure().map(str::to_owned),
        events_lost: worker.events_lost.load(Relaxed),
        handoff_full: worker.handoff_full.load(Relaxed),
        no_frame: worker.no_frame.load(Relaxed),
        uplink_gone: worker.uplink_gone.load(Relaxed),
        hold: hold_status(&worker.hold),
        sockets: worker.sockets.iter().map(socket_status).collect(),
    }
}

fn hold_status(counts: &hold::Counts) -> HoldStatus {
    HoldStatus {
        held: counts.held.load(Relaxed),
        decided: counts.decided.load(Relaxed),
        expired: counts.expired.load(Relaxed),
        refused: counts.refused.load(Relaxed),
    }
}

fn socket_status(socket: &SocketShared) -> SocketStatus {
    SocketStatus {
        interface: socket.device.clone(),
        queue: socket.queue,
        mode: mode(socket.mode).into(),
        gone: socket.dead.load(Relaxed),
        counters: socket.stats.read().map(|(name, _, value)| (name.into(), value)).collect(),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Copy => "copy",
        Mode::ZeroCopy => "zero-copy",
    }
}
