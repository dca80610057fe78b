//! Measures what a packet costs.
//!
//! Machines are shared and noisy, so every number comes with its ratio to a baseline that is
//! taken in turns with it in the same run.

pub mod measure;
pub mod options;
pub mod progress;
pub mod report;
pub mod scenario;
pub mod turns;
pub mod world;

pub use options::Effort;
pub use progress::Progress;
pub use report::{Findings, Report};
pub use scenario::{SCENARIOS, Scenario};
pub use turns::Turns;
pub use world::{Sizes, World};
