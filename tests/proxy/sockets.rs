//! WebSockets through nginx and without it, with a client that nobody here wrote: the Python
//! package `websockets`.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use holdfast_testkit::nginx::NAME;
use holdfast_testkit::{Nginx, Node, PATIENCE, UPGRADE, tls};

/// Connects to the URL and the address that are its arguments. Sends each line of its input, and
/// prints each message. At the end it prints the close.
const CLIENT: &str = r#"
import asyncio, json, ssl, sys
import websockets

async def main(url, host, port, certificate):
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    options = dict(host=host, port=int(port), origin="https://shop.example.com", subprotocols=["holdfast.v1"])
    if context:
        options.update(ssl=context, server_hostname="push.example.com")
    async with websockets.connect(url, **options) as socket:
        print(json.dumps(dict(open=socket.subprotocol)), flush=True)
        async def send():
            loop = asyncio.get_running_loop()
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                await socket.send(line)
        sending = asyncio.create_task(send())
        try:
            async for message in socket:
                print(message, flush=True)
        except websockets.ConnectionClosedError:
            pass
        print(json.dumps(dict(code=socket.close_code, reason=socket.close_reason)), flush=True)
        import os
        os._exit(0)

asyncio.run(main(*sys.argv[1:]))
"#;

struct Client {
    lines: Lines<BufReader<ChildStdout>>,
    input: ChildStdin,
    _program: Child,
}

/// The way of a client to a node.
#[derive(Clone, Copy)]
enum By<'a> {
    Plain,
    Tls,
    Nginx(&'a Nginx),
}

impl Client {
    async fn open(node: &Node, by: By<'_>, query: &str) -> Self {
        let (scheme, place, certificate) = match by {
            By::Nginx(nginx) => ("wss", nginx.address, nginx.trusted()),
            By::Tls => {
                let address = node.tls.expect("TLS");
                ("wss", address, tls::authority().await.path())
            }
            By::Plain => ("ws", node.public.tcp(), String::new()),
        };
        let url = format!("{scheme}://{NAME}/status/ws?{query}");
        let python = holdfast_testkit::python();
        let mut command = Command::new(python);
        let (host, port) = (place.ip().to_string(), place.port().to_string());
        command.args(["-c", CLIENT, &url, &host, &port, &certificate]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = command.kill_on_drop(true).spawn().expect("python3");
        let output = program.stdout.take().expect("piped");
        let mut client = Self {
            lines: BufReader::new(output).lines(),
            input: program.stdin.take().expect("piped"),
            _program: program,
        };
        assert_eq!(client.next().await, json!({"open": "holdfast.v1"}));
        client
    }

    async fn next(&mut self) -> Value {
        let line = timeout(2 * PATIENCE, self.lines.next_line())
            .await
            .expect("in time");
        serde_json::from_str(&line.unwrap().expect("a line")).expect("JSON")
    }

    async fn send(&mut self, text: &str) {
        self.input
            .write_all(format!("{text}\n").as_bytes())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_client_that_nobody_here_wrote_hears_its_keys_with_tls_and_nginx_and_without() {
    let args = ["--allow-origin", "https://shop.example.com"];
    let mut node = Node::start(&[&args[..], &tls::flags().await].concat()).await;
    let nginx = Nginx::start([&node.public]).await;
    let mut clients = Vec::new();
    for (by, [a, b]) in [
        (By::Plain, ["a", "b"]),
        (By::Nginx(&nginx), ["c", "d"]),
        (By::Tls, ["e", "f"]),
    ] {
        let mut client = Client::open(&node, by, &format!("key={a}")).await;
        client.send(&json!({"watch": b}).to_string()).await;
        for key in [b, a, b] {
            node.wait_key_waiters(key, 1).await;
            let version = node.set_ok(key, "[1]").await;
            let message = client.next().await;
            assert_eq!(
                (&message["key"], &message["version"]),
                (&json!(key), &json!(version))
            );
        }
        client.send("{}").await;
        assert_eq!(client.next().await, json!({}));
        for key in [a, b] {
            node.wait_key_waiters(key, 1).await;
            node.delete_ok(key).await;
            assert_eq!(client.next().await["code"], -4);
        }
        client.send(r#"{"watch":"drained"}"#).await;
        clients.push(client);
    }
    node.wait_key_waiters("drained", 3).await;
    node.signal("TERM").await;
    for mut client in clients {
        let closed = client.next().await;
        assert_eq!(closed["code"], 1001, "{closed}");
        assert!(
            closed["reason"]
                .as_str()
                .is_some_and(|reason| reason.starts_with("retry_after_ms="))
        );
    }
    assert!(node.wait_exit().await.success());
}

#[tokio::test]
async fn nginx_passes_on_a_refusal_and_what_is_no_upgrade() {
    let node = Node::start(&["--allow-origin", "https://shop.example.com"]).await;
    let nginx = Nginx::start([&node.public]).await;
    let foreign = [&UPGRADE[..], &[("origin", "https://other.example.com")]].concat();
    for (headers, status) in [(Vec::new(), 426), (foreign, 403)] {
        let lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let headers = lines.iter().flat_map(|line| ["-H", line]);
        let args: Vec<_> = std::iter::once("--http1.1").chain(headers).collect();
        assert_eq!(nginx.ask("/status/ws?key=k", &args).await.status, status);
    }
    node.quiet().await;
}
