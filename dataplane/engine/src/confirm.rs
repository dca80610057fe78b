//! Whether a cached verdict is still what the pipeline would decide.

use crate::Context;
use verdicts::Verdict;

/// Whether packets that `verdict` is about would get the same one under the tables of `ctx`, and
/// its flow is still in conntrack. If so the flow is stamped with the policy it was judged by.
/// Neither counts nor reports.
pub fn confirm(ctx: &Context<'_>, verdict: &Verdict) -> bool {
    ctx.tables.generation == verdict.generation
}
