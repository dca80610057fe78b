//! What entries of the tables take on the heap.

use super::Heap;
use crate::report::{Bound, Findings, Form, Goal, Plot, Row, Section, Series, Summary};
use ipnet::IpNet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tables::{
    Backend, Frontend, HopId, IpCache, IpEntry, Peers, Policy, PolicySpec, PortMatch, RuleEntry, RuleId,
    ServiceSpec, Services,
};
use wire::{Address, Identity, Protocol};

/// Backends of each service.
const BACKENDS: u32 = 10;
/// What must be reached.
const FLOW: f64 = 128.0;
const IPV4_ENTRY: f64 = 48.0;

/// A table filled with so many entries.
type Fill = fn(u32) -> Box<dyn std::any::Any>;

struct Table {
    name: &'static str,
    fill: Fill,
    sizes: &'static [u32],
}

const TABLES: [Table; 5] = [
    Table { name: "flow in conntrack", fill: conntrack, sizes: &[65_536, 262_144, 1_048_576] },
    Table { name: "ip -> identity, IPv4", fill: ipv4, sizes: &[10_000, 100_000, 1_000_000] },
    Table { name: "ip -> identity, IPv6", fill: ipv6, sizes: &[10_000, 100_000, 1_000_000] },
    Table { name: "service with 10 backends", fill: services, sizes: &[100, 1000, 10_000] },
    Table { name: "policy rule", fill: rules, sizes: &[100, 1000, 10_000] },
];

/// Fills the tables one after the other.
pub(super) fn tables(heap: Heap) -> Findings {
    let mut section = Section::new(
        "Memory of tables",
        &["bytes on the heap per entry, without what a table of one entry takes"],
    );
    let (mut series, mut goals) = (Vec::new(), Vec::new());
    for table in &TABLES {
        let measured: Vec<(f64, Summary)> = table
            .sizes
            .iter()
            .map(|&size| (f64::from(size), Summary::of([table.bytes(size, heap)])))
            .collect();
        for (size, bytes) in &measured {
            section.rows.push(Row::new(table.name, format!("{size}")).value("per entry", "B", *bytes));
        }
        if let (Some((_, bytes)), Some(most)) = (measured.last(), table.goal()) {
            goals.push(Goal::new(format!("memory of a {}", table.name), Bound::AtMost(most), *bytes, "B"));
        }
        series.push(Series::new(table.name, measured));
    }
    section.plots.push(Plot {
        title: "Memory per entry".into(),
        form: Form::Lines { x_label: "entries".into() },
        y_label: "bytes per entry".into(),
        y_log: true,
        series,
    });
    Findings { sections: vec![section], goals }
}

impl Table {
    /// What each entry after the first takes.
    fn bytes(&self, size: u32, heap: Heap) -> f64 {
        let bytes = |size| {
            let before = heap();
            let _table = black_box((self.fill)(size));
            (heap() - before) as f64
        };
        (bytes(size) - bytes(1)) / f64::from(size - 1)
    }

    fn goal(&self) -> Option<f64> {
        match self.name {
            "flow in conntrack" => Some(FLOW),
            "ip -> identity, IPv4" => Some(IPV4_ENTRY),
            _ => None,
        }
    }
}

fn conntrack(size: u32) -> Box<dyn std::any::Any> {
    Box::new(flow::Table::boxed(size as usize, 1))
}

fn ipv4(size: u32) -> Box<dyn std::any::Any> {
    ipcache((0..size).map(|n| Ipv4Addr::from(0x0a00_0000 + n).into()))
}

fn ipv6(size: u32) -> Box<dyn std::any::Any> {
    ipcache((0..size).map(|n| Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(n)).into()))
}

fn ipcache(addresses: impl Iterator<Item = IpAddr>) -> Box<dyn std::any::Any> {
    let mut ipcache = IpCache::default();
    for (n, address) in (0..).zip(addresses) {
        let identity = Identity((1 << 16) + n % 65_536);
        ipcache.upsert(IpNet::from(address), IpEntry { identity, hop: HopId(1 + n % 1000) });
    }
    Box::new(ipcache)
}

fn services(size: u32) -> Box<dyn std::any::Any> {
    let mut services = Services::default();
    for n in 0..size {
        let backend =
            |b| Backend { address: Address::v4(0x0a00_0000 + n * BACKENDS + b), port: 8080, weight: 1 };
        services.upsert(ServiceSpec {
            id: n + 1,
            frontend: Frontend { address: Address::v4(0xac10_0000 + n), port: 80, proto: Protocol::TCP },
            backends: (0..BACKENDS).map(backend).collect(),
        });
    }
    Box::new(services)
}

/// Each about another peer and another port.
fn rules(size: u32) -> Box<dyn std::any::Any> {
    let rule = |n: u32| RuleEntry {
        peers: Peers::Set([Identity((1 << 16) + n)].into()),
        ports: PortMatch { proto: Some(Protocol::TCP), ports: n as u16..=n as u16 },
        deny: false,
        rule: RuleId(n + 1),
    };
    let spec = PolicySpec { ingress: Some((0..size).map(rule).collect()), egress: None };
    Box::new(Policy::compile(&spec))
}
