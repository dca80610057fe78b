//! What all measurements over networks can be told.

use clap::Args;
use std::time::Duration;

/// How long and how often.
#[derive(Args, Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds; each measures every variant in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Milliseconds of one turn
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub turn: u64,
    /// A short look: fewer cases, short turns; good enough to see that all works
    #[arg(long)]
    pub quick: bool,
}

impl Effort {
    /// The command line of a subcommand with this.
    pub fn command(&self, name: &str) -> String {
        let (rounds, turn) = (self.rounds(), self.turn().as_millis());
        let quick = if self.quick { " --quick" } else { "" };
        format!("dataplane-perf {name} --rounds {rounds} --turn {turn}{quick}")
    }

    /// Length of one turn.
    pub fn turn(&self) -> Duration {
        Duration::from_millis(if self.quick { self.turn.min(150) } else { self.turn })
    }

    /// Rounds.
    pub fn rounds(&self) -> u32 {
        if self.quick { self.rounds.min(2) } else { self.rounds }
    }
}
