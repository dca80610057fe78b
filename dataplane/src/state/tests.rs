use super::*;
use proptest::prelude::*;

fn endpoint(id: u16, ip: &str) -> Endpoint {
    Endpoint {
        pod: LocalEndpoint {
            id,
            namespace: "default".into(),
            name: format!("pod-{id}"),
            addresses: vec![ip.parse().unwrap()],
            labels: [("app".into(), "db".into())].into(),
            service_account: Some("default".into()),
            named_ports: vec![control::records::NamedPort {
                name: "redis".into(),
                port: 6379,
                protocol: "TCP".into(),
            }],
            ifindex: 12,
            mac: "02:00:00:00:00:01".into(),
            identity: Some(6_619_138),
        },
        netns: "pod".into(),
        ifname: "eth0".into(),
        host_ifname: "dp1".into(),
    }
}

fn state() -> State {
    let mut state = State::new("dataplane-1@4026531840".into(), "boot".into());
    state.sysctls.insert("net/ipv4/ip_forward".into(), "0".into());
    state.endpoints = vec![endpoint(1, "10.0.0.2"), endpoint(2, "fd00::2")];
    state
}

#[test]
fn what_is_saved_is_loaded_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state");
    let first = StateDir::lock(&path).unwrap();
    assert_eq!(first.load().unwrap(), None);
    first.save(&state()).unwrap();
    drop(first);
    let next = StateDir::lock(&path).unwrap();
    assert_eq!(next.load().unwrap(), Some(state()));
    next.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn the_second_user_is_told_the_first_ones_pid() {
    let dir = tempfile::tempdir().unwrap();
    let first = StateDir::lock(dir.path()).unwrap();
    let error = StateDir::lock(dir.path()).unwrap_err().to_string();
    let pid = std::process::id();
    assert!(error.contains(&format!("in use by the agent with pid {pid}:")), "{error}");
    drop(first);
    StateDir::lock(dir.path()).unwrap();
}

#[test]
fn contradictions_are_refused() {
    let check = |change: &dyn Fn(&mut State), message: &str| {
        let mut state = state();
        change(&mut state);
        assert_eq!(State::parse(&serde_json::to_string(&state).unwrap()).unwrap_err(), message);
    };
    check(&|s| s.version = 9, "version 9: this dataplane reads version 1");
    check(&|s| s.endpoints[0].pod.id = 0, "endpoint id 0: zero or twice");
    check(&|s| s.endpoints[1].pod.id = 1, "endpoint id 1: zero or twice");
    check(
        &|s| s.endpoints[1].pod.addresses = s.endpoints[0].pod.addresses.clone(),
        "endpoint 2: address 10.0.0.2: twice",
    );
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let locked = StateDir::lock(dir.path()).unwrap();
    fs::write(locked.file(), "{\"version\": 1").unwrap();
    let error = locked.load().unwrap_err().to_string();
    assert!(error.contains("endpoints.json: EOF while parsing"), "{error}");
    assert_eq!(fs::read_to_string(locked.file()).unwrap(), "{\"version\": 1");
}

proptest! {
    /// Damage never panics, and a file that was cut off is never taken.
    #[test]
    fn damage_never_panics(at in 0usize..2000, byte: u8, cut: bool) {
        let mut text = serde_json::to_vec(&state()).unwrap();
        let at = at % text.len();
        if cut { text.truncate(at) } else { text[at] = byte }
        if let Ok(text) = String::from_utf8(text) {
            let parsed = State::parse(&text);
            prop_assert!(!cut || parsed.is_err(), "half a file was taken for a whole one");
        }
    }
}
