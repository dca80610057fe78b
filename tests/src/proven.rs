//! Flows that have proved themselves: enough packets both ways that verdicts about them are cached.

use crate::host::Host;
use crate::node::Node;
use crate::sockets::Conversation;
use crate::wait::{eventually, eventually_true};
use std::net::{SocketAddr, UdpSocket};
use std::{io, iter};

/// More packets than a flow needs to prove itself, each way.
pub const PROOF: usize = 8;

/// Opens a connection that has proved itself to a server of this name.
pub fn proven(client: &Host, to: impl Into<SocketAddr>, name: &str) -> Conversation {
    let to = to.into();
    let mut conversation = eventually(&format!("{name} answers at {to}"), || client.connect(to));
    for _ in 0..PROOF {
        assert_eq!(conversation.ask("hello").unwrap_or_else(|e| panic!("{to}: {e}")), name);
    }
    conversation
}

/// As [`proven`], of datagrams.
pub fn proven_udp(client: &Host, to: impl Into<SocketAddr>, name: &str) -> UdpSocket {
    let to = to.into();
    let socket = client.udp(to).unwrap_or_else(|e| panic!("{to}: {e}"));
    eventually(&format!("{name} answers at {to}"), || ask(&socket));
    for _ in 0..PROOF {
        assert_eq!(ask(&socket).unwrap_or_else(|e| panic!("{to}: {e}")), name);
    }
    socket
}

/// Sends a datagram; the name of the server that answered.
pub fn ask(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 64];
    socket.send(b"hello")?;
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim_end_matches(":hello").to_owned())
}

/// The port that a socket is bound to.
pub fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("a bound socket").port()
}

/// What has arrived.
pub fn unread(socket: &UdpSocket) -> Vec<String> {
    let mut buffer = [0; 64];
    socket.set_nonblocking(true).expect("a socket");
    let received = iter::from_fn(|| socket.recv(&mut buffer).map(|length| buffer[..length].to_vec()).ok());
    let answers = received.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
    socket.set_nonblocking(false).expect("a socket");
    answers
}

/// Waits until the kernel repeats verdicts about what was opened from this port, or does not.
pub fn is_offloaded(node: &Node, port: u16, wanted: bool) {
    eventually(&format!("offloaded: {wanted}, port {port} at {}", node.host.netns), || {
        let flows = node.connections(port);
        let offloaded = flows.iter().any(|flow| flow["offloaded"] == true);
        if offloaded == wanted { Ok(()) } else { Err(format!("{flows:#?}")) }
    });
}

/// How many verdicts the cache holds.
pub fn verdicts(node: &Node) -> u64 {
    node.metric("dataplane_offload_entries")
}

/// Packets that policy has refused.
pub fn denied(node: &Node) -> u64 {
    ["INGRESS", "EGRESS"]
        .map(|way| {
            node.metric(&format!(r#"cilium_drop_count_total{{reason="Policy denied",direction="{way}"}}"#))
        })
        .iter()
        .sum()
}

/// Waits until a datagram is denied. (Answers to what was sent before may still pass.)
pub fn is_cut_off(node: &Node, socket: &UdpSocket) {
    let before = denied(node);
    eventually_true("it is cut off", || {
        socket.send(b"hello").expect("a connected socket");
        denied(node) > before
    });
    unread(socket);
}
