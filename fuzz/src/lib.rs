//! What fuzzing checks: a module for each of the places where strangers' bytes are read, with one function `check` that
//! panics where a promise of README.md does not hold for its input.
//!
//! `fuzz_targets/` feeds them from libFuzzer; `tests/integration/fuzz.rs` from `fixtures/fuzz/`, in each `make test`. What is
//! right is said here a second time, from README.md and by other means than in `src/`: by regular expressions, by a
//! tree of JSON, by a reader of the few scripts that we write.

pub mod callback;
pub mod channel_body;
mod grammar;
mod js;
mod json;
pub mod key;
pub mod peer_answer;
pub mod query;
pub mod redis_reply;
pub mod script;
pub mod set_body;

pub use grammar::RESERVED;
