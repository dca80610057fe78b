//! Measures what a packet costs.
//!
//! Machines are shared and noisy, so every number comes with its ratio to a baseline that is
//! taken in turns with it in the same run.

pub mod measure;
pub mod report;
pub mod scenario;
pub mod world;

pub use report::Report;
pub use scenario::{SCENARIOS, Scenario};
pub use world::{Sizes, World};
