//! The sockets of one worker, their memory, and the way out of every port.

use super::{Config, Error, SocketShared, mailbox::Mailbox};
use bpf::Bpf;
use engine::Port;
use std::sync::{Arc, atomic::AtomicBool};
use xsk::{Batch, Dead, Frame, Mode, Pool, RING, Socket, Waiter};

/// Index of the hub's socket, and of the memory it shares with uplinks in copy mode.
const HUB: usize = 0;

/// A socket of this worker.
struct Bound {
    port: Port,
    device: String,
    queue: u32,
    socket: Socket,
    pool: usize,
    alive: bool,
}

/// How this worker sends out of an uplink.
enum Exit {
    /// Through its own socket.
    Own(usize),
    /// Through the worker that reads this mailbox.
    Other(Arc<Mailbox>),
}

/// What became of a frame to send.
pub(super) enum Sent {
    /// It is on its way, or was counted by the socket.
    Queued,
    /// The worker that serves the uplink has no room.
    NoRoom,
    /// The memory of the socket to send by is full.
    NoFrame,
    /// There is no such uplink (any more).
    Gone,
}

/// All sockets of one worker; the hub's is the first.
pub(super) struct Ports {
    pools: Vec<Pool>,
    bound: Vec<Bound>,
    exits: Vec<Exit>,
    uplink_queues: Vec<u32>,
}

impl Ports {
    /// Opens the sockets of every worker.
    pub(super) fn open_all(config: &Config) -> Result<Vec<Ports>, Error> {
        let queues = |device: &String| xsk::queues(device).map_err(|e| Error::Queues(device.clone(), e));
        let uplink_queues: Vec<u32> = config.uplinks.iter().map(queues).collect::<Result<_, _>>()?;
        (0..config.workers).map(|worker| Ports::open(config, worker, &uplink_queues)).collect()
    }

    fn open(config: &Config, worker: usize, uplink_queues: &[u32]) -> Result<Ports, Error> {
        let share = |&queues: &u32| (worker..queues as usize).step_by(config.workers);
        let sockets = 1 + uplink_queues.iter().map(|queues| share(queues).count()).sum::<usize>();
        // Every socket can have a full fill and a full TX ring.
        let pool = Pool::new(sockets as u32 * 2 * RING, config.mtu)?;
        let (frames, huge_pages) = (pool.capacity(), pool.huge_pages());
        tracing::debug!(worker, frames, mtu = config.mtu, huge_pages, "memory for packets");
        let mut ports = Ports {
            pools: vec![pool],
            bound: Vec::new(),
            exits: Vec::new(),
            uplink_queues: uplink_queues.into(),
        };
        ports.bind(Port::Hub, &config.hub, worker as u32, config.mtu)?;
        for (uplink, (device, queues)) in config.uplinks.iter().zip(uplink_queues).enumerate() {
            for queue in share(queues) {
                ports.bind(Port::Uplink(uplink as u8), device, queue as u32, config.mtu)?;
            }
        }
        Ok(ports)
    }

    /// Binds one socket: uplinks with memory of their own and zero-copy if the driver can,
    /// everything else in copy mode on the worker's memory.
    fn bind(&mut self, port: Port, device: &str, queue: u32, mtu: u32) -> Result<(), Error> {
        let mut zero_copy = || {
            let mut pool = Pool::new(2 * RING, mtu)?;
            Socket::bind(device, queue, Mode::ZeroCopy, &mut pool).map(|socket| (socket, pool))
        };
        let (socket, pool) = match (port != Port::Hub).then(&mut zero_copy) {
            Some(Ok((socket, pool))) => {
                self.pools.push(pool);
                (socket, self.pools.len() - 1)
            }
            refused => {
                if let Some(Err(error)) = refused {
                    tracing::info!(device, queue, %error, "no zero-copy, using copy mode");
                }
                (Socket::bind(device, queue, Mode::Copy, &mut self.pools[0])?, 0)
            }
        };
        self.bound.push(Bound { port, device: device.into(), queue, socket, pool, alive: true });
        Ok(())
    }

    /// Decides how worker `index` gets out of every uplink.
    pub(super) fn connect(&mut self, index: usize, mailboxes: &[Arc<Mailbox>]) {
        let exit = |(uplink, &queues): (usize, &u32)| {
            let own = self.bound.iter().position(|bound| bound.port == Port::Uplink(uplink as u8));
            // Workers below the number of queues serve one each.
            own.map_or_else(|| Exit::Other(mailboxes[index % queues as usize].clone()), Exit::Own)
        };
        self.exits = self.uplink_queues.iter().enumerate().map(exit).collect();
    }

    /// Hands the sockets to the programs.
    pub(super) fn publish(&self, bpf: &Bpf) -> Result<(), bpf::Error> {
        self.bound.iter().try_for_each(|bound| match bound.port {
            Port::Hub => bpf.set_hub_socket(bound.queue, bound.socket.fd()),
            Port::Uplink(uplink) => bpf.set_uplink_socket(uplink.into(), bound.queue, bound.socket.fd()),
        })
    }

    pub(super) fn shared(&self) -> Vec<SocketShared> {
        let shared = |bound: &Bound| SocketShared {
            device: bound.device.clone(),
            queue: bound.queue,
            mode: bound.socket.mode(),
            stats: bound.socket.stats().clone(),
            dead: AtomicBool::new(false),
        };
        self.bound.iter().map(shared).collect()
    }

    /// Waits for every socket, in the order of their indices, and for the mailbox.
    pub(super) fn waiter(&self, mailbox: &Mailbox) -> Waiter {
        Waiter::new(self.bound.iter().map(|bound| bound.socket.fd()).chain([mailbox.door()]))
    }

    pub(super) fn len(&self) -> usize {
        self.bound.len()
    }

    /// Receives a burst from socket `index`.
    pub(super) fn receive(&mut self, index: usize, batch: &mut Batch) -> (Port, usize) {
        let bound = &mut self.bound[index];
        let received = if bound.alive { bound.socket.receive(&mut self.pools[bound.pool], batch) } else { 0 };
        (bound.port, received)
    }

    /// The memory that frames of socket `index` lie in.
    pub(super) fn pool(&mut self, index: usize) -> &mut Pool {
        &mut self.pools[self.bound[index].pool]
    }

    /// Sends a frame that socket `from` received out of a port.
    pub(super) fn send(&mut self, from: usize, frame: Frame, to: Port) -> Sent {
        let origin = self.bound[from].pool;
        let index = match to {
            Port::Hub => HUB,
            Port::Uplink(uplink) => match self.exits.get(usize::from(uplink)) {
                Some(&Exit::Own(index)) => index,
                Some(Exit::Other(mailbox)) => {
                    let pool = &mut self.pools[origin];
                    let put = mailbox.put(uplink, pool.parts(&frame));
                    pool.free(frame);
                    return if put { Sent::Queued } else { Sent::NoRoom };
                }
                None => {
                    self.pools[origin].free(frame);
                    return Sent::Gone;
                }
            },
        };
        if !self.bound[index].alive {
            self.pools[origin].free(frame);
            return Sent::Gone;
        }
        let target = self.bound[index].pool;
        let frame = match self.pools.get_disjoint_mut([target, origin]) {
            Ok([target, origin]) => target.copy_from(origin, frame),
            // One pool serves both sockets.
            Err(_) => Some(frame),
        };
        match frame {
            Some(frame) => self.transmit(index, frame),
            None => Sent::NoFrame,
        }
    }

    /// Sends bytes that lie in no pool out of a port.
    pub(super) fn send_copy(&mut self, bytes: &[u8], to: Port) -> Sent {
        match self.pools[HUB].gather([bytes]) {
            Some(frame) => self.send(HUB, frame, to),
            None => Sent::NoFrame,
        }
    }

    /// Sends bytes that another worker left.
    pub(super) fn send_bytes(&mut self, bytes: &[u8], uplink: u8) -> Sent {
        let Some(&Exit::Own(index)) = self.exits.get(usize::from(uplink)) else { return Sent::Gone };
        if !self.bound[index].alive {
            return Sent::Gone;
        }
        match self.pool(index).gather([bytes]) {
            Some(frame) => self.transmit(index, frame),
            None => Sent::NoFrame,
        }
    }

    fn transmit(&mut self, index: usize, frame: Frame) -> Sent {
        let bound = &mut self.bound[index];
        match bound.socket.send(&mut self.pools[bound.pool], frame) {
            Ok(()) => Sent::Queued,
            // The next liveness check or kick reports it.
            Err(Dead) => Sent::Gone,
        }
    }

    /// One wakeup for every socket with something to send and every mailbox; returns whether
    /// frames are left, and which socket died.
    pub(super) fn kick(&mut self) -> Result<bool, usize> {
        let mut left = false;
        for (index, bound) in self.bound.iter_mut().enumerate().filter(|(_, bound)| bound.alive) {
            if bound.socket.pending() > 0 {
                bound.socket.kick(&mut self.pools[bound.pool]).map_err(|Dead| index)?;
                left |= bound.socket.pending() > 0;
            }
        }
        for exit in &self.exits {
            if let Exit::Other(mailbox) = exit {
                mailbox.ring();
            }
        }
        Ok(left)
    }

    /// The first socket whose device is gone.
    pub(super) fn find_dead(&self) -> Option<usize> {
        self.bound.iter().position(|bound| bound.alive && bound.socket.check_alive().is_err())
    }

    /// Never uses socket `index` again; returns its device.
    pub(super) fn bury(&mut self, index: usize) -> &str {
        self.bound[index].alive = false;
        &self.bound[index].device
    }

    /// Brings the kernel's statistics up to date.
    pub(super) fn refresh_stats(&self) {
        for bound in self.bound.iter().filter(|bound| bound.alive) {
            // A dead socket is found by `find_dead`.
            let _ = bound.socket.refresh_stats();
        }
    }
}
