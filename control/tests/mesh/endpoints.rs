//! Which of several endpoints is used.

use super::agent::setup;
use super::etcd::Etcd;
use super::eventually;
use super::relay::Relay;
use std::fs;
use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Duration, timeout};

/// A port of a host that drops whoever wants to connect: its queue is full.
struct Silent {
    port: u16,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Silent {
    async fn listen() -> Silent {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(connected) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
            queue.push(connected.unwrap());
        }
        Silent { port: address.port(), _listener: listener, _queue: queue }
    }

    /// Somebody is trying to connect.
    fn is_tried(&self) -> bool {
        let to_it = format!("0100007F:{:04X}", self.port);
        let sockets = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let mut sockets = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        sockets.any(|socket| socket[2] == to_it && socket[3] == "02") // SYN_SENT
    }
}

#[tokio::test]
async fn silent_members_are_tried_beside_each_other() {
    let etcd = Etcd::start().await;
    etcd.put("cilium/cluster-config/west", r#"{"id":2,"capabilities":{}}"#).await;
    let (relay, silent) =
        (Relay::before(etcd.port()).await, [Silent::listen().await, Silent::listen().await]);
    relay.cut(true);
    let agent = setup("east", 1, 1).start(None).await;
    agent.join_by("west", &etcd.config_at(&[silent[0].port, silent[1].port, relay.port]));
    eventually("both are tried at once", async || silent.iter().all(Silent::is_tried)).await;
    relay.cut(false);
    eventually("the one that answers is used", async || agent.ready("west")).await;
    assert_eq!(agent.remote("west").unwrap().num_failures, 0, "the silent ones were not waited for");
}
