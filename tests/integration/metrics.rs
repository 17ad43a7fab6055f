//! `GET /metrics`: what is told, that it is well formed, and that it grows with nothing that a client chooses.

use std::collections::BTreeMap;

use crate::channel::node_id;
use crate::support::{Node, Nodes, Redis, Response};

/// What a scrape says of one family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One sample. Of a histogram there are several, which are told apart by what is behind the family's name.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) suffix: String,
    /// In order.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// Takes the text format apart, strictly: HELP and TYPE in front of the samples, once; no sample twice.
pub(crate) fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{line}: twice");
            name.clone_into(&mut current);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert_eq!(name, current, "{line}: no help");
            let family = families.get_mut(name).expect("its help was just read");
            assert!(family.kind.is_empty(), "{line}: twice");
            kind.clone_into(&mut family.kind);
        } else {
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("{line}: no family"));
            let sample = sample(line, &current, &family.kind);
            let is_same = |other: &Sample| (&other.suffix, &other.labels) == (&sample.suffix, &sample.labels);
            assert!(!family.samples.iter().any(is_same), "{line}: twice");
            family.samples.push(sample);
        }
    }
    families
}

fn sample(line: &str, family: &str, kind: &str) -> Sample {
    let (left, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    let (name, labels) = left.split_once('{').unwrap_or((left, ""));
    let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line}: not of {family}"));
    let suffixes: &[_] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    assert!(suffixes.contains(&suffix), "{line}");
    let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
    let label = |label: &str| {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name.to_owned(), value.unwrap_or_else(|| panic!("{line}")).to_owned())
    };
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    Sample { suffix: suffix.to_owned(), labels: labels.map(label).collect(), value }
}

async fn scrape(node: &Node) -> Response {
    let response = node.internal("GET", "/metrics", &[], b"").await;
    assert_eq!(response.status, 200);
    response
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_complete_from_the_start() {
    let node = Node::start(&[]).await;
    let response = scrape(&node).await;
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut names = response.header_names();
    names.sort();
    assert_eq!(names, ["cache-control", "content-length", "content-type", "date", "x-content-type-options"]);
    let families = families(response.text());
    let outcomes = ["success", "timeout", "retry", "busy", "gone", "invalid", "unavailable", "left"];
    let results = ["success", "conflict", "busy", "invalid", "unavailable"];
    for (name, kind, label, values) in [
        ("holdfast_waiters", "gauge", "", &[""][..]),
        ("holdfast_waiting_keys", "gauge", "", &[""]),
        ("holdfast_gets_total", "counter", "outcome", &outcomes),
        ("holdfast_sets_total", "counter", "result", &results),
        ("holdfast_connections", "gauge", "listener", &["public", "internal"]),
    ] {
        let family = families.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(family.kind, kind, "{name}");
        let labels =
            |value: &&str| if label.is_empty() { vec![] } else { vec![(label.to_owned(), (*value).to_owned())] };
        let mut came: Vec<_> = family.samples.iter().map(|sample| sample.labels.clone()).collect();
        came.sort();
        let mut expected: Vec<_> = values.iter().map(labels).collect();
        expected.sort();
        assert_eq!(came, expected, "{name}");
    }
    for (name, family) in families {
        assert!(name.starts_with("holdfast_") && !family.samples.is_empty(), "{name}");
        assert!(family.help.len() > 5, "{name} has help");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name} is a {}", family.kind);
    }
}

/// How many wakes were counted, and how long they took together, in seconds.
async fn wakes(node: &Node) -> (u64, f64) {
    let metrics = node.metrics().await;
    (metrics["holdfast_wake_seconds_count"] as u64, metrics["holdfast_wake_seconds_sum"])
}

#[tokio::test]
async fn each_answer_to_who_waited_for_a_set_is_a_wake_and_no_other_answer_is() {
    let node = Node::start(&[]).await;
    // More than a delivery answers by itself.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(node.hold("key=k").await);
    }
    node.set_ok("k", "1").await;
    for held in &mut held {
        assert_eq!(held.answer().await.code(), 0);
    }
    let mut deleted = node.hold("key=d").await;
    node.delete_ok("d").await;
    assert_eq!(deleted.answer().await.code(), -4);
    let (count, seconds) = wakes(&node).await;
    assert!(count == 21 && seconds > 0.0 && seconds < 21.0 * 10.0, "{count} in {seconds} s");
    for (query, code) in [("key=k", 0), ("key=n&wait=0", -1), ("key=n&wait=0.05", -1), ("key=", -5)] {
        assert_eq!(node.get(&format!("/status/get?{query}")).await.code(), code, "{query}");
    }
    node.hold("key=n").await.leave();
    node.quiet().await;
    assert_eq!(wakes(&node).await.0, 21);
    let families = families(scrape(&node).await.text());
    let buckets: Vec<_> =
        families["holdfast_wake_seconds"].samples.iter().filter(|sample| sample.suffix == "_bucket").collect();
    let bounds: Vec<_> = buckets.iter().map(|bucket| bucket.labels[0].1.as_str()).collect();
    assert_eq!((bounds[0], bounds[bounds.len() - 2], bounds[bounds.len() - 1]), ("0.00005", "10", "+Inf"));
}

#[tokio::test]
async fn what_another_node_tells_is_as_old_as_that_says_and_untimed_where_it_does_not_say() {
    let node = Node::start(&[]).await;
    let id = node_id(&node).await;
    for (age, expected) in [("", 0), (r#""age_us":2000000,"#, 1), (r#""age_us":18446744073709551615,"#, 1)] {
        let mut held = node.hold("key=k").await;
        let body = format!(r#"{{"to":"{id}","updates":[{{"key":"k","version":7,{age}"value":1}}]}}"#);
        assert_eq!(node.internal("POST", "/channel/set", &[], body.as_bytes()).await.status, 200);
        assert_eq!(held.answer().await.version(), 7);
        let (count, seconds) = wakes(&node).await;
        assert_eq!(count, expected, "{age}");
        assert!(count == 0 || (seconds > 2.0 && seconds < 12.0), "{age}: {seconds} s");
    }
}

#[tokio::test]
async fn who_waits_on_another_node_is_woken_as_long_after_the_set_as_it_took_there_and_here() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let mut held = nodes.hold(0, "key=k").await;
    nodes[1].set_ok("k", "1").await;
    assert_eq!(held.answer().await.code(), 0);
    let (count, seconds) = wakes(&nodes[0]).await;
    // The store was asked in between, so not even the fastest machine does it in no time.
    assert!(count == 1 && seconds > 20e-6 && seconds < 10.0, "{count} in {seconds} s");
    assert_eq!(wakes(&nodes[1]).await, (0, 0.0));
}
