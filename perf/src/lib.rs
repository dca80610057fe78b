//! Measures what a packet costs.
//!
//! Machines are shared and noisy, so every number comes with its ratio to a baseline that is
//! taken in turns with it in the same run.

pub mod churn;
pub mod mesh;
pub mod net;
pub mod options;
pub mod pipeline;
pub mod progress;
pub mod replay;
pub mod report;
pub mod scale;
mod site;
mod store;
pub mod turns;

pub use options::Effort;
pub use pipeline::Pipeline;
pub use progress::Progress;
pub use replay::Replay;
pub use report::{Findings, Report};
pub use turns::Turns;
