//! Tests of the alert rules and the dashboard in `deploy/`: they load, they use metrics that a
//! node has, and each alert fires when it should.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::docs::code::code_below;
use crate::operate::metrics::{Family, families};
use holdfast_testkit::{Node, Nodes, Redis, Scratch, project_file, tls};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const RULES: &str = "deploy/prometheus-alerts.yml";

fn promtool(args: &[&str], input: &str) -> Output {
    let scratch = Scratch::new();
    let file = scratch.path("input");
    fs::write(&file, input).unwrap();
    let mut command = Command::new("promtool");
    command
        .args(args)
        .current_dir(ROOT)
        .stdin(Stdio::from(fs::File::open(&file).unwrap()));
    command
        .output()
        .expect("promtool, of Debian's package prometheus")
}

/// Runs promtool with `input`.
///
/// # Panics
/// With promtool's output, if it fails.
fn check_promtool(args: &[&str], input: &str) {
    let output = promtool(args, input);
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "promtool {args:?}: {}",
        String::from_utf8_lossy(&said)
    );
}

/// Returns the values of `key` in lines `key: "text"` or `- key: text`.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| {
        line.trim_start()
            .trim_start_matches("- ")
            .strip_prefix(key)?
            .strip_prefix(": ")
    };
    text.lines()
        .filter_map(value)
        .map(|value| value.trim_matches('"'))
        .collect()
}

#[test]
fn each_alert_fires_on_its_own_and_none_where_all_is_well() {
    let rules = project_file(RULES);
    check_promtool(&["check", "rules", RULES], "");
    let fixture = "fixtures/prometheus-alerts.test.yml";
    check_promtool(&["test", "rules", fixture], "");
    let tests = project_file(fixture);
    let alerts = values(&rules, "alert");
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in &alerts {
        assert!(
            tests.contains(&format!(r#"alertname="{alert}""#)),
            "{alert} is not tested"
        );
    }
    for key in ["expr", "for", "labels", "summary", "action"] {
        assert_eq!(
            values(&rules, key).len(),
            alerts.len(),
            "each alert has its {key}"
        );
    }
    assert!(
        values(&rules, "labels")
            .iter()
            .all(|labels| labels.starts_with("{severity: "))
    );
    // promtool reports an alert that fires although all is well.
    let wrong = tests
        .replace("700x400", "900x400")
        .replace("../deploy/", &format!("{ROOT}/deploy/"));
    let scratch = Scratch::new();
    fs::write(scratch.path("test.yml"), wrong).unwrap();
    let output = promtool(
        &["test", "rules", scratch.path("test.yml").to_str().unwrap()],
        "",
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("HoldfastWaitersNearLimit"),
        "{output:?}"
    );
}

/// Returns the families that a node reports, with either kind of store.
async fn told() -> BTreeMap<String, Family> {
    let redis = Redis::start(&[]).await;
    let args = tls::flags().await;
    let mut told = BTreeMap::new();
    for node in [
        &Node::start(&args).await,
        &Nodes::start(1, &redis.url(), &args).await[0],
    ] {
        let response = node.internal("GET", "/metrics", &[], b"").await;
        check_promtool(&["check", "metrics"], response.text());
        told.extend(families(response.text()));
    }
    told
}

/// Returns the dashboard's panels without its rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let targets = panels(dashboard)
        .into_iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .collect()
}

/// Returns the names of metrics in an expression, without the suffix that a histogram adds.
fn names<'a>(expression: &'a str, told: &BTreeMap<String, Family>) -> BTreeSet<&'a str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("holdfast_") || word.starts_with("process_"));
    ours.map(|name| match name.strip_suffix("_bucket") {
        Some(family)
            if told
                .get(family)
                .is_some_and(|family| family.kind == "histogram") =>
        {
            family
        }
        _ => name,
    })
    .collect()
}

/// Returns the labels of an expression and the texts they are compared with, for example in
/// `result=~"unavailable|unknown"`.
fn compared(expression: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in expression
        .match_indices("=\"")
        .chain(expression.match_indices("~\""))
    {
        let label = expression[..at].trim_end_matches(['=', '!', '~']);
        let label = label
            .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap();
        let values = expression[at + 2..].split('"').next().unwrap();
        found.extend(values.split('|').map(|value| (label, value)));
    }
    found.retain(|(label, _)| !["job", "instance"].contains(label));
    found
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_ask_for_what_a_node_tells() {
    let told = told().await;
    let dashboard: Value =
        serde_json::from_str(&project_file("deploy/grafana-dashboard.json")).expect("JSON");
    let on_it = expressions(&dashboard);
    let rules = project_file(RULES);
    let expressions_of_rules = rules
        .split("expr: ")
        .skip(1)
        .map(|rest| rest.split(" for: ").next().unwrap());
    let mut shown = BTreeSet::new();
    for expression in on_it.iter().copied().chain(expressions_of_rules) {
        let names = names(expression, &told);
        for name in &names {
            assert!(
                told.contains_key(*name),
                "{name}: no node tells it: {expression}"
            );
        }
        let samples = || names.iter().flat_map(|name| &told[*name].samples);
        for (label, value) in compared(expression) {
            let is_it = |(name, text): &(String, String)| name == label && text == value;
            assert!(
                samples().any(|sample| sample.labels.iter().any(is_it)),
                "{label}={value}: {expression}"
            );
        }
        shown.extend(names);
    }
    let missing: Vec<_> = told
        .keys()
        .filter(|name| !shown.contains(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "on no panel and in no alert: {missing:?}"
    );
}

#[test]
fn the_lines_of_a_panel_are_split_by_the_same_labels() {
    let dashboard: Value =
        serde_json::from_str(&project_file("deploy/grafana-dashboard.json")).expect("JSON");
    let labels = |target: &Value| {
        let expr = target["expr"].as_str().unwrap();
        let labels = expr.split_once(" by (").map(|(_, rest)| rest);
        labels.map(|rest| rest.split(')').next().unwrap().to_owned())
    };
    let mut split = BTreeSet::new();
    for panel in panels(&dashboard) {
        let targets = panel["targets"].as_array().unwrap();
        let of_panel: BTreeSet<_> = targets.iter().map(labels).collect();
        assert_eq!(of_panel.len(), 1, "{}: {of_panel:?}", panel["title"]);
        split.extend(of_panel.into_iter().flatten());
    }
    for label in ["outcome", "end", "wire"] {
        assert!(split.contains(label), "{label}: {split:?}");
    }
}

#[test]
fn the_dashboard_loads() {
    let dashboard: Value =
        serde_json::from_str(&project_file("deploy/grafana-dashboard.json")).expect("JSON");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36) && dashboard["title"] == "holdfast");
    let variables: Vec<_> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(
        (variables[0]["name"].as_str(), variables[0]["type"].as_str()),
        (Some("datasource"), Some("datasource"))
    );
    let rows = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.map(|row| row["title"].as_str().unwrap()).collect();
    let expected = [
        "Health",
        "Traffic",
        "Wake latency",
        "Waiters and connections",
        "Store and Redis",
        "Peers",
    ];
    assert_eq!(
        (&rows[..6], &rows[6..]),
        (&expected[..], &["Limits and drops", "Process"][..])
    );
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "an id twice: {panel}"
        );
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24);
        for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
            assert!(
                places.insert((place("x") + x, place("y") + y)),
                "it covers another: {panel}"
            );
        }
    }
    for panel in panels(&dashboard) {
        let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        assert!(
            text(&panel["title"]) && text(&panel["description"]),
            "{panel}"
        );
        assert!(text(&panel["fieldConfig"]["defaults"]["unit"]), "{panel}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
    }
    // Turned into rules, the expressions must be PromQL that Prometheus parses.
    let rule = |(at, expr): (usize, &str)| {
        let expr = Value::from(expr.replace("$__rate_interval", "5m"));
        format!("  - record: panel:{at}\n    expr: {expr}\n")
    };
    let rules: String = expressions(&dashboard)
        .into_iter()
        .enumerate()
        .map(rule)
        .collect();
    let scratch = Scratch::new();
    fs::write(
        scratch.path("rules.yml"),
        format!("groups:\n- name: panels\n  rules:\n{rules}"),
    )
    .unwrap();
    check_promtool(
        &[
            "check",
            "rules",
            scratch.path("rules.yml").to_str().unwrap(),
        ],
        "",
    );
}

#[test]
fn the_readme_s_configuration_of_prometheus_is_one() {
    let blocks = code_below("docs/operating.md", "What to watch, what to do", "yaml");
    let config = blocks.first().expect("a configuration");
    assert!(config.contains("job_name: holdfast"));
    let scratch = Scratch::new();
    fs::write(scratch.path("prometheus.yml"), config).unwrap();
    check_promtool(
        &[
            "check",
            "config",
            "--syntax-only",
            scratch.path("prometheus.yml").to_str().unwrap(),
        ],
        "",
    );
}
