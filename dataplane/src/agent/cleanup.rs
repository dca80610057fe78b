//! Removing everything that an agent made, while none runs.

use super::{Error, instance};
use crate::net::hub;
use crate::net::links::Links;
use crate::net::node_routes::NodeRoutes;
use crate::net::{ethtool, gso, sysctl};
use crate::state::{State, StateDir};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Removes everything that agents with this state-dir made in this network namespace: the pods'
/// interfaces, the hub with its addresses and routes, programs, state. Refuses while one runs, and
/// where their links are out of reach: without programs, pods would talk to the host's stack. Fine
/// if there is nothing.
pub async fn cleanup(state_dir: &Path, bpffs: &Path) -> Result<(), Error> {
    let dir = StateDir::lock(state_dir)?;
    let state = dir.load().unwrap_or_else(|error| {
        tracing::warn!(%error, "cleaning up without it");
        None
    });
    if let Some(elsewhere) =
        state.as_ref().map(|state| instance::elsewhere(&state.instance)).transpose()?.flatten()
    {
        return Err(Error::new(format!(
            "state-dir {0}: its agent ran in network namespace {1}: `nsenter --net={1} dataplane cleanup --state-dir {0}`",
            dir.path().display(),
            elsewhere.display()
        )));
    }
    let mut instances = BTreeSet::from([instance::name(dir.path())?]);
    instances.extend(state.iter().map(|state| state.instance.clone()));
    // Links first: a pod that is up without its programs would talk to the host's stack.
    let links = Links::connect()?;
    for link in links.all().await? {
        let alias = link.alias.as_deref().unwrap_or_default();
        if instances.iter().any(|instance| instance::owns(instance, alias)) {
            links.delete(link.index).await?;
        }
    }
    if links.by_name(hub::HOST_END).await?.is_none() {
        NodeRoutes::new(links.clone()).await?.clear().await?;
    }
    if let Some(bpffs) = super::preflight::existing_bpffs(bpffs) {
        for instance in &instances {
            bpf::cleanup(&bpffs.join("dataplane").join(instance))?;
        }
        // Only if no other agent has something in it.
        let _ = fs::remove_dir(bpffs.join("dataplane"));
    }
    if let Some(state) = state {
        restore_settings(&links, &state).await?;
    }
    Ok(dir.remove()?)
}

/// Sets back what [`super::start`] changed.
async fn restore_settings(links: &Links, state: &State) -> Result<(), Error> {
    for (key, before) in &state.sysctls {
        // The interface of the setting may be gone.
        if sysctl::get(key)?.is_some() {
            sysctl::set(key, before)?;
        }
    }
    for uplink in &state.complete_checksums {
        if nix::net::if_::if_nametoindex(uplink.as_str()).is_ok() {
            ethtool::set_tx_checksum(uplink, true)?;
        }
    }
    for uplink in &state.joined_segments {
        if nix::net::if_::if_nametoindex(uplink.as_str()).is_ok() {
            ethtool::set_gro(uplink, false)?;
        }
    }
    for (uplink, &size) in &state.packet_sizes {
        if let Some(link) = links.by_name(uplink).await? {
            gso::set(links, link.index, size, uplink).await?;
        }
    }
    Ok(())
}
