//! Rules for names, as Kubernetes and Linux have them. What breaks one is told what would be right.

/// A namespace: an RFC 1123 label of at most 63 characters.
pub fn namespace(text: &str) -> Result<(), String> {
    rule(text.len() <= 63 && is_dns_label(text), || format!("must be 1 to 63 {DNS_LABEL}"))
}

/// A pod, a node, a service account: an RFC 1123 subdomain.
pub fn dns_name(text: &str) -> Result<(), String> {
    rule(is_dns_name(text), || format!("must be {DNS_NAME}"))
}

/// A cluster name by Cilium's rules, which every cluster of the mesh applies.
pub fn cluster(text: &str) -> Result<(), String> {
    rule(text != "default", || "`default` cannot have a cluster id; choose another name".into())?;
    rule(text.len() <= 32 && is_dns_label(text), || format!("must be 1 to 32 {DNS_LABEL}"))
}

/// Key and value of a pod's label.
pub fn label(key: &str, value: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    rule(prefix.is_none_or(is_dns_name), || format!("prefix of key `{key}` must be {DNS_NAME}"))?;
    rule(!name.is_empty() && is_label_text(name), || {
        format!("key `{key}` must be 1 to 63 {LABEL_TEXT}, after an optional PREFIX/")
    })?;
    rule(is_label_text(value), || format!("value `{value}` must be empty or up to 63 {LABEL_TEXT}"))
}

/// The name of a container port (RFC 6335 §5.1, lower case).
pub fn port(text: &str) -> Result<(), String> {
    let fine = is_dns_label(text) && text.len() <= 15 && text.bytes().any(|b| b.is_ascii_lowercase());
    rule(fine, || "must be 1 to 15 lower-case letters, digits and `-` with at least one letter".into())
}

/// The protocol of a container port.
pub fn protocol(text: &str) -> Result<(), String> {
    rule(matches!(text, "TCP" | "UDP" | "SCTP"), || "must be TCP, UDP or SCTP".into())
}

/// An interface name as Linux accepts it.
pub fn interface(text: &str) -> Result<(), String> {
    let fine = (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
    rule(fine, || "must be an interface name of 1 to 15 characters".into())
}

const DNS_LABEL: &str = "lower-case letters, digits and `-`, with a letter or digit at both ends";
const DNS_NAME: &str =
    "1 to 253 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part";
const LABEL_TEXT: &str = "letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";

fn rule(kept: bool, right: impl FnOnce() -> String) -> Result<(), String> {
    if kept { Ok(()) } else { Err(right()) }
}

/// RFC 1123 label, of any length.
fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || c == '-')
}

/// RFC 1123 subdomain.
fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// What Kubernetes accepts as label value, the empty one included.
fn is_label_text(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || (text.len() <= 63
            && text.starts_with(alphanumeric)
            && text.ends_with(alphanumeric)
            && text.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters() {
        for good in ["cluster1", "a", "a-b", &"a".repeat(32)] {
            assert_eq!(cluster(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "default", "ä", &"a".repeat(33)] {
            assert!(cluster(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels() {
        for (key, value) in [("app", "db"), ("example.com/tier", ""), ("a_B.c", "1-x")] {
            assert_eq!(label(key, value), Ok(()));
        }
        for (key, value) in
            [("", "x"), ("a", "b=c"), ("a/b/c", "d"), ("a", ";"), ("/a", "b"), ("a", "-b"), ("a b", "")]
        {
            assert!(label(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn interfaces() {
        assert_eq!(interface("eth0"), Ok(()));
        for bad in ["", ".", "a/b", "a b", "sixteen-letters-", "a:1"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }
}
