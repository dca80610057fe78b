//! Worlds made of network namespaces for the end-to-end tests and the demo: nodes on a wire, real
//! etcd with mutual TLS, real agents, pods with real sockets. Whatever a world makes it removes,
//! also when a test fails. Needs root.

pub mod checker;
pub mod command;
pub mod etcd;
pub mod host;
pub mod manifests;
pub mod mode;
pub mod node;
pub mod pki;
pub mod pod;
pub mod process;
pub mod proven;
pub mod reach;
pub mod scene;
pub mod sockets;
pub mod teardown;
pub mod traffic;
pub mod wait;
pub mod world;

pub use host::Host;
pub use mode::Offload;
pub use node::{Cluster, Node};
pub use pod::Pod;
pub use wait::{eventually, eventually_true};
pub use world::World;
