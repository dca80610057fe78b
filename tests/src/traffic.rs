//! What the kernel itself counts, to hold against what agents say.

use crate::host::Host;
use crate::node::Node;
use serde_json::Value;
use std::net::SocketAddr;

/// Packets and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// In both directions, seen from whoever counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Both {
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

impl Host {
    /// What an interface has carried. A segment that the kernel has kept whole is one packet.
    pub fn carried(&self, link: &str) -> Both {
        let text = self.ip(&format!("-s -j link show {link}"));
        let list: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{link}: {e}\n{text}"));
        let counters = &list[0]["stats64"];
        let of = |way: &str| Traffic {
            packets: counters[way]["packets"].as_u64().unwrap_or_else(|| panic!("{link}: {text}")),
            bytes: counters[way]["bytes"].as_u64().unwrap_or_else(|| panic!("{link}: {text}")),
        };
        Both { received: of("rx"), sent: of("tx") }
    }

    /// Has netfilter count what the host's own sockets exchange with this port of others from now
    /// on ([`Host::exchanged`]).
    pub fn count_port(&self, port: u16) {
        for command in [
            "add table inet count".to_owned(),
            "add counter inet count sent".to_owned(),
            "add counter inet count received".to_owned(),
            "add chain inet count out { type filter hook output priority 0 ; }".to_owned(),
            "add chain inet count in { type filter hook input priority 0 ; }".to_owned(),
            format!("add rule inet count out th dport {port} counter name sent"),
            format!("add rule inet count in th sport {port} counter name received"),
        ] {
            self.run(&format!("nft {command}")).unwrap_or_else(|e| panic!("{e}"));
        }
    }

    /// Packets and bytes from the IP header on since [`Host::count_port`].
    pub fn exchanged(&self) -> Both {
        let text = self.run("nft -j list counters table inet count").unwrap_or_else(|e| panic!("{e}"));
        let list: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let of = |name: &str| {
            let counters = list["nftables"].as_array().into_iter().flatten().map(|entry| &entry["counter"]);
            let counter = counters.into_iter().find(|counter| counter["name"] == name);
            let number = |key: &str| counter.and_then(|counter| counter[key].as_u64());
            Traffic {
                packets: number("packets").unwrap_or_else(|| panic!("{name}: {text}")),
                bytes: number("bytes").unwrap_or_else(|| panic!("{name}: {text}")),
            }
        };
        Both { received: of("received"), sent: of("sent") }
    }

    /// Segments that the only TCP connection to `peer` has received and sent.
    pub fn segments(&self, peer: SocketAddr) -> [u64; 2] {
        let text =
            self.run(&format!("ss -Htin state established dst {peer}")).unwrap_or_else(|e| panic!("{e}"));
        ["segs_in:", "segs_out:"].map(|key| {
            let values: Vec<&str> =
                text.split_whitespace().filter_map(|word| word.strip_prefix(key)).collect();
            let [value] = values[..] else { panic!("{peer}: not one connection: {text}") };
            value.parse().unwrap_or_else(|e| panic!("{key}{value}: {e}"))
        })
    }
}

impl Node {
    /// Frames that have gone to workers and come from them by way of the hub.
    pub fn through_the_hub(&self) -> u64 {
        let Both { received, sent } = self.host.carried("dphub0");
        received.packets + sent.packets
    }

    /// What `ct list` says of what was opened from `port`: an entry for each peer, not those that
    /// only remember a backend.
    pub fn connections(&self, port: u16) -> Vec<Value> {
        let list = self.cli.json("ct list");
        let ours = |flow: &&Value| flow["source-port"] == port && flow["kind"] != "SVC";
        list.as_array().expect("a list").iter().filter(ours).cloned().collect()
    }

    /// The only one of [`Node::connections`].
    pub fn connection(&self, port: u16) -> Value {
        match &self.connections(port)[..] {
            [flow] => flow.clone(),
            flows => panic!("{}: not one connection from port {port}: {flows:#?}", self.host.netns),
        }
    }
}
