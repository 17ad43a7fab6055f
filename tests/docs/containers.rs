//! The Containerfile, deploy/compose.yaml and deploy/kubernetes/: their commands start nodes, their
//! probes are answered, and their ports and times are those of the program. No container runs here.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::time::Duration;

use holdfast_testkit::{Launch, Node, Redis, Scratch};
use serde_json::Value;
use tokio::process::Command;

use crate::docs::readme::settings_table;

const TOKEN: &str = "of-the-containers-of-the-documents";
const COMPOSE: &str = "deploy/compose.yaml";
const KUBERNETES: &str = "deploy/kubernetes/holdfast.yaml";

/// Returns the documents of a YAML file.
async fn yaml(file: &str) -> Vec<Value> {
    let code =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let python = holdfast_testkit::python();
    let output = Command::new(python)
        .args(["-c", code, file])
        .output()
        .await
        .expect("Python");
    assert!(output.status.success(), "{file}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("documents")
}

/// Returns the one document of Kubernetes that has this kind and name.
async fn object(kind: &str, name: &str) -> Value {
    let objects = yaml(KUBERNETES).await;
    let mut found = objects
        .into_iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let one = found.next().expect(name);
    assert!(found.next().is_none(), "two are {name}");
    one
}

async fn container() -> Value {
    object("Deployment", "holdfast").await["spec"]["template"]["spec"]["containers"][0].clone()
}

/// Returns the texts of a list.
fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|one| one.as_str().expect("a text"))
        .collect()
}

/// Returns the value of a flag.
fn flag<'a>(args: &[&'a str], name: &str) -> &'a str {
    let value = args
        .iter()
        .find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{args:?} has no {name}"))
}

fn port(address: &str) -> u64 {
    let (_, port) = address.rsplit_once(':').expect("a port");
    port.parse().expect("a number")
}

/// Starts a node by the arguments of a container, on ports of this machine.
async fn start(args: &[&str], redis: &Redis, scratch: &Scratch) -> Node {
    let mut own = Vec::new();
    for arg in args {
        let (flag, value) = arg.split_once('=').expect("a flag and its value");
        let value = match flag {
            // The harness chooses free ports, and only loopback addresses.
            "--public" | "--internal" => continue,
            "--advertise" => {
                assert_eq!(value, "http://$(POD_IP):11001");
                continue;
            }
            "--redis" => {
                assert_eq!(value, "redis://redis:6379");
                redis.url()
            }
            "--redis-file" => scratch.file("redis", &redis.url()),
            "--internal-token-file" => scratch.file("internal-token", TOKEN),
            other => panic!("{other} is new here"),
        };
        own.extend([flag.to_owned(), value]);
    }
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    Launch::new(&own).bearer(TOKEN).start().await
}

#[tokio::test]
async fn the_commands_start_nodes_that_answer_the_probes() {
    let (redis, scratch) = (Redis::start(&[]).await, Scratch::new());
    let container = container().await;
    let node = start(&texts(&container["args"]), &redis, &scratch).await;
    for probe in ["readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "internal", "{probe}");
        let path = get["path"].as_str().expect("a path");
        // A probe of Kubernetes has no token.
        let mut conn = holdfast_testkit::Conn::open(&node.internal).await;
        conn.send(holdfast_testkit::request("GET", path, &[], b""))
            .await;
        assert_eq!(conn.read_response().await.status, 200, "{probe}");
    }
    let services = &yaml(COMPOSE).await[0]["services"];
    for name in ["node-1", "node-2", "node-3"] {
        start(&texts(&services[name]["command"]), &redis, &scratch).await;
    }
}

#[tokio::test]
async fn the_ports_are_those_of_the_commands() {
    let container = container().await;
    let args = texts(&container["args"]);
    let of = |name: &str| {
        let ports = container["ports"].as_array().expect("ports");
        let found = ports.iter().find(|one| one["name"] == name).expect(name);
        found["containerPort"].as_u64().expect("a number")
    };
    assert_eq!(of("public"), port(flag(&args, "--public")));
    assert_eq!(of("internal"), port(flag(&args, "--internal")));
    assert_eq!(of("internal"), port(flag(&args, "--advertise")));
    for (service, target) in [("holdfast", "public"), ("holdfast-internal", "internal")] {
        let ports = object("Service", service).await["spec"]["ports"].clone();
        assert_eq!(ports[0]["targetPort"], target, "{service}");
    }
    let template = &object("Deployment", "holdfast").await["spec"]["template"];
    let scraped = &template["metadata"]["annotations"]["prometheus.io/port"];
    assert_eq!(*scraped, of("internal").to_string());

    let services = &yaml(COMPOSE).await[0]["services"];
    let args = texts(&services["node-1"]["command"]);
    let published = format!("127.0.0.1:11001:{}", port(flag(&args, "--internal")));
    assert_eq!(texts(&services["node-1"]["ports"]), [published]);
    let nodes = read_to_string("deploy/compose/nodes.conf").expect("nodes.conf");
    let listed: BTreeSet<_> = nodes
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("server ")?
                .strip_suffix(" max_fails=0;")
        })
        .collect();
    let public = port(flag(&args, "--public"));
    let names: Vec<_> = (1..=3).map(|n| format!("node-{n}:{public}")).collect();
    assert_eq!(listed, names.iter().map(String::as_str).collect());

    let image = read_to_string("Containerfile").expect("Containerfile");
    assert!(image.contains("\nEXPOSE 11000 11001\n"), "{image}");
}

/// Returns the default of a setting that is a time.
fn default_time(setting: &str) -> Duration {
    let table = settings_table();
    let row = table.iter().find(|row| row[0] == format!("`{setting}`"));
    let text = row.expect(setting)[2].trim_matches('`');
    humantime::parse_duration(text).expect(setting)
}

#[tokio::test]
async fn the_time_to_stop_is_longer_than_a_drain() {
    // With a second for handing on updates.
    let drain =
        default_time("--drain-notice") + default_time("--drain-grace") + Duration::from_secs(1);
    let document = read_to_string("docs/deployment.md").expect("docs/deployment.md");
    let said = format!(": {} s with the defaults", drain.as_secs());
    assert!(document.contains(&said), "{said}");
    let unit = read_to_string("deploy/holdfast.service").expect("the unit");
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let systemd = humantime::parse_duration(stop.expect("a time")).expect("a time");
    assert!(systemd > drain, "{systemd:?} and {drain:?}");
    let template = &object("Deployment", "holdfast").await["spec"]["template"];
    let grace = &template["spec"]["terminationGracePeriodSeconds"];
    let kubernetes = Duration::from_secs(grace.as_u64().expect("seconds"));
    assert!(kubernetes > drain, "{kubernetes:?} and {drain:?}");
    let services = &yaml(COMPOSE).await[0]["services"];
    let grace = services["node-1"]["stop_grace_period"].as_str();
    let compose = humantime::parse_duration(grace.expect("a time")).expect("a time");
    assert!(compose > drain, "{compose:?} and {drain:?}");
}

#[tokio::test]
async fn the_image_checks_its_health_by_the_program() {
    let image = read_to_string("Containerfile").expect("Containerfile");
    let program = "/usr/local/bin/holdfast";
    let has = |line: &str| assert!(image.lines().any(|one| one == line), "{line}");
    has(&format!(
        "COPY --from=build /unpacked/bin/holdfast {program}"
    ));
    // The image has no C library, so its program must be the static one of the tarball.
    assert!(image.contains("\nRUN make dist && "), "{image}");
    assert!(image.contains(" musl-tools\n"), "{image}");
    has(&format!("ENTRYPOINT [\"{program}\"]"));
    assert!(
        image.contains(&format!("CMD [\"{program}\", \"health\"]\n")),
        "{image}"
    );
    let node = Node::start(&[]).await;
    let internal = node.internal.to_string();
    let well = Launch::new(&["health", "--internal", &internal])
        .run()
        .await;
    assert!(well.status.success(), "{well:?}");
}
