//! A relay before an etcd, whose connections can be frozen one by one or cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) struct Relay {
    pub(crate) port: u16,
    state: Arc<watch::Sender<State>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    accepted: usize,
    frozen: BTreeSet<usize>,
    /// Bytes from the server by connection.
    carried: BTreeMap<usize, usize>,
    cut: bool,
}

impl Relay {
    pub(crate) async fn before(target: u16) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Arc<watch::Sender<State>> = Arc::default();
        let (shared, mut tasks) = (state.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let mut cut = shared.subscribe();
            loop {
                tokio::select! {
                    client = listener.accept() => {
                        let number = shared.borrow().accepted;
                        shared.send_modify(|state| state.accepted += 1);
                        if !shared.borrow().cut {
                            connections.spawn(relay(client.unwrap().0, target, number, shared.clone()));
                        }
                    }
                    () = async { drop(cut.wait_for(|state| state.cut).await) } => {
                        connections.abort_all();
                        cut.wait_for(|state| !state.cut).await.unwrap();
                    }
                }
            }
        });
        Relay { port, state, _tasks: tasks }
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.state.borrow().accepted
    }

    /// The connection over which the server says most meanwhile.
    pub(crate) async fn busiest(&self, meanwhile: impl Future<Output = ()>) -> usize {
        self.state.send_modify(|state| state.carried.clear());
        meanwhile.await;
        let state = self.state.borrow();
        *state.carried.iter().max_by_key(|(_, bytes)| **bytes).expect("it says something").0
    }

    /// What the server says over the connection with this number (from 0 on) comes no further.
    pub(crate) fn freeze(&self, number: usize) {
        self.state.send_modify(|state| _ = state.frozen.insert(number));
    }

    /// Ends all connections; accepts none while it is so.
    pub(crate) fn cut(&self, cut: bool) {
        self.state.send_modify(|state| state.cut = cut);
    }
}

async fn relay(client: TcpStream, target: u16, number: usize, state: Arc<watch::Sender<State>>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, None) => {}
        () = pass(from_server, to_client, Some((number, state))) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    watched: Option<(usize, Arc<watch::Sender<State>>)>,
) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if let Some((number, state)) = &watched {
            state.send_modify(|state| *state.carried.entry(*number).or_default() += count);
            let _ = state.subscribe().wait_for(|state| !state.frozen.contains(number)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
