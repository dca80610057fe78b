//! Starting: every step may rely on the ones before it, and nothing is received before all of
//! them are done.

use super::endpoints::{self, Endpoints, Known};
use super::node::{self, NodeSpec};
use super::watch::Watch;
use super::{Agent, Config, Error, conntrack, instance, preflight};
use crate::ipam::Ipam;
use crate::net::events::Events;
use crate::net::hub::{self, HubSpec};
use crate::net::links::Links;
use crate::net::neighbors::Resolver;
use crate::net::node_routes::NodeRoutes;
use crate::net::{GATEWAY_MAC, ethtool, gso, sysctl};
use crate::offload::{Manager, Offload};
use crate::state::{State, StateDir};
use crate::worker::{self, Workers};
use bpf::{Bpf, XdpMode};
use control::Control;
use control::agent::ControlConfig;
use control::model::LocalEndpoint;
use flow::Table;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tables::Publisher;

/// Most workers if neither their number nor CPUs are given: they forward several Gbit/s, and the
/// pods want the rest. On two CPUs one worker does more than two (docs/performance.md).
const DEFAULT_WORKERS: usize = 2;
/// How long traffic waits for the first complete view of all clusters: known flows of the run
/// before must not be judged without identities.
const SYNC_WAIT: Duration = Duration::from_secs(5);
/// After this long without its store, backends of a remote cluster leave load balancing.
const SERVICE_GRACE: Duration = Duration::from_secs(30);

impl Agent {
    /// Starts an agent; when this returns, workers run and the pods of the run before are
    /// connected. Takes over whatever an earlier run with the same state-dir left.
    pub async fn start(config: Config) -> Result<Arc<Agent>, Error> {
        let started = Instant::now();
        preflight::check_machine()?;
        preflight::check_config(&config)?;
        let bpffs = preflight::find_bpffs(&config.bpffs)?;
        let dir = StateDir::lock(&config.state_dir)?;
        let mut state = load(&dir)?;
        let ipam = Ipam::new(&config.pod_cidrs)?;
        let pods: Vec<(IpNet, IpAddr)> = config.pod_cidrs.iter().copied().zip(ipam.gateways()).collect();
        let links = Links::connect()?;
        let node = node::discover(&config, &links, pods).await?;
        let workers = number_of_workers(&config);

        enable_forwarding(&node, &dir, &mut state)?;
        set_up_veths(&links, &node, &dir, &mut state).await?;
        // Workers take packets segment by segment, and a burst of few large ones as it is.
        let gso = if config.offload { enlarge(&links, &node, &dir, &mut state).await? } else { gso::LEGACY };
        let pins = bpffs.join("dataplane").join(&state.instance);
        let hub_spec = HubSpec {
            alias: instance::alias(&state.instance),
            queues: workers as u32,
            mtu: node.mtu.into(),
            pods: node.pods.clone(),
        };
        let (bpf, xdp) = kernel_side(&config, &links, &pins, &hub_spec, &node).await?;
        let mtu = largest_mtu(&links, &node).await?;
        let (flows, kept) =
            conntrack::open(&dir.conntrack(), config.conntrack_flows, instance::hash(&state.boot))?;

        // From here on no change of a link is missed.
        let events = Events::subscribe()?;
        let publisher = Publisher::new(rand::random());
        let described = node::describe(&node, &links).await?;
        publisher.edit(|tables| tables.node = described);
        let offload = Arc::new(offload(&config, &bpf, flows, &publisher)?);
        let mut known = Known { state, ipam, gone: BTreeSet::new() };
        let pods = endpoints::restore(&links, &bpf, &mut known).await?;
        endpoints::remove_unknown(&links, &bpf, &hub_spec.alias, &known.state).await?;
        let control = control_config(&config, &node, pods, &dir);
        let control = Control::start(control, publisher.clone()).await?;
        let endpoints = Arc::new(Endpoints {
            links: links.clone(),
            bpf: bpf.clone(),
            control: control.clone(),
            flows,
            offload: offload.clone(),
            alias: hub_spec.alias,
            mtu: node.mtu,
            gso,
            pods: node.pods.clone(),
            dir,
            changing: tokio::sync::Mutex::new(()),
            known: Mutex::new(known),
        });
        control.wait_restored().await;
        if !control.wait_synced(SYNC_WAIT).await {
            tracing::warn!(
                "not all clusters have been read within {SYNC_WAIT:?}; going on with what is known"
            );
        }

        let resolver = Resolver::new(links.clone(), publisher.clone()).await?;
        let watch = Watch {
            routes: NodeRoutes::new(links.clone()).await?,
            routed: BTreeMap::new(),
            control: control.clone(),
            links,
            publisher: publisher.clone(),
            endpoints: endpoints.clone(),
            node: node.clone(),
            resolver,
        };
        let tasks = vec![
            tokio::spawn(watch.run(events)).abort_handle(),
            tokio::spawn(conntrack::sweep(flows)).abort_handle(),
        ];
        let interest = Arc::new(AtomicU8::new(0));
        let worker_config = worker_config(&config, &node, workers, mtu);
        let threads = Workers::start(&worker_config, &bpf, &publisher, flows, offload.verdicts, &interest)?;
        let manager = Manager::start(offload.clone(), &config.cpus)
            .map_err(|error| Error::new(format!("verdict cache: no thread: {error}")))?;
        tracing::info!(workers, connections = kept, endpoints = endpoints.list().len(), "started");
        Ok(Arc::new(Agent {
            config,
            node_name: node.name,
            node_addresses: node.addresses,
            control,
            publisher,
            flows,
            workers: threads.shared.clone(),
            events: threads.events.clone(),
            interest,
            offload,
            started,
            bpf,
            endpoints,
            xdp,
            threads: Mutex::new(Some((threads, manager))),
            tasks,
        }))
    }
}

/// The state of the run before, or a new one.
fn load(dir: &StateDir) -> Result<State, Error> {
    let (instance, boot) = (instance::name(dir.path())?, instance::boot()?);
    match dir.load()? {
        Some(state) if state.instance == instance && state.boot == boot => Ok(state),
        // No link, pin or setting outlives the machine's boot.
        Some(state) if state.boot != boot => Ok(State::new(instance, boot)),
        Some(_) => Err(Error::new(format!(
            "state-dir {}: belongs to an agent in another network namespace: start it there, or run `dataplane \
             cleanup` with this --state-dir first",
            dir.path().display()
        ))),
        None => Ok(State::new(instance, boot)),
    }
}

fn number_of_workers(config: &Config) -> usize {
    let cpus = || std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    match (config.workers, config.cpus.len()) {
        (Some(workers), _) => workers,
        (None, 0) => (cpus() / 2).clamp(1, DEFAULT_WORKERS),
        (None, pinned) => pinned,
    }
}

/// Lets the host's stack forward between pods and the world, in the families that pods have.
/// What was changed is remembered first, for `cleanup`.
fn enable_forwarding(node: &NodeSpec, dir: &StateDir, state: &mut State) -> Result<(), Error> {
    let mut wanted = Vec::new();
    if node.pods.iter().any(|(cidr, _)| cidr.addr().is_ipv4()) {
        wanted.push(("net/ipv4/ip_forward".to_owned(), "1"));
    }
    if node.pods.iter().any(|(cidr, _)| cidr.addr().is_ipv6()) {
        // A router ignores router advertisements unless it is told not to (2).
        for uplink in &node.uplinks {
            let key = format!("net/ipv6/conf/{uplink}/accept_ra");
            if sysctl::get(&key)?.as_deref() == Some("1") {
                wanted.push((key, "2"));
            }
        }
        wanted.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    for (key, value) in &wanted {
        match sysctl::get(key)? {
            Some(before) if before != *value => state.sysctls.entry(key.clone()).or_insert(before),
            _ => continue,
        };
    }
    dir.save(state)?;
    for (key, value) in &wanted {
        sysctl::set(key, value)?;
    }
    Ok(())
}

/// Makes a veth as uplink do what a NIC does. It hands on what the host's stack sends with
/// checksums that only a NIC would complete; the next node's workers would deliver them like that.
/// And unlike a NIC's driver it joins no segments by default, not with an XDP program either.
async fn set_up_veths(
    links: &Links,
    node: &NodeSpec,
    dir: &StateDir,
    state: &mut State,
) -> Result<(), Error> {
    for name in &node.uplinks {
        if !links.by_name(name).await?.is_some_and(|link| link.veth) {
            continue;
        }
        if ethtool::tx_checksum(name)? {
            state.complete_checksums.insert(name.clone());
            dir.save(state)?;
            ethtool::set_tx_checksum(name, false)?;
        }
        if !ethtool::gro(name)? {
            state.joined_segments.insert(name.clone());
            dir.save(state)?;
            ethtool::set_gro(name, true)?;
        }
    }
    Ok(())
}

/// Has uplinks take packets as large as all of them can; returns how large.
async fn enlarge(links: &Links, node: &NodeSpec, dir: &StateDir, state: &mut State) -> Result<u32, Error> {
    let mut uplinks = Vec::new();
    for name in &node.uplinks {
        uplinks.extend(links.by_name(name).await?);
    }
    let size = uplinks.iter().map(|uplink| uplink.gso_limit).fold(gso::LARGEST, u32::min);
    for uplink in uplinks.iter().filter(|uplink| uplink.gso < size) {
        state.packet_sizes.entry(uplink.name.clone()).or_insert(uplink.gso);
        dir.save(state)?;
        gso::set(links, uplink.index, size, &uplink.name).await?;
    }
    Ok(size.max(gso::LEGACY))
}

/// The hub and all programs, attached but without sockets: everything is dropped. Returns where
/// XDP runs on the hub and the uplinks.
async fn kernel_side(
    config: &Config,
    links: &Links,
    pins: &Path,
    spec: &HubSpec,
    node: &NodeSpec,
) -> Result<(Arc<Bpf>, Vec<(String, XdpMode)>), Error> {
    let hub = hub::create_or_adopt(links, spec).await?;
    let slots = config.offload_slots() as u32;
    let bpf = Bpf::load(pins, &bpf::Options { verdicts: slots, ..Default::default() })?;
    bpf.configure(&bpf::Config {
        hub: hub.host,
        workers: spec.queues,
        gateway_mac: GATEWAY_MAC.0,
        offload: config.offload,
    })?;
    let cidrs: Vec<_> = spec.pods.iter().map(|(cidr, _)| (cidr.network(), cidr.prefix_len())).collect();
    bpf.set_pod_cidrs(&cidrs)?;
    let mut xdp = vec![(hub::WORKER_END.to_owned(), bpf.attach_hub(hub.host, hub.worker)?)];
    let mut uplinks = Vec::new();
    for name in &node.uplinks {
        uplinks.extend(links.by_name(name).await?.map(|link| link.index));
    }
    xdp.extend(node.uplinks.iter().cloned().zip(bpf.attach_uplinks(&uplinks)?));
    hub::activate(links, &hub, spec).await?;
    Ok((Arc::new(bpf), xdp))
}

/// The verdict cache: the one that the kernel shares, with what an earlier run left in it, or a
/// private one. Then what an earlier run has shared is emptied.
fn offload(
    config: &Config,
    bpf: &Bpf,
    flows: &'static Table,
    publisher: &Arc<Publisher>,
) -> Result<Offload, Error> {
    let offload =
        |verdicts, kernel| Offload::new(Box::leak(Box::new(verdicts)), flows, publisher.clone(), kernel);
    let shared = offload(verdicts::Table::new(bpf.verdicts()?), config.offload);
    if config.offload {
        return Ok(shared);
    }
    shared.verdicts.flush();
    Ok(offload(verdicts::Table::boxed(config.offload_slots()), false))
}

fn control_config(
    config: &Config,
    node: &NodeSpec,
    endpoints: Vec<LocalEndpoint>,
    dir: &StateDir,
) -> ControlConfig {
    ControlConfig {
        cluster_name: config.cluster_name.clone(),
        cluster_id: config.cluster_id,
        node_name: node.name.clone(),
        node_addresses: node.addresses.clone(),
        gateways: node.pods.iter().map(|&(_, gateway)| gateway).collect(),
        pod_cidrs: config.pod_cidrs.clone(),
        kvstore_config: config.kvstore_config.clone(),
        clustermesh_config: config.clustermesh_config.clone(),
        endpoints,
        manifests: config.manifests.clone(),
        policy_mode: config.policy_mode,
        cache_ttl: config.clustermesh_cache_ttl,
        service_grace: SERVICE_GRACE,
        lease_ttl: config.kvstore_lease_ttl,
        learned: Some(dir.learned()),
    }
}

/// The largest MTU that frames to workers can have: pods may have that of an earlier run.
async fn largest_mtu(links: &Links, node: &NodeSpec) -> Result<u32, Error> {
    let mut largest = 0;
    for name in node.uplinks.iter().map(String::as_str).chain([hub::WORKER_END]) {
        largest = links.by_name(name).await?.map_or(0, |link| link.mtu).max(largest);
    }
    Ok(largest)
}

fn worker_config(config: &Config, node: &NodeSpec, workers: usize, mtu: u32) -> worker::Config {
    worker::Config {
        workers,
        cpus: config.cpus.clone(),
        poll: config.poll,
        hub: hub::WORKER_END.into(),
        uplinks: node.uplinks.clone(),
        mtu,
        cache_after: config.offload_after,
    }
}
