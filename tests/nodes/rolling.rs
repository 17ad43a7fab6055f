//! A rolling update from nodes of commit 7a76061. `fixtures/rolling/` has what they write into
//! Redis and send to peers, and their scripts are run on what today's nodes write.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{PREFIX, gone, leases, poll, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Nodes, Redis, Reply, ahead, eventually, now_ms, project_file};

fn fixture(name: &str) -> String {
    project_file(format!("fixtures/rolling/{name}"))
}

/// Returns a script of an old node, joined from its parts as the old node joins them.
fn old_script(parts: &[&str]) -> String {
    parts
        .iter()
        .map(|part| fixture(&format!("scripts/{part}.lua")))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the hash `name` as if an old node wrote it now. Its lease leads to `address`.
fn old_hash(name: &str, address: &str) -> BTreeMap<String, String> {
    let hashes: Value = serde_json::from_str(&fixture("hashes.json")).expect("JSON");
    let then = hashes["now"].as_u64().expect("a time");
    let moved = |text: &str| {
        text.parse::<u64>()
            .map_or(text.to_owned(), |time| (time + now_ms() - then).to_string())
    };
    let hash = hashes[name].as_object().expect("a hash");
    let field = |(field, value): (&String, &Value)| {
        let value = value.as_str().expect("text");
        let is_time = !matches!(field.as_str(), "n" | "f" | "d");
        let field = field
            .split_once('@')
            .map_or(field.clone(), |(node, _)| format!("{node}@{address}"));
        (
            field,
            if is_time {
                moved(value)
            } else {
                value.to_owned()
            },
        )
    };
    hash.iter().map(field).collect()
}

async fn write_old_hash(redis: &Redis, key: &str, hash: &BTreeMap<String, String>) {
    let name = format!("{PREFIX}{key}");
    for (field, value) in hash {
        redis.command(&["HSET", &name, field, value]).await;
    }
    redis.command(&["PEXPIRE", &name, "300000"]).await;
}

/// An old node as Redis sees it. Its scripts run on the key `k`.
struct Old<'a>(&'a Redis);

impl Old<'_> {
    async fn run(&self, parts: &[&str], args: &[&str]) -> Vec<Reply> {
        let (script, key) = (old_script(parts), format!("{PREFIX}k"));
        let command = [&["EVAL", &script, "1", &key], args].concat();
        self.0.command(&command).await.list().to_vec()
    }

    /// Stores `value`, or a deletion if there is no value.
    async fn write(&self, number: &str, value: Option<&str>) -> Vec<Reply> {
        let mut args = vec!["300000", "", "0", "", number];
        args.extend(value.into_iter().flat_map(|value| ["0", value]));
        self.run(&["common", "leases", "write"], &args).await
    }

    async fn open(&self, last: u64, name: &str) -> Vec<Reply> {
        let last = last.to_string();
        self.run(&["common", "open"], &[&last, &last, "20000", name])
            .await
    }

    async fn look(&self) -> Vec<Reply> {
        self.run(&["common", "leases", "look"], &[]).await
    }
}

#[tokio::test]
async fn what_an_old_node_stored_is_read_and_followed_by_what_is_newer() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let dead = "http://127.0.0.1:1";
    for (name, is_status) in [("set", true), ("deleted", false)] {
        let hash = old_hash(name, dead);
        write_old_hash(&redis, "k", &hash).await;
        let version: u64 = hash["v"].parse().expect("a version");
        let expected = match is_status {
            true => {
                status(version, r#"{"a": null}"#).replace(r#""final":false"#, r#""final":true"#)
            }
            false => gone(version),
        };
        assert_eq!(poll(&nodes[0], "k", 0).await.text(), expected);
        let mut held = nodes.hold(1, &format!("key=k&last={version}")).await;
        let response = nodes[0].set(r#"{"key":"k","value":"new","id":"a"}"#).await;
        assert!(response.version() > version, "{response:?}");
        assert_eq!(response.json()["delivered"], 1, "{response:?}");
        assert_eq!(
            held.answer().await.text(),
            status(response.version(), r#""new""#)
        );
        redis.command(&["DEL", &format!("{PREFIX}k")]).await;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn an_old_node_reads_and_replaces_what_a_new_one_stored() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let old = Old(&redis);
    let held = nodes.hold(0, &format!("key=k&last={}", now_ms())).await;
    let name = nodes.name(0).await;
    // The old node sees the lease, which is a plain number like its own.
    let looked = old.look().await;
    assert_eq!((looked[1].number(), looked[5].text()), (0, name.as_str()));
    let set = r#"{"key":"k","value":"new","id":"a"}"#;
    let version = check_done(&nodes[0].set(set).await, 1);
    drop(held);
    let looked = old.look().await;
    assert_eq!(
        (looked[1].number(), looked[3].text()),
        (version.cast_signed(), r#""new""#)
    );
    let opened = old.open(0, "old@http://127.0.0.1:1").await;
    assert_eq!(
        (opened[1].number(), opened[3].text()),
        (version.cast_signed(), r#""new""#)
    );
    // The old node's set gets a later version, is done once, and is read here. A repeat of the
    // set that was done here before is still known.
    let written = old.write("0123456789abcdef", Some("2")).await;
    assert_eq!(
        (
            written[1].text(),
            written[2].number() > version.cast_signed()
        ),
        ("stored", true)
    );
    let again = old.write("0123456789abcdef", Some("2")).await;
    assert_eq!(
        (again[1].text(), again[2].number()),
        ("stored", written[2].number())
    );
    let newest = written[2].number().cast_unsigned();
    assert_eq!(
        poll(&nodes[0], "k", version).await.text(),
        status(newest, "2")
    );
    assert_eq!(check_done(&nodes[0].set(set).await, 0), version);
    let deleted = old.write("fedcba9876543210", None).await;
    assert_eq!(
        poll(&nodes[0], "k", newest).await.text(),
        gone(deleted[2].number().cast_unsigned())
    );
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn an_old_node_knows_how_far_a_page_of_a_new_one_is_and_the_other_way_round() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let old = Old(&redis);
    let last = ahead();
    let held = nodes.hold(0, &format!("key=k&last={last}")).await;
    assert_eq!(
        old.write("0123456789abcdef", Some("1")).await[2].number(),
        last.cast_signed() + 1
    );
    drop(held);
    redis.command(&["DEL", &format!("{PREFIX}k")]).await;
    old.open(last, "old@http://127.0.0.1:1").await;
    assert_eq!(
        nodes[0].set(r#"{"key":"k","value":1}"#).await.version(),
        last + 1
    );
    // Any node clears an ended lease of an old node, and no node clears any other.
    assert_eq!(leases(&redis, "k").await, ["old@http://127.0.0.1:1"]);
    settle(&nodes, &redis, 3600).await;
}

#[tokio::test]
async fn what_an_old_node_tells_reaches_the_pages_of_a_new_one() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let id = nodes
        .name(0)
        .await
        .split_once('@')
        .expect("a name")
        .0
        .to_owned();
    let mut held = nodes.hold(0, "key=k").await;
    let mut message: Value = serde_json::from_str(&fixture("channel-set.json")).expect("JSON");
    message["to"] = json!(id);
    // An update as old as the fixture would count as given up.
    message["updates"][0]["version"] = json!(now_ms());
    let message = message.to_string();
    let answer = nodes[0]
        .internal("POST", "/channel/set", &[], message.as_bytes())
        .await;
    // An old node ignores the members that it does not know.
    let old: Value = serde_json::from_str(&fixture("channel-answer.json")).expect("JSON");
    for (member, value) in old.as_object().expect("an object") {
        assert_eq!(answer.json()[member], *value, "{answer:?}");
    }
    assert_eq!(held.answer().await.object()["value"], json!({"a": null}));
    settle(&nodes, &redis, 300).await;
}

/// Starts a peer that takes and answers messages as an old node does. Returns its port, and
/// the body of each message.
async fn old_peer() -> (u16, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, messages) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(body) = read_body(&mut stream).await {
                    let message: Value = serde_json::from_slice(&body).expect("JSON");
                    let count = message["updates"]
                        .as_array()
                        .expect("what an old node must find")
                        .len();
                    let answer = fixture("channel-answer.json")
                        .replace("[1]", &json!(vec![1; count]).to_string());
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}",
                        answer.len()
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = sender.send(message);
                }
            });
        }
    });
    (port, messages)
}

/// Reads a request and returns its body, or `None` at the end.
async fn read_body(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            return Some(body);
        }
    }
}

#[tokio::test]
async fn what_a_new_node_sends_is_read_by_an_old_one_and_its_answer_counts() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let (port, mut messages) = old_peer().await;
    let name = format!("{PREFIX}k");
    redis
        .command(&[
            "HSET",
            &name,
            &format!("impostor@http://127.0.0.1:{port}"),
            &(now_ms() + 30_000).to_string(),
        ])
        .await;
    redis.command(&["PEXPIRE", &name, "30000"]).await;
    // If the old node were not on the list of nodes, its answer would not be waited for.
    let (script, key) = (
        old_script(&["common", "nodes"]),
        format!("{PREFIX}all nodes"),
    );
    let member = format!("impostor@http://127.0.0.1:{port}");
    let counted = async || {
        redis
            .command(&["EVAL", &script, "1", &key, &member, "6000", "64"])
            .await;
        let receipt = nodes[0]
            .set(r#"{"key":"k","value":{"a": null},"final":true}"#)
            .await;
        receipt.json()["delivered"] == 1
    };
    eventually(counted, "what it says that it delivered is counted").await;
    let old: Value = serde_json::from_str(&fixture("channel-set.json")).expect("JSON");
    let members = |update: &Value| {
        update
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    loop {
        let message = messages.recv().await.expect("a message");
        let updates = message["updates"].as_array().expect("a list");
        if let Some(update) = updates.iter().find(|update| update["key"] == "k") {
            assert_eq!(
                (&message["to"], members(update)),
                (&old["to"], members(&old["updates"][0])),
                "{message}"
            );
            assert_eq!(
                (&update["value"], &update["final"]),
                (&json!({"a": null}), &json!(true))
            );
            break;
        }
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn an_old_node_is_on_the_list_of_nodes_and_lists_the_new_one() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let (script, key) = (
        old_script(&["common", "nodes"]),
        format!("{PREFIX}all nodes"),
    );
    let (name, new) = ("old@http://127.0.0.1:1", nodes.name(0).await);
    let listed = async || {
        let answer = redis
            .command(&["EVAL", &script, "1", &key, name, "6000", "64"])
            .await;
        answer
            .list()
            .iter()
            .skip(1)
            .step_by(2)
            .map(|name| name.text().to_owned())
            .collect::<Vec<_>>()
    };
    eventually(
        async || listed().await == [new.clone()],
        "the old node lists the new one",
    )
    .await;
    let unreachable = async || {
        listed().await;
        let told = nodes[0].internal("GET", "/nodes", &[], b"").await.json();
        told["unreachable"] == json!(["http://127.0.0.1:1"])
    };
    eventually(unreachable, "the new node lists the old one").await;
    settle(&nodes, &redis, 300).await;
}
