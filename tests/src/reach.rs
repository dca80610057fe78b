//! Who reaches whom: TCP, UDP and ICMP in IPv4 and IPv6 at once.

use crate::host::Host;
use crate::wait::eventually;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::thread;

/// One way to try a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A new TCP connection.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Icmp,
}

/// All of them.
pub const ALL: &[Means] = &[Means::Tcp, Means::Udp, Means::Icmp];
/// Those that have ports, as services do.
pub const PORTS: &[Means] = &[Means::Tcp, Means::Udp];

impl Host {
    /// It gets answers from the server `name` at all addresses by all means, sooner or later.
    pub fn reaches(&self, to: impl AsRef<[IpAddr]>, port: u16, name: &str, means: &[Means]) {
        for &to in to.as_ref() {
            for &means in means {
                eventually(&format!("{} reaches {name} at {to} by {means:?}", self.netns), || {
                    let who = self.attempt(to, port, means)?;
                    if who == name || means == Means::Icmp { Ok(()) } else { Err(format!("{who} answered")) }
                });
            }
        }
    }

    /// No answer comes, not even a refusal, at any address by any means.
    pub fn is_kept_from(&self, to: impl AsRef<[IpAddr]>, port: u16, means: &[Means]) {
        thread::scope(|scope| {
            for &to in to.as_ref() {
                for &means in means {
                    scope.spawn(move || {
                        if let Ok(answer) = self.attempt(to, port, means) {
                            panic!("{} got an answer from {to} by {means:?}: {answer}", self.netns);
                        }
                    });
                }
            }
        });
    }

    /// One try: the name of the server; an error if nothing came. A refusal counts as an answer.
    pub fn attempt(&self, to: IpAddr, port: u16, means: Means) -> Result<String, String> {
        let answer = match means {
            Means::Tcp => self.ask((to, port)),
            Means::Udp => self.ask_udp((to, port), "hello"),
            Means::Icmp => return self.ping(to, ""),
        };
        match answer {
            Ok(name) => Ok(name),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok("refused".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}
