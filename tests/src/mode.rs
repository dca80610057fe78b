//! In which of its two modes the agents of this run work: `OFFLOAD=on` or `OFFLOAD=off` in the
//! environment. The whole suite is for both.

/// Whether the kernel repeats what workers have decided (`--offload`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Flows that have proved themselves stay in the kernel.
    On,
    /// Every packet goes through a worker.
    Off,
}

impl Offload {
    /// That of this run; on if nothing is said, as with agents.
    pub fn of_this_run() -> Offload {
        match std::env::var("OFFLOAD").as_deref() {
            Ok("on") | Err(_) => Offload::On,
            Ok("off") => Offload::Off,
            Ok(other) => panic!("OFFLOAD={other}: on or off would be right"),
        }
    }

    /// The value of the agent's option.
    pub fn value(self) -> &'static str {
        match self {
            Offload::On => "on",
            Offload::Off => "off",
        }
    }
}
