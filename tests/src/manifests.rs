//! Manifests that several tests need.

use std::net::IpAddr;

/// A Service `default/NAME` with an IPv4 and an IPv6 cluster address, 10.96.0.N and fd00:96::N, that
/// takes 80/TCP and 80/UDP to port 8080 of the pods labelled `app=NAME`.
pub fn service(name: &str, number: u8, annotations: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: default
  annotations: {{{annotations}}}
spec:
  selector: {{app: {name}}}
  clusterIP: 10.96.0.{number}
  clusterIPs: [10.96.0.{number}, 'fd00:96::{number}']
  ipFamilies: [IPv4, IPv6]
  ports:
  - {{name: stream, port: 80, targetPort: 8080, protocol: TCP}}
  - {{name: datagrams, port: 80, targetPort: 8080, protocol: UDP}}
"
    )
}

/// The cluster addresses of `service(_, number, _)`.
pub fn service_addresses(number: u8) -> [IpAddr; 2] {
    [format!("10.96.0.{number}"), format!("fd00:96::{number}")].map(|a| a.parse().expect("an address"))
}

/// A CiliumNetworkPolicy in the namespace `default` with the lines of its spec.
pub fn policy(name: &str, spec: &str) -> String {
    let spec: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: {name}, namespace: default}}
spec:
{spec}"
    )
}
