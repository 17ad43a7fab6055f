//! **holdfast** holds a page's `<script>` request fast until the status it waits for is set: a page on any origin
//! inserts `<script src="https://push.example.com/status/get?key=K&callback=cb">`, the server keeps the GET open, a
//! backend calls `set` on the internal listener, and the script arrives and calls `cb({...})`.
//!
//! # The life of a get
//! [`server`] accepts, and [`connection`] has hyper parse; [`public`] routes; [`get`] checks the parameters
//! ([`query`], [`key`], [`script`]). Then the connection leaves hyper and is parked ([`park`]), while its get registers a
//! waiter ([`waiters`]), opens the key ([`store`]) and waits for a status, its deadline or the drain. Whoever ends the
//! wait has [`response`] render the outcome as a call, an assignment or JSON, and writes it; the next request is hyper's.
//!
//! # The life of a set
//! [`internal`] routes; [`set`] parses and checks all of the body; [`writer`] has it stored and delivered: [`store`]
//! stores it in one atomic step and says which nodes hold waiters; [`delivery`] answers those of this node ([`waiters`])
//! and tells the others ([`peers`]); the backend gets its [`receipt`].
//!
//! # Signed keys
//! With secrets a get names a key that [`signing`] checks before anything else is asked; what is waited for, set and looked
//! for is its id.
//!
//! # What pages load
//! [`library`] is `holdfast.js`, which does for a page what it would else write itself; with `--demo`, [`demo`] is a login
//! by QR code to try. What browsers get of them is in `src/web/`.
//!
//! # Several nodes
//! They share a Redis ([`store::redis`]) that keeps statuses, and binds each key to the nodes that wait for it. What
//! it forgets, or misses while it is gone, is put right by [`recovery`]. It lists the nodes, too, so that each knows the
//! others ([`nodes`]).
//!
//! # Words
//! A *key* is what is waited for. A *status* is what is known under it: a *value*, its *version*, *final* or not. A
//! *waiter* is one held get, the *hold* how long it may wait, a *drain* a shutdown that leaves nobody waiting. A *peer*
//! is another node, a *lease* says that a node holds waiters of a key.
//! README.md has them all, and every promise; this crate keeps them.

pub mod advertise;
pub mod app;
pub mod auth;
pub mod channel;
pub mod clock;
pub mod config;
mod connection;
mod delivery;
mod demo;
pub mod error;
mod expiring;
mod exposure;
mod get;
mod head;
mod health;
mod inbound;
mod inside;
mod internal;
pub mod key;
pub mod lease;
mod library;
pub mod listener;
pub mod log;
mod members;
pub mod metrics;
mod nodes;
mod object;
mod park;
mod peers;
mod public;
pub mod query;
mod receipt;
mod recovery;
pub mod response;
mod router;
pub mod script;
mod self_wakes;
mod server;
pub mod set;
mod sharded;
pub mod shutdown;
pub mod signing;
pub mod status;
mod stop;
pub mod store;
mod streak;
mod stream;
mod timer;
pub mod waiters;
mod writer;

/// What reads the words of strangers and is nobody's outside of this crate: public for `fuzz/` alone, which checks it.
#[doc(hidden)]
pub mod fuzzed {
    pub use crate::get::params::{BadForm, Params, Target};
    pub use crate::peers::parse_count;
    pub use crate::store::redis::reply::{parse_known, parse_looked, parse_stored};
}
