//! What the command line asks the agent through.

use super::model::ErrorBody;
use bytes::{Buf, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("socket: {}: no agent answers there ({source}); start one with `dataplane run`, or name its socket with --socket or DATAPLANE_SOCKET", path.display())]
    NoAgent {
        /// The socket.
        path: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The socket is root's.
    #[error("socket: {}: permission denied; the agent answers root only", .0.display())]
    Denied(PathBuf),
    /// The agent refused, with its reason.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("socket: the agent closed the connection: {0}")]
    Broken(#[from] hyper::Error),
    /// The answer is not what this version expects.
    #[error(
        "{path}: the agent's answer is not understood: {source}; agent and command line may be of different versions"
    )]
    Answer {
        /// What was asked for.
        path: String,
        /// Why it does not parse.
        source: serde_json::Error,
    },
}

/// A client of one agent; each call is its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent behind this socket.
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.into() }
    }

    /// Asks for something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        decode(path, self.call(Method::GET, path, Bytes::new()).await?).await
    }

    /// Asks for text.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let response = self.call(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()).into_owned())
    }

    /// Asks to make something.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|source| Error::Answer { path: path.into(), source })?;
        decode(path, self.call(Method::POST, path, body.into()).await?).await
    }

    /// Asks to remove something.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        decode(path, self.call(Method::DELETE, path, Bytes::new()).await?).await
    }

    /// Asks for a stream of JSON lines; it is open when this returns.
    pub async fn lines(&self, path: &str) -> Result<Lines, Error> {
        let response = self.call(Method::GET, path, Bytes::new()).await?;
        Ok(Lines { path: path.into(), body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied(self.socket.clone()),
            _ => Error::NoAgent { path: self.socket.clone(), source },
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; an error reaches us through the response.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "dataplane")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::Refused(format!("{path}: {error}")))?;
        let response = sender.send_request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Err(Error::Refused(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.error,
            Err(_) => format!("{path}: the agent answered {status}"),
        }))
    }
}

async fn decode<T: DeserializeOwned>(path: &str, response: Response<Incoming>) -> Result<T, Error> {
    let body = response.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).map_err(|source| Error::Answer { path: path.into(), source })
}

/// A stream of JSON lines.
#[derive(Debug)]
pub struct Lines {
    path: String,
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// The next object; `None` at the end of the stream.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                let parsed = serde_json::from_slice(&line);
                return parsed.map(Some).map_err(|source| Error::Answer { path: self.path.clone(), source });
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
