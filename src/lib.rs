//! **holdfast** holds a page's `<script>` request until the status it waits for is set. A page
//! on any origin inserts
//! `<script src="https://push.example.com/status/get?key=K&callback=cb">`, and the server keeps
//! the GET open. When a backend calls `set` on the internal listener, the script arrives at once
//! and calls `cb({...})`.
//!
//! # The life of a get
//! 1. [`net::server`] accepts the connection, and [`net::connection`] has hyper parse the
//!    request.
//! 2. [`public`] routes it.
//! 3. [`page::get`] checks its parameters ([`http::query`], [`model::key`], [`page::script`]).
//!    Then hyper gives back the connection, and it is parked ([`net::parked`]).
//! 4. [`wait`] registers a waiter ([`waiters`]), opens the key ([`store`]) and waits for a
//!    status, the deadline or the drain.
//! 5. [`page::answer`] renders the outcome as a call, an assignment or JSON. Either the task that
//!    delivers the status writes the answer, or the connection's own task does: see
//!    [`runtime::right_to_answer`].
//!
//! Over HTTP/2, [`net::http2_connection`] has h2 parse the requests of a connection. A get is then
//! parked on its stream ([`net::http2`]), and the connection goes on with the others.
//!
//! Then hyper reads the next request of the connection. An event stream ([`page::events`]) waits
//! again and again instead, and writes each status to its connection ([`net::flow`]). So does a
//! WebSocket ([`page::socket`]) for each of its keys, by messages ([`net::socket`]).
//!
//! # The life of a set
//! [`internal`] routes the request, and [`backend::set`] parses and checks its whole body.
//! [`backend::writer`] has the status stored and delivered. [`store`] stores it in one atomic
//! step and returns the nodes that hold waiters of the key. [`cluster::delivery`] delivers to
//! the waiters of this node ([`waiters`]) and sends the update to the other nodes
//! ([`cluster::peers`]). The backend gets its [`backend::receipt`].
//!
//! # Signed keys
//! If there are secrets, the key of a get must be signed. [`model::signing`] checks it before the
//! get is registered. Waiters and statuses are kept under the id in the signed key.
//!
//! # Files that pages load
//! [`page::client_library`] serves `holdfast.js`, a library that spares pages code of their own.
//! With `--demo`, [`demo`] serves a demo: a login by QR code. The files that browsers get are in
//! `src/web/`.
//!
//! # Wires of other services
//! With `--wire`, a get may have the path and the parameters of another service's poll. A template
//! ([`page::wire`]) says how each of its ends is answered.
//!
//! # Several nodes
//! Several nodes share a Redis ([`store::Shared`], [`store::redis`]). It keeps the statuses, a
//! lease of each node for each key that the node waits for, and the list of nodes
//! ([`cluster::membership`]). After an outage, [`cluster::recovery`] opens keys again and restores
//! the statuses that Redis has lost.
//!
//! # Words
//! A *key* is what a page waits for. A *status* is what is known under a key: a *value* with
//! its *version*, *final* or not. A *waiter* is one held get. The *hold* is how long a waiter
//! may wait. A *drain* is a shutdown that leaves nobody waiting. A *peer* is another node. A
//! *lease* says that a node holds waiters of a key.
//! docs/contract.md defines all the words, and every promise that this crate keeps.

// The layers, lowest first. A module imports only from its own layer and from the layers before
// it, and never in a circle. A test checks the imports.

pub mod model;

pub mod runtime;

pub mod log;
pub mod metrics;
pub mod waiters;

pub mod http;
pub mod store;

pub mod net;

pub mod cluster;

mod wait;

mod health;

pub mod backend;
pub mod page;

pub mod config;
mod dashboard;
mod demo;
mod internal;

mod public;

pub mod app;

/// Parsers of untrusted input. They are public only so that `fuzz/` can check them: no other
/// crate uses them.
#[doc(hidden)]
pub mod fuzzed {
    pub use crate::cluster::peers::parse_count;
    pub use crate::net::proxies::{client as proxied_client, missing as missing_of_proxy_header};
    pub use crate::net::socket::frames::{CloseCode, Frames, MAX_MESSAGE_BYTES, Received};
    pub use crate::net::tls::stream::TlsStream;
    pub use crate::page::get::params::{BadForm, Params, Target};
    pub use crate::page::socket::message::{BadMessage, Command};
    pub use crate::page::wire::{Asked, LastIs, Template};
    pub use crate::store::redis::reply::{
        Late, Written, parse_known, parse_snapshot, parse_written,
    };
}
