//! Plain sockets inside the namespaces: a server that answers every line with its name, and
//! clients that ask it.

use crate::host::Host;
use nix::libc::linger;
use nix::sys::socket::sockopt::Linger;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket,
};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a client waits before it takes silence for an answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Answers `NAME:` and the line to every line over TCP and every datagram over UDP, IPv4 and IPv6.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(host: &Host, addresses: &[IpAddr], port: u16, name: &str) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        // Not one socket for all addresses: a datagram must be answered from where it was sent to.
        for &address in addresses {
            let (listener, datagrams) = host
                .enter(|| {
                    io::Result::Ok((TcpListener::bind((address, port))?, UdpSocket::bind((address, port))?))
                })
                .unwrap_or_else(|e| panic!("{}: {address} port {port}: {e}", host.netns));
            listener.set_nonblocking(true).expect("a listener");
            datagrams.set_nonblocking(true).expect("a socket");
            let (acceptor, answerer) = (name.to_owned(), name.to_owned());
            threads.push(repeat(&stop, move || accept(&listener, &acceptor)));
            threads.push(repeat(&stop, move || answer(&datagrams, &answerer)));
        }
        Server { stop, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Serves on a thread of its own until told to stop.
fn repeat(
    stop: &Arc<AtomicBool>,
    mut serve: impl FnMut() -> io::Result<()> + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            // Any other error is of a client that went away.
            if serve().is_err_and(|e| e.kind() == ErrorKind::WouldBlock) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    })
}

fn accept(listener: &TcpListener, name: &str) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    let name = name.to_owned();
    thread::spawn(move || converse(stream, &name));
    Ok(())
}

fn converse(stream: TcpStream, name: &str) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        writer.write_all(&[name.as_bytes(), b":", &line].concat())?;
        line.clear();
    }
    Ok(())
}

fn answer(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let mut buffer = [0; 65536];
    let (length, from) = socket.recv_from(&mut buffer)?;
    socket.send_to(&[name.as_bytes(), b":", &buffer[..length]].concat(), from)?;
    Ok(())
}

/// An established TCP connection to a [`Server`].
pub struct Conversation {
    stream: BufReader<TcpStream>,
}

impl Conversation {
    /// The port that it was opened from.
    pub fn port(&self) -> u16 {
        self.stream.get_ref().local_addr().expect("a bound socket").port()
    }

    /// Ends it with a reset instead of a handshake.
    pub fn reset(self) {
        let at_once = linger { l_onoff: 1, l_linger: 0 };
        setsockopt(self.stream.get_ref(), Linger, &at_once).expect("a socket");
    }

    /// Sends a line; the name of the server that sent it back unchanged.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let answer = answer.strip_suffix('\n').unwrap_or(&answer);
        let (name, echo) = answer.split_once(':').ok_or_else(|| io::Error::other("no name"))?;
        if echo != line {
            return Err(io::Error::other("the answer is not what was sent"));
        }
        Ok(name.to_owned())
    }
}

impl Host {
    /// Connects over TCP.
    pub fn connect(&self, to: impl Into<SocketAddr>) -> io::Result<Conversation> {
        let to = to.into();
        let stream = self.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        // Long enough for retransmissions of a connection that must survive a restart.
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Conversation { stream: BufReader::new(stream) })
    }

    /// Connects over TCP from one of its own addresses.
    pub fn connect_from(&self, from: IpAddr, to: SocketAddr) -> Result<String, String> {
        let program = if to.is_ipv4() { "-4" } else { "-6" };
        self.run(&format!("nc {program} -v -z -w 2 -s {from} {} {}", to.ip(), to.port()))
    }

    /// One line over a new TCP connection: the name of the server.
    pub fn ask(&self, to: impl Into<SocketAddr>) -> io::Result<String> {
        self.connect(to)?.ask("hello")
    }

    /// One datagram from a new socket: the name of the server.
    pub fn ask_udp(&self, to: impl Into<SocketAddr>, payload: &str) -> io::Result<String> {
        let to = to.into();
        let socket = self.udp(to)?;
        socket.send(payload.as_bytes())?;
        let mut buffer = vec![0; 65536];
        let length = socket.recv(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..length]);
        match answer.split_once(':') {
            Some((name, echo)) if echo == payload => Ok(name.to_owned()),
            _ => Err(io::Error::other("the answer is not what was sent")),
        }
    }

    /// A UDP socket connected to `to`: receives its ICMP errors too.
    pub fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.udp_from((any, 0).into(), to)
    }

    /// As [`Host::udp`], from an address and port of one's own choice.
    pub fn udp_from(&self, from: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
        self.enter(|| {
            let socket = UdpSocket::bind(from)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
    }

    /// Sends a whole IPv6 packet, header and all.
    pub fn send_raw(&self, to: Ipv6Addr, packet: &[u8]) -> io::Result<()> {
        let (kind, protocol) = (SockType::Raw, SockProtocol::Raw);
        let socket = self.enter(|| socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, protocol))?;
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
        sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())?;
        Ok(())
    }

    /// Serves on a port of these addresses, under a name, until the server is dropped.
    pub fn serve(&self, addresses: impl AsRef<[IpAddr]>, port: u16, name: &str) -> Server {
        Server::start(self, addresses.as_ref(), port, name)
    }
}
