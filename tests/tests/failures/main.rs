//! What happens when parts of the mesh fail: what must go on goes on, and how long it takes until a
//! failure is noticed and made good again. `docs/clustermesh.md` has the table of these times; each
//! test prints its rows.

mod agents;
mod mesh;
mod soak;
mod stores;
