//! The part of HTTP/2 (RFC 9113) that `curl` cannot do: it gives up one request while others
//! wait on.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use holdfast_testkit::nginx::{NAME, Tunnel};
use holdfast_testkit::{Nginx, PATIENCE};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The error code for a request that is not wanted any more.
const CANCEL: u32 = 8;

/// A browser's connection.
pub(super) struct Http2 {
    tunnel: Tunnel,
}

impl Http2 {
    pub(super) async fn open(nginx: &Nginx) -> Self {
        let mut tunnel = nginx.tunnel("h2");
        tunnel
            .input
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut page = Self { tunnel };
        page.send(SETTINGS, 0, 0, &[]).await;
        page
    }

    /// Asks for `target`, of at most 126 bytes, on a new stream. Its number is odd and greater
    /// than all before.
    pub(super) async fn get(&mut self, stream: u32, target: &str) {
        // HPACK (RFC 7541): entries 2 and 7 of its table are `:method: GET` and
        // `:scheme: https`. Then come values for the names of entries 4 (`:path`) and 1
        // (`:authority`), neither compressed nor indexed.
        let literal =
            |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
        let fields = [vec![0x82, 0x87], literal(4, target), literal(1, NAME)].concat();
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &fields)
            .await;
    }

    /// Gives up a request, as a browser does when its page is closed and another page uses the
    /// same connection.
    pub(super) async fn give_up(&mut self, stream: u32) {
        self.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
            .await;
    }

    /// Returns the body that comes on `stream`.
    pub(super) async fn body(&mut self, stream: u32) -> String {
        let mut body = Vec::new();
        loop {
            let (kind, flags, of, payload) = timeout(PATIENCE, self.read())
                .await
                .expect("a frame in time");
            assert_ne!((kind, of), (RST_STREAM, stream));
            if (kind, of) == (DATA, stream) {
                body.extend(payload);
            }
            if of == stream && flags & END_STREAM != 0 && kind <= HEADERS {
                return String::from_utf8(body).unwrap();
            }
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.tunnel.input.write_all(&frame).await.unwrap();
        self.tunnel.input.flush().await.unwrap();
    }

    async fn read(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        self.tunnel
            .output
            .read_exact(&mut head)
            .await
            .expect("the connection stays open");
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.tunnel
            .output
            .read_exact(&mut payload)
            .await
            .expect("a whole frame");
        (kind, flags, u32::from_be_bytes([s0, s1, s2, s3]), payload)
    }
}
