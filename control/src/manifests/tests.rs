use super::*;
use proptest::prelude::*;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
    )
}

const GOOD: &str = "{endpointSelector: {}, ingress: [{fromEntities: [cluster]}]}";

fn message(text: &str) -> String {
    let mut documents = parse(text, "cluster1");
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).object.expect_err("it is wrong").to_string()
}

/// Specs that are refused, and what the message has to name.
#[test]
fn wrong_policies_are_refused_by_name() {
    let ingress = |entry: &str| format!("{{endpointSelector: {{}}, ingress: [{entry}]}}");
    let ports = |ports: &str| ingress(&format!("{{toPorts: [{{ports: [{ports}]}}]}}"));
    let many = vec!["{port: '1'}"; 41].join(", ");
    #[rustfmt::skip]
    let table = [
        ("{endpointSelector: {}}".to_string(), "ingress, ingressDeny, egress and egressDeny are all empty"),
        ("{ingress: [{}]}".into(), "spec.endpointSelector: missing"),
        ("{nodeSelector: {}, ingress: [{}]}".into(), "spec.nodeSelector: not supported"),
        ("{endpointSelector: {}, ingres: [{}]}".into(), "unknown field `ingres`"),
        (ingress("{fromEndpoint: []}"), "unknown field `fromEndpoint`"),
        (ingress("{toEndpoints: []}"), "spec.ingress: toEndpoints does not belong here"),
        (ingress("{toPorts: [{ports: [{port: '80'}], rules: {http: [{}]}}]}"), "spec.ingress[0].toPorts[0].rules: not supported"),
        ("{endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.b}]}]}".into(), "spec.egress[0].toFQDNs: not supported"),
        ("{endpointSelector: {}, egress: [{toServices: []}]}".into(), "spec.egress[0].toServices: not supported"),
        (ingress("{authentication: {mode: required}}"), "spec.ingress[0].authentication: not supported"),
        (ingress("{fromNodes: [{}]}"), "spec.ingress[0].fromNodes/toNodes: not supported"),
        (ingress("{fromEntities: [moon]}"), "spec.ingress[0].fromEntities[0]: \"moon\": must be all, none, world"),
        (ingress("{fromEntities: [all, moon]}"), "spec.ingress[0].fromEntities[1]: \"moon\""),
        (ingress("{fromEndpoints: , toPorts: [{ports: [{port: '80'}]}]}"), "spec.ingress[0].fromEndpoints: has no value"),
        ("{endpointSelector: {matchLabels: }, ingress: [{}]}".into(), "spec.endpointSelector.matchLabels: has no value"),
        (ingress("{fromEndpoints: [{}], fromEntities: [world]}"), "fromEndpoints and fromEntities cannot be combined"),
        (ingress("{fromCIDR: [10.0.0.0/33]}"), "spec.ingress[0].fromCIDR[0]: \"10.0.0.0/33\" is not a prefix"),
        (ingress("{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}"), "except[0]: 11.0.0.0/16 is not inside 10.0.0.0/8"),
        (ingress("{fromCIDRSet: [{cidrGroupRef: g}]}"), "cidrGroupRef: not supported"),
        (ingress("{fromEndpoints: [{matchLabels: {app: 'a b'}}]}"), "matchLabels.app: \"a b\" is not a label value"),
        (ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: Like}]}]}"), "operator: \"Like\": must be In"),
        (ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: In}]}]}"), "values: empty: In needs at least one"),
        (ports("{port: '65536'}"), "spec.ingress[0].toPorts[0].ports[0].port: \"65536\": must be 0"),
        (ports("{port: '-1'}"), "port: \"-1\": must be 0"),
        (ports("{port: 'a--b'}"), "port: \"a--b\""),
        (ports("{port: 80}"), "spec.ingress[0].toPorts[0].ports[0].port: invalid type: integer `80`"),
        (ports("{port: '80', endPort: 79}"), "endPort: 79: must be at least port (80)"),
        (ports("{port: '80', protocol: TPC}"), "protocol: \"TPC\": must be TCP"),
        (ports(&many), "ports: 41 elements: at most 40"),
        (ports(""), "ports: empty"),
        (ingress("{icmps: [{fields: [{type: Ehco}]}]}"), "type: \"Ehco\": must be 0 to 255 or one of EchoReply"),
        (ingress("{icmps: [{fields: [{type: 8}]}], toPorts: [{ports: [{port: '1'}]}]}"), "toPorts and icmps cannot be combined"),
    ];
    for (spec, expected) in table {
        let message = message(&policy("p", &spec));
        assert!(message.contains(expected), "{spec}\n  says: {message}\n  not: {expected}");
    }
}

#[test]
fn wrong_objects_are_refused_by_name() {
    let service =
        |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {spec}\n");
    let knp = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: n}}\nspec: {spec}\n"
        )
    };
    #[rustfmt::skip]
    let table = [
        ("kind: Deployment\nmetadata: {name: d}".to_string(), "kind: \"Deployment\": must be List or one of Namespace"),
        ("kind: Pod\napiVersion: v1\nmetadata: {}".into(), "metadata.name: missing"),
        ("kind: Pod\napiVersion: v2\nmetadata: {name: p}".into(), "apiVersion: \"v2\": must be v1 for Pod"),
        ("kind: Pod\napiVersion: v1\nmetadata: {name: a/b}".into(), "metadata.name: \"a/b\""),
        ("kind: [".into(), "not YAML"),
        ("a: 1\na: 2".into(), "duplicate"),
        (service("{ports: [{port: 80}]}"), "spec.clusterIP: missing"),
        (service("{clusterIP: 10.0.0.300, ports: [{port: 80}]}"), "\"10.0.0.300\" is not an IP address"),
        (service("{clusterIP: 10.0.0.3, ports: [{port: 0}]}"), "spec.ports[0].port: 0: must be 1 to 65535"),
        (service("{clusterIP: 10.0.0.3, ports: [{port: 1, protocol: ICMP}]}"), "\"ICMP\": must be TCP, UDP or SCTP"),
        (service("{clusterIP: 10.0.0.3, selectr: {a: b}, ports: [{port: 1}]}"), "spec.selectr: unknown field"),
        (knp("{podSelector: {}, ingress: [{form: []}]}"), "unknown field `form`"),
        (knp("{podSelector: {}, policyTypes: [ingress]}"), "policyTypes: \"ingress\": must be Ingress or Egress"),
        (knp("{podSelector: {}, ingress: [{from: [{}]}]}"), "spec.ingress[0].from[0]: empty"),
        (knp("{podSelector: {}, ingress: [{ports: [{endPort: 9}]}]}"), "endPort: 9: needs port"),
        (knp("{podSelector: {}, ingress: [{ports: [{port: 70000}]}]}"), "port: 70000: must be 1 to 65535"),
    ];
    for (text, expected) in table {
        let message = message(&text);
        assert!(message.contains(expected), "{text}\n  says: {message}\n  not: {expected}");
    }
}

#[test]
fn documents_are_counted_and_lists_are_opened() {
    let text = format!(
        "# nothing here\n---\n{}---\nkind: [\n--- # a comment\nkind: List\nitems:\n- {{kind: Namespace, apiVersion: v1, metadata: {{name: a}}}}\n- {{kind: Node}}\n",
        policy("p", GOOD)
    );
    let documents = parse(&text, "cluster1");
    let seen: Vec<_> = documents.iter().map(|d| (d.index.as_str(), d.object.is_ok())).collect();
    assert_eq!(seen, [("1", true), ("2", false), ("3[0]", true), ("3[1]", false)]);
    let wrong = documents[1].object.as_ref().expect_err("wrong").to_string();
    assert!(wrong.contains("line 9") || wrong.contains("line 8"), "line of the file: {wrong}");
}

/// A directory whose events are folded into what is in force.
struct Fixture {
    directory: tempfile::TempDir,
    scanner: Directory,
    in_force: BTreeMap<ObjectKey, String>,
    errors: Vec<ManifestError>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let scanner = Directory::new(directory.path().into(), "cluster1".into());
        Fixture { directory, scanner, in_force: BTreeMap::new(), errors: Vec::new() }
    }

    fn write(&mut self, name: &str, text: &str) -> &mut Self {
        fs::write(self.directory.path().join(name), text).expect("write");
        self
    }

    /// Scans; gives the names in force and how many events it took.
    fn scan(&mut self) -> (Vec<String>, usize) {
        let events = self.scanner.scan();
        let count = events.len();
        for event in events {
            match event {
                ObjectEvent::Upsert { object, source } => drop(self.in_force.insert(object.key(), source)),
                ObjectEvent::Delete(key) => {
                    assert!(self.in_force.remove(&key).is_some(), "{key} was not there")
                }
                ObjectEvent::Errors(errors) => self.errors = errors,
                ObjectEvent::Synced => {}
            }
        }
        (self.in_force.keys().map(|key| key.name.clone()).collect(), count)
    }
}

#[test]
fn a_file_that_is_being_written_does_not_open_its_pods() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &policy("one", GOOD)).write("empty.yaml", "");
    assert_eq!(fixture.scan(), (vec!["one".into()], 1));
    fixture.write("a.yaml", "\n");
    assert_eq!(fixture.scan().0, ["one"]);
    assert!(fixture.errors[0].last_good_in_force && fixture.errors[0].message.contains("delete it"));
    fixture.write("a.yaml", &policy("two", GOOD));
    assert_eq!(fixture.scan().0, ["two"]);
    assert!(fixture.errors.is_empty());
    fs::remove_file(fixture.directory.path().join("a.yaml")).expect("remove");
    assert_eq!(fixture.scan().0, [""; 0]);
}

#[test]
fn the_last_good_version_stays_in_force() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &format!("{}---\n{}", policy("one", GOOD), policy("two", GOOD)));
    fixture
        .write("b.yml", &policy("three", GOOD))
        .write("ignored.txt", "kind: [")
        .write(".hidden.yaml", "kind: [");
    assert_eq!(fixture.scan(), (vec!["one".into(), "three".into(), "two".into()], 3));
    assert_eq!(fixture.scan().1, 0, "nothing changed");

    // One document goes wrong: it stays as it was, the other one changes.
    let changed = "{endpointSelector: {}, ingress: [{}]}";
    fixture.write(
        "a.yaml",
        &format!("{}---\n{}", policy("one", "{endpointSelector: 3}"), policy("two", changed)),
    );
    assert_eq!(fixture.scan(), (vec!["one".into(), "three".into(), "two".into()], 2));
    assert_eq!(fixture.errors.len(), 1);
    assert!(fixture.errors[0].last_good_in_force && fixture.errors[0].source == "a.yaml#1");
    assert!(fixture.errors[0].message.contains("CiliumNetworkPolicy default/one: spec.endpointSelector"));

    // Not even YAML: everything the file had stays, and a new object in it counts.
    fixture.write("a.yaml", &format!("kind: [\n---\n{}", policy("four", GOOD)));
    assert_eq!(fixture.scan().0, ["four", "one", "three", "two"]);

    // A good file again: what is not in it goes.
    fixture.write("a.yaml", &policy("one", GOOD));
    assert_eq!(fixture.scan().0, ["one", "three"]);
    assert_eq!(fixture.errors, []);

    // An object that never was good has no last good version.
    fixture.write("c.json", &policy("bad", "{}"));
    assert_eq!(fixture.scan().0, ["one", "three"]);
    assert!(!fixture.errors[0].last_good_in_force);

    fs::remove_file(fixture.directory.path().join("b.yml")).expect("remove");
    assert_eq!(fixture.scan().0, ["one"]);
}

#[test]
fn the_first_definition_of_an_object_counts() {
    let mut fixture = Fixture::new();
    fixture.write("b.yaml", &policy("p", GOOD)).write("a.yaml", &policy("p", GOOD));
    fixture.scan();
    assert_eq!(fixture.in_force.values().collect::<Vec<_>>(), ["a.yaml#1"]);
    assert_eq!(fixture.errors[0].source, "b.yaml#1");
    fs::remove_file(fixture.directory.path().join("a.yaml")).expect("remove");
    fixture.scan();
    assert_eq!(fixture.in_force.values().collect::<Vec<_>>(), ["b.yaml#1"]);
    assert_eq!(fixture.errors, []);
}

#[test]
fn a_directory_that_went_away_leaves_everything_in_force() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &policy("p", GOOD));
    fixture.scan();
    fs::remove_dir_all(fixture.directory.path()).expect("remove");
    assert_eq!(fixture.scan().0, ["p"]);
    assert!(fixture.errors[0].last_good_in_force);
}

#[tokio::test]
async fn changes_are_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sender, mut events) = tokio::sync::mpsc::channel(16);
    watch(directory.path().into(), "cluster1".into(), sender).expect("watch");
    assert!(matches!(events.recv().await, Some(ObjectEvent::Synced)));
    fs::write(directory.path().join("a.yaml"), policy("p", GOOD)).expect("write");
    assert!(matches!(events.recv().await, Some(ObjectEvent::Upsert { .. })));
    fs::remove_file(directory.path().join("a.yaml")).expect("remove");
    assert!(matches!(events.recv().await, Some(ObjectEvent::Delete(key)) if key.name == "p"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "(---|kind: (List|Pod|Service|CiliumNetworkPolicy)|metadata: |spec: |items: |\\{|\\}|\\[|\\]|- |name: a|[a-z:'\"&*!|>\\-\n ]){0,30}") {
        parse(&text, "cluster1");
    }
}
