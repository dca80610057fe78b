//! The agent's API: HTTP/1.1 and JSON over a unix socket.
//!
//! | method and path | what |
//! |---|---|
//! | `GET /v1/status` | [`model::Status`] |
//! | `GET`, `POST /v1/endpoints`; `GET`, `DELETE /v1/endpoints/ID` | [`model::EndpointInfo`] |
//! | `GET /v1/nodes`, `/v1/identities`, `/v1/identities/ID`, `/v1/services`, `/v1/policies`, `/v1/ipcache` | views of [`control::model`] |
//! | `GET`, `DELETE /v1/conntrack` | [`model::FlowView`], one JSON object a line |
//! | `GET /v1/monitor` | [`crate::monitor::Record`], one JSON object a line, without end |
//! | `GET /v1/state` | [`state::State`] |
//! | `GET /v1/metrics` | Prometheus text |
//!
//! An error is `{"error": "…"}` with a 4xx or 5xx status.

pub mod client;
pub mod model;
pub mod server;
pub mod state;
pub mod views;

#[cfg(test)]
mod tests;
