//! The agent's side of the API.

use super::model::{EndpointAdd, EndpointInfo, ErrorBody, FlowView, Removed, Status};
use super::{state, views};
use crate::agent::{self, Agent};
use crate::metrics;
use crate::monitor::{Hub, Query};
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use control::model::IdentityView;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path as FsPath;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use wire::Identity;

/// Binds the API socket, for root only. A socket that nobody answers on is replaced; one with an
/// agent behind it, or another kind of file, is an error.
pub async fn bind(path: &FsPath) -> Result<UnixListener, String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("socket: {shown}: {error}")),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(format!(
                "socket: {shown}: exists and is not a socket; remove it or choose another path"
            ));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(format!("socket: {shown}: another agent answers there; choose another path"));
        }
        Ok(_) => {}
    }
    // Bound under another name and renamed, so that it is never there with wrong permissions.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = FsPath::new(&fresh);
    let make = || {
        let _ = fs::remove_file(fresh);
        let listener = UnixListener::bind(fresh)?;
        fs::set_permissions(fresh, fs::Permissions::from_mode(0o600))?;
        fs::rename(fresh, path)?;
        Ok(listener)
    };
    make().map_err(|error: io::Error| format!("socket: {shown}: {error}"))
}

/// Binds the address that metrics are served on.
pub async fn bind_metrics(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("metrics: {address}: {error}"))
}

/// Serves the API until it fails.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>, hub: Arc<Hub>) -> io::Result<()> {
    axum::serve(listener, router(App { agent, hub })).await
}

/// Serves `/metrics` until it fails; without a listener it waits for ever.
pub async fn serve_metrics(listener: Option<TcpListener>, agent: Arc<Agent>) -> io::Result<()> {
    let Some(listener) = listener else { return std::future::pending().await };
    let router = Router::new().route("/metrics", get(prometheus)).with_state(agent);
    axum::serve(listener, router).await
}

#[derive(Clone)]
struct App {
    agent: Arc<Agent>,
    hub: Arc<Hub>,
}

fn router(app: App) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/endpoints", get(endpoints).post(add_endpoint))
        .route("/v1/endpoints/{id}", get(endpoint).delete(delete_endpoint))
        .route("/v1/nodes", get(async |State(app): State<App>| Json(app.agent.control.nodes())))
        .route("/v1/identities", get(async |State(app): State<App>| Json(app.agent.control.identities())))
        .route("/v1/identities/{id}", get(identity))
        .route("/v1/services", get(async |State(app): State<App>| Json(app.agent.control.services())))
        .route("/v1/policies", get(async |State(app): State<App>| Json(app.agent.control.policies())))
        .route("/v1/ipcache", get(async |State(app): State<App>| Json(app.agent.control.ipcache())))
        .route("/v1/conntrack", get(flows).delete(flush))
        .route("/v1/state", get(dump))
        .route("/v1/monitor", get(monitor))
        .route("/v1/metrics", get(async |State(app): State<App>| prometheus(State(app.agent)).await))
        .fallback(async || Failure(StatusCode::NOT_FOUND, "there is nothing under this path".into()))
        .method_not_allowed_fallback(async || {
            Failure(StatusCode::METHOD_NOT_ALLOWED, "this method does not apply to this path".into())
        })
        .with_state(app)
}

/// An error as the client gets it.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { error: self.1 })).into_response()
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Failure {
        Failure(StatusCode::CONFLICT, error.to_string())
    }
}

macro_rules! bad_request {
    ($($rejection:ty),+) => {
        $(impl From<$rejection> for Failure {
            fn from(rejection: $rejection) -> Failure {
                Failure(StatusCode::BAD_REQUEST, rejection.body_text())
            }
        })+
    };
}
bad_request!(JsonRejection, PathRejection, QueryRejection);

async fn status(State(app): State<App>) -> Result<Json<Status>, Failure> {
    let status = tokio::task::spawn_blocking(move || views::status(&app.agent)).await.map_err(internal)?;
    Ok(Json(status))
}

async fn endpoints(State(app): State<App>) -> Json<Vec<EndpointInfo>> {
    Json(app.agent.endpoints())
}

async fn endpoint(
    State(app): State<App>,
    id: Result<Path<u16>, PathRejection>,
) -> Result<Json<EndpointInfo>, Failure> {
    let Path(id) = id?;
    let found = app.agent.endpoints().into_iter().find(|endpoint| endpoint.endpoint.id == id);
    let missing = || agent::no_endpoint(id).to_string();
    found.map(Json).ok_or_else(|| Failure(StatusCode::NOT_FOUND, missing()))
}

async fn identity(
    State(app): State<App>,
    id: Result<Path<u32>, PathRejection>,
) -> Result<Json<IdentityView>, Failure> {
    let Path(id) = id?;
    let found = app.agent.control.identity(Identity(id));
    found.map(Json).ok_or_else(|| {
        Failure(StatusCode::NOT_FOUND, format!("identity {id}: is not known: see `dataplane identity list`"))
    })
}

async fn add_endpoint(
    State(app): State<App>,
    add: Result<Json<EndpointAdd>, JsonRejection>,
) -> Result<Json<EndpointInfo>, Failure> {
    let Json(add) = add?;
    // A client that goes away must not leave half an endpoint.
    let made = tokio::spawn(async move { app.agent.endpoint_add(add).await });
    Ok(Json(made.await.map_err(internal)??))
}

async fn delete_endpoint(
    State(app): State<App>,
    id: Result<Path<u16>, PathRejection>,
) -> Result<Json<Removed>, Failure> {
    let Path(id) = id?;
    tokio::spawn(async move { app.agent.endpoint_delete(id).await }).await.map_err(internal)??;
    Ok(Json(Removed { removed: 1 }))
}

fn internal(error: tokio::task::JoinError) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("the agent failed: {error}"))
}

/// Conntrack as JSON lines: the table is walked while the client reads.
async fn flows(State(app): State<App>) -> Response {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(16);
    tokio::task::spawn_blocking(move || {
        let mut batch = Vec::new();
        views::for_each_flow(&app.agent, |view: FlowView| {
            // A view has nothing in it that JSON cannot say.
            if serde_json::to_writer(&mut batch, &view).is_ok() {
                batch.push(b'\n');
            }
            // Nobody reads any more: the walk is bounded, so it just ends without effect.
            if batch.len() > 32 * 1024 {
                let _ = sender.blocking_send(std::mem::take(&mut batch).into());
            }
        });
        let _ = sender.blocking_send(batch.into());
    });
    json_lines(receiver)
}

/// Tables and flows, taken and written off the event loop: they can be large.
async fn dump(State(app): State<App>) -> Result<Response, Failure> {
    let dump = tokio::task::spawn_blocking(move || serde_json::to_vec(&state::dump(&app.agent)));
    let json = dump
        .await
        .map_err(internal)?
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("state: {error}")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn flush(State(app): State<App>) -> Result<Json<Removed>, Failure> {
    let flush = move || {
        let removed = app.agent.flows.flush();
        app.agent.offload.forget_removed();
        removed
    };
    let removed = tokio::task::spawn_blocking(flush).await.map_err(internal)?;
    Ok(Json(Removed { removed }))
}

async fn monitor(
    State(app): State<App>,
    query: Result<UrlQuery<Query>, QueryRejection>,
) -> Result<Response, Failure> {
    let UrlQuery(query) = query?;
    let filter = query.filter().map_err(|what| Failure(StatusCode::BAD_REQUEST, what))?;
    Ok(json_lines(app.hub.subscribe(filter)))
}

fn json_lines(receiver: tokio::sync::mpsc::Receiver<Bytes>) -> Response {
    let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

async fn prometheus(State(agent): State<Arc<Agent>>) -> Result<Response, Failure> {
    let text = tokio::task::spawn_blocking(|| metrics::encode(agent))
        .await
        .map_err(internal)?
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
