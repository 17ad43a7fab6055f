//! `POST /keys`: makes a signed key, for an id that the backend gives or for a new one. Pure,
//! apart from the random bytes of a new id.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::backend::set::parse_ttl;
use crate::http::json_members::{FormMembers, MembersOf, Names, is_form, read_json, string};
use crate::http::refusal::Refusal;
use crate::http::response::{Response, code, json};
use crate::model::key::Key;
use crate::model::mistake::{Fault, named};
use crate::model::signing::{Signing, is_id};
use crate::runtime::clock::millis;

/// The number of random bytes in a new id.
const ID_BYTES: usize = 16;
/// The members that a request may have.
const MEMBERS: Names<2> = &["id", "ttl"];

/// A key to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Issue {
    id: Key,
    /// The time for which the key is good.
    ttl: Duration,
}

impl Issue {
    /// Reads a body: a JSON object, a form, or nothing. A key is good for `default_ttl` if its
    /// request gives no time.
    ///
    /// # Errors
    /// Returns the first mistake, in the order id, ttl, or [`Refusal::UnknownMediaType`] if the
    /// body is neither JSON nor a form.
    pub(crate) fn parse(
        body: &[u8],
        content_type: Option<&[u8]>,
        default_ttl: Duration,
    ) -> Result<Self, Refusal> {
        let (id, ttl) = match body.trim_ascii_start().first() {
            None => (Ok(None), Ok(None)),
            Some(b'{') => {
                let [id, ttl] =
                    read_json(body, MembersOf(MEMBERS), Fault::NotAnObject)?.values()?;
                let id = id
                    .map(|raw| string(raw, Fault::NotAnId).map(|id| id.into_owned()))
                    .transpose();
                (id, Ok(ttl.map(RawValue::get).map(str::to_owned)))
            }
            Some(_) if is_form(content_type) => {
                let form = FormMembers::parse(body, MEMBERS);
                let [id, ttl] = form.unless_no_form("id= or ttl=")?.values()?;
                let owned = |text: Option<&str>| text.map(str::to_owned);
                (id.optional().map(owned), ttl.optional().map(owned))
            }
            Some(_) => return Err(Refusal::UnknownMediaType),
        };
        let id = id.and_then(|id| id.map_or_else(|| Ok(new_id()), |id| parse_id(&id)));
        let ttl = ttl.and_then(|text| text.as_deref().map(parse_ttl).transpose());
        Ok(Self {
            id: named("id", id)?,
            ttl: named("ttl", ttl)?.unwrap_or(default_ttl),
        })
    }

    /// Makes the key at `now`, in milliseconds since 1970, and returns the answer with it.
    pub(crate) fn answer(&self, signing: &Signing, now: u64) -> Response {
        let expires_in_ms = millis(self.ttl);
        issued(
            &self.id,
            signing.sign(&self.id, now + expires_in_ms),
            expires_in_ms,
        )
    }
}

/// Returns the answer with a key that was made.
pub(crate) fn issued(id: &Key, key: String, expires_in_ms: u64) -> Response {
    #[derive(Serialize)]
    struct Issued<'a> {
        code: i32,
        message: &'static str,
        id: &'a str,
        key: String,
        expires_in_ms: u64,
    }
    let (code, message) = (code::SUCCESS, code::message(code::SUCCESS));
    json(
        StatusCode::OK,
        &Issued {
            code,
            message,
            id: id.as_str(),
            key,
            expires_in_ms,
        },
    )
}

fn new_id() -> Key {
    let id = BASE64URL_NOPAD.encode(&rand::random::<[u8; ID_BYTES]>());
    Key::parse(&id).expect("base64url is printable")
}

fn parse_id(text: &str) -> Result<Key, Fault> {
    if is_id(text) {
        Key::parse(text)
    } else {
        Err(Fault::NotAnId)
    }
}
