//! The checks that fuzzing runs. Each place that reads untrusted bytes has a module here. Its
//! function `check` panics if a promise of README.md does not hold for its input.
//!
//! `fuzz_targets/` feeds inputs from libFuzzer to the checks. `tests/abuse/fuzz.rs` feeds them
//! those of `fixtures/fuzz/`, in each `make test`. These modules state a second time what is
//! right, from README.md and by other means than in `src/`: by regular expressions, by a tree
//! of JSON, and by a reader of the few scripts that holdfast writes.

pub mod callback;
pub mod channel_body;
mod grammar;
mod js;
mod json;
pub mod key;
pub mod peer_answer;
pub mod proxy_header;
pub mod query;
pub mod redis_reply;
pub mod script;
pub mod set_body;
pub mod socket_frames;
pub mod socket_message;
pub mod tls_stream;
pub mod wire;

pub use grammar::RESERVED;
