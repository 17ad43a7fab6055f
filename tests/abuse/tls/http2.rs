//! What a connection of HTTP/2 keeps of the answers that it has brought.

use std::sync::Arc;

use rustls::ClientConfig;

use super::TlsNode;
use super::raw::Raw;

/// The preface, empty settings, and `GET / HTTP/2` on stream 1 (RFC 9113, 3.4 and 6.2).
const GET: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x15\x01\x05\x00\x00\x00\x01\
    \x82\x84\x87\x41\x10push.example.com";
/// The name `date` of a field that is not to be kept (RFC 7541, 6.2.3). Its value follows.
const UNKEPT_DATE: &[u8] = &[0x1f, 33 - 15];

#[tokio::test]
async fn the_date_of_an_answer_is_not_kept_for_later_answers() {
    let node = TlsNode::start(&["--http2"]).await;
    let mut client = ClientConfig::clone(&node.client);
    client.alpn_protocols = vec![b"h2".to_vec()];
    let mut raw = Raw::connect(node.address, &Arc::new(client)).await;
    raw.send(GET).await;
    raw.read_until(UNKEPT_DATE).await;
    drop(raw);
    node.quiet().await;
}
