use super::client::{Client, Error};
use super::model::ErrorBody;
use super::server::bind;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;
use tokio_stream::StreamExt;

/// Serves `router` on a fresh API socket.
async fn serving(router: Router) -> (TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = bind(&socket).await.unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    (dir, Client::new(&socket))
}

#[tokio::test]
async fn answers_and_refusals_reach_the_client() {
    let refuse = || async {
        (StatusCode::CONFLICT, Json(ErrorBody { error: "pod: a/b: is endpoint 7 already".into() }))
    };
    let router = Router::new()
        .route("/sum", post(|Json(numbers): Json<Vec<u32>>| async move { Json(numbers.iter().sum::<u32>()) }))
        .route("/refuse", get(refuse).delete(refuse))
        .route("/text", get(|| async { "plain" }));
    let (_dir, client) = serving(router).await;
    assert_eq!(client.post::<u32>("/sum", &[1, 2, 3]).await.unwrap(), 6);
    assert_eq!(client.text("/text").await.unwrap(), "plain");
    let refused = client.delete::<()>("/refuse").await.unwrap_err();
    assert_eq!(refused.to_string(), "pod: a/b: is endpoint 7 already");
    let missing = client.get::<()>("/nothing").await.unwrap_err();
    assert_eq!(missing.to_string(), "/nothing: the agent answered 404 Not Found");
    assert!(matches!(client.get::<u32>("/text").await, Err(Error::Answer { .. })));
}

#[tokio::test]
async fn lines_are_whole_however_they_are_cut() {
    let parts = ["1\n", "2", "3\n45", "\n", "6"];
    let stream = move || tokio_stream::iter(parts).map(Ok::<_, Infallible>);
    let router = Router::new().route("/lines", get(move || async move { Body::from_stream(stream()) }));
    let (_dir, client) = serving(router).await;
    let mut lines = client.lines("/lines").await.unwrap();
    let mut all = Vec::new();
    while let Some(line) = lines.next::<u32>().await.unwrap() {
        all.push(line);
    }
    // The last one was cut off and is not a line.
    assert_eq!(all, [1, 23, 45]);
}

#[tokio::test]
async fn without_an_agent_the_error_names_the_socket() {
    let error = Client::new(Path::new("/does/not/exist.sock")).get::<()>("/v1/status").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "socket: /does/not/exist.sock: no agent answers there (No such file or directory (os error 2)); \
         start one with `dataplane run`, or name its socket with --socket or DATAPLANE_SOCKET"
    );
}

#[tokio::test]
async fn only_a_dead_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let first = bind(&socket).await.unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let alive = bind(&socket).await.unwrap_err();
    assert_eq!(
        alive,
        format!("socket: {}: another agent answers there; choose another path", socket.display())
    );
    drop(first);
    bind(&socket).await.unwrap();

    let file = dir.path().join("f");
    fs::write(&file, "precious").unwrap();
    let refused = bind(&file).await.unwrap_err();
    assert!(refused.ends_with("exists and is not a socket; remove it or choose another path"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}
