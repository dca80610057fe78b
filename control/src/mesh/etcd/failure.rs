//! What went wrong with an etcd, in plain words. tonic says only "transport error"; the reason is
//! somewhere in the chain of causes, between the names of layers and links to documentation.

use crate::mesh::store::StoreError;
use etcd_client::Error;
use std::iter;

/// gRPC status code of what no etcd does, or none with these limits.
const INVALID_ARGUMENT: i32 = 3;
/// gRPC status code of an unknown lease.
const NOT_FOUND: i32 = 5;
/// gRPC status code of what this user may not do.
const PERMISSION_DENIED: i32 = 7;
/// gRPC status code of an etcd without room, and of a request that is far too large.
const RESOURCE_EXHAUSTED: i32 = 8;
/// gRPC status code of a revision that is compacted, or has not been reached.
const OUT_OF_RANGE: i32 = 11;

/// What causes say, in small letters, and what it means.
const MEANINGS: [(&str, &str); 10] = [
    ("connection refused", "connection refused"),
    ("failed to lookup address", "the host name cannot be resolved"),
    ("invalidcontenttype", "the server does not speak TLS"),
    ("tls handshake eof", "the server does not speak TLS"),
    ("close_notify", LOST),
    ("connection reset", LOST),
    ("connection closed", LOST),
    ("broken pipe", LOST),
    ("stream closed", LOST),
    ("error reading a body", LOST),
];
/// It was there and is not any more.
pub(super) const LOST: &str = "connection lost";
/// Layers that failed only because of what comes next.
const LAYERS: [&str; 4] = ["transport error", "tcp connect error", "dns error", "connection error"];
/// Before what is wrong with the server's certificate.
const CERTIFICATE: &str = "invalid peer certificate: ";
/// Before what the server does not like about the handshake.
const ALERT: &str = "received fatal alert: ";

pub(crate) fn failed(error: &Error) -> StoreError {
    if let Error::GRpcStatus(status) = error
        && let Some(refusal) = refusal(status.code() as i32, status.message())
    {
        return refusal;
    }
    let (text, source): (String, Option<&dyn std::error::Error>) = match error {
        Error::GRpcStatus(status)
            if status.code() as i32 == NOT_FOUND && status.message().contains("lease") =>
        {
            return StoreError::LeaseLost(0);
        }
        Error::GRpcStatus(status)
            if status.code() as i32 == OUT_OF_RANGE && status.message().contains("revision") =>
        {
            return StoreError::Compacted(0);
        }
        Error::GRpcStatus(status) => (status.message().into(), std::error::Error::source(status)),
        Error::TransportError(error) => (error.to_string(), std::error::Error::source(error)),
        other => (other.to_string(), None),
    };
    let causes = iter::successors(source, |cause| cause.source()).map(ToString::to_string);
    StoreError::Failed(plain(iter::once(text).chain(causes)))
}

/// etcd's own no.
fn refusal(code: i32, message: &str) -> Option<StoreError> {
    let too_large = ["too large", "larger than max"].iter().any(|words| message.contains(words));
    match code {
        INVALID_ARGUMENT | RESOURCE_EXHAUSTED if too_large => {
            Some(StoreError::Refused(format!("{message}: --max-request-bytes of etcd allows more")))
        }
        INVALID_ARGUMENT | PERMISSION_DENIED => Some(StoreError::Refused(message.into())),
        RESOURCE_EXHAUSTED if message.contains("space exceeded") => Some(StoreError::Full(format!(
            "{message}: compact and defragment it or raise its --quota-backend-bytes, then disarm the alarm"
        ))),
        RESOURCE_EXHAUSTED => Some(StoreError::Full(message.into())),
        _ => None,
    }
}

fn plain(causes: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in causes {
        if !parts.iter().any(|known| known.contains(&part)) {
            parts.push(part);
        }
    }
    let all = parts.join(": ");
    if let Some((_, problem)) = all.split_once(CERTIFICATE) {
        let problem = LAYERS.iter().fold(problem, |text, layer| text.trim_end_matches(&format!(": {layer}")));
        return match problem {
            "UnknownIssuer" | "BadSignature" => {
                "the server's certificate is not signed by a CA in trusted-ca-file".into()
            }
            other => format!("the server's certificate is not valid: {other}"),
        };
    }
    if let Some((_, alert)) = all.split_once(ALERT) {
        let about = if alert.contains("Cert") || alert.contains("CA") { "client certificate" } else { "TLS" };
        return format!("the server refuses the {about}: {alert}");
    }
    let small = all.to_lowercase();
    if let Some((_, meaning)) = MEANINGS.iter().find(|(sign, _)| small.contains(sign)) {
        return (*meaning).into();
    }
    parts.retain(|part| !LAYERS.contains(&part.as_str()));
    if parts.is_empty() { all } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_become_plain_words() {
        let table: [(&[&str], &str); 10] = [
            (
                &[
                    "h2 protocol error: error reading a body from connection",
                    "peer closed connection without sending TLS close_notify: https://example.org/x.html#y",
                ],
                "connection lost",
            ),
            (
                &["tcp connect error", "transport error", "Connection refused (os error 111)"],
                "connection refused",
            ),
            (
                &["dns error", "transport error", "failed to lookup address information: Name unknown"],
                "the host name cannot be resolved",
            ),
            (
                &["received corrupt message of type InvalidContentType", "transport error"],
                "the server does not speak TLS",
            ),
            (&["transport error", "tls handshake eof"], "the server does not speak TLS"),
            (
                &["invalid peer certificate: UnknownIssuer", "transport error"],
                "the server's certificate is not signed by a CA in trusted-ca-file",
            ),
            (
                &["invalid peer certificate: certificate not valid for name \"a\"", "transport error"],
                "the server's certificate is not valid: certificate not valid for name \"a\"",
            ),
            (
                &["transport error", "connection error", "received fatal alert: BadCertificate"],
                "the server refuses the client certificate: BadCertificate",
            ),
            (&["etcdserver: permission denied"], "etcdserver: permission denied"),
            (&["transport error"], "transport error"),
        ];
        for (causes, words) in table {
            assert_eq!(plain(causes.iter().map(ToString::to_string)), words);
        }
    }

    #[test]
    fn refusals_are_no_lost_connections() {
        let refused = |code, message| match refusal(code, message) {
            Some(StoreError::Refused(_)) => "key",
            Some(StoreError::Full(_)) => "all",
            _ => "",
        };
        let answers = [
            (INVALID_ARGUMENT, "etcdserver: request is too large", "key"),
            (RESOURCE_EXHAUSTED, "grpc: received message larger than max (3000000 vs. 2097152)", "key"),
            (PERMISSION_DENIED, "etcdserver: permission denied", "key"),
            (RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", "all"),
            (RESOURCE_EXHAUSTED, "etcdserver: too many requests", "all"),
            (14, "etcdserver: no leader", ""),
        ];
        for (code, message, which) in answers {
            assert_eq!(refused(code, message), which, "{message}");
        }
    }
}
