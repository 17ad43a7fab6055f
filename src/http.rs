//! Building blocks for every request and answer, whatever it is about: routes, heads, queries,
//! bodies, tokens, origins, refusals. No sockets, no store, no waiters.

pub mod auth;
pub(crate) mod body;
pub(crate) mod body_budget;
pub(crate) mod body_text;
pub(crate) mod content_coding;
pub(crate) mod head;
pub(crate) mod json_members;
pub(crate) mod json_object;
pub mod origin;
pub mod query;
pub mod refusal;
pub mod response;
pub(crate) mod router;
