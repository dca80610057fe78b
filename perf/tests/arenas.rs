//! Every variant of the measurements over networks carries every kind of traffic, and is gone
//! afterwards. Needs root.

use perf::net::arena::Target;
use perf::net::traffic::Traffic;
use perf::net::{Arena, Load, agent, connections, echo, kernel, raw, requirements};
use std::fs;
use std::time::Duration;

const TURN: Duration = Duration::from_millis(100);
/// What traffic takes both families.
const EITHER: [Traffic; 2] = [Traffic::Streams { flows: 20 }, Traffic::Datagrams { size: 512, flows: 2 }];
const LOAD: Load = Load { services: 3, rules: 3 };

fn carry(arena: &Arena, targets: &[Target]) {
    let traffics = [
        Traffic::Streams { flows: 2 },
        Traffic::Datagrams { size: 512, flows: 2 },
        Traffic::Frames { size: 64, flows: 2 },
    ];
    for &target in targets {
        for traffic in traffics {
            traffic.run(arena, target, TURN).unwrap_or_else(|error| panic!("{traffic:?}: {error}"));
        }
    }
    connections::prepare(arena);
    for exchange in [echo::tcp, echo::udp, connections::run] {
        let times = exchange(arena, TURN).unwrap_or_else(|error| panic!("{}: {error}", arena.name));
        assert!(times.rate > 0.0 && times.microseconds(0.5) > 0.0, "{}", arena.name);
    }
}

fn carry_over_ipv6(arena: &Arena) {
    for traffic in EITHER {
        let carried = traffic.run(arena, Target::ServerOverIpv6, TURN);
        carried.unwrap_or_else(|error| panic!("{traffic:?} over IPv6: {error}"));
    }
}

/// Namespaces of this process.
fn namespaces() -> usize {
    let own = format!("dpt-{}-", std::process::id());
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count()
}

#[test]
fn every_variant_carries_every_kind_of_traffic_and_leaves_nothing() {
    requirements::check().unwrap();
    let both = [Target::Server, Target::Service];
    let kernel = kernel::same_node("kernel", None).unwrap();
    carry(&kernel, &both[..1]);
    carry_over_ipv6(&kernel);
    drop(kernel);
    carry(&kernel::same_node("nft", Some(LOAD)).unwrap(), &both);
    carry(&kernel::two_nodes("kernel on two nodes", Some(LOAD)).unwrap(), &both[..1]);
    carry(&raw::same_node("raw").unwrap(), &both[..1]);
    for offload in ["on", "off"] {
        let arena = agent::same_node(offload, offload, LOAD).unwrap();
        carry(&arena, &both);
        carry_over_ipv6(&arena);
    }
    let arena = agent::two_nodes("two nodes", "on", LOAD).unwrap();
    assert!(namespaces() >= 4, "these are the ones that are looked for");
    carry(&arena, &both);
    drop(arena);
    assert_eq!(namespaces(), 0);
}
