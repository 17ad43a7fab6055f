//! A get through a template of another service's wire: its parameters and its checks. It is held
//! like any other get.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;

use super::params::{BadForm, Target, spread};
use super::wanted::Wanted;
use super::{GetHandler, HeldGet, would_be_shown};
use crate::http::query::{Given, Plus, fields};
use crate::http::refusal::{Forbidden, Refusal};
use crate::http::response::{self, Response};
use crate::model::key::Key;
use crate::model::mistake::{Fault, named};
use crate::model::status::Version;
use crate::net::connection::Handling;
use crate::page::answer;
use crate::page::script::{Callback, Prefix};
use crate::page::wire::{Asked, LastIs, Template};

/// The parameters of a get through a template, as they were given. All others are ignored.
#[derive(Debug, Default)]
struct TemplateParams<'a> {
    key: Given<'a>,
    callback: Given<'a>,
    last: Given<'a>,
}

impl<'a> TemplateParams<'a> {
    fn parse(wire: &Template, query: &'a str) -> Self {
        let mut params = Self::default();
        let last = wire.last().map(|(name, _)| name);
        for (name, value) in fields(query.as_bytes(), Plus::Literal) {
            let name = name.as_deref();
            let given = if name == Some(wire.key()) {
                &mut params.key
            } else if name.is_some() && name == wire.callback() {
                &mut params.callback
            } else if name.is_some() && name == last {
                &mut params.last
            } else {
                continue;
            };
            given.add(value);
        }
        params
    }

    /// Returns the callback, if the template has a parameter for it.
    ///
    /// # Errors
    /// Fails if the callback is missing or wrong, or does not begin with `prefix`.
    fn callback(&self, wire: &Template, prefix: &Prefix) -> Result<Option<Callback>, BadForm> {
        match &self.callback {
            _ if wire.callback().is_none() => Ok(None),
            Given::Once(name) if prefix.allows(name) => {
                Callback::parse(name).map(Some).ok_or(BadForm)
            }
            _ => Err(BadForm),
        }
    }

    /// Returns the text by which the page says what it knows. An empty one says nothing.
    fn last(&self) -> Result<Option<&str>, Fault> {
        Ok(self.last.optional()?.filter(|text| !text.is_empty()))
    }
}

impl GetHandler {
    /// Checks a request through a template, in the order sec-fetch-dest, callback, key, last. A get
    /// that passes is held. `may_get` says whether its client's address may ask now.
    pub(crate) fn begin_wire(
        self: &Arc<Self>,
        wire: &Arc<Template>,
        query: &str,
        headers: &HeaderMap,
        may_get: bool,
    ) -> Handling<Response, HeldGet> {
        let grant = self.allow_origin.grant(headers);
        if would_be_shown(headers) {
            let refused = response::refusal(&Refusal::Forbidden(Forbidden::WouldBeShown));
            return self.refuse(Fault::WouldBeShown, grant.apply(refused));
        }
        let params = TemplateParams::parse(wire, query);
        let Ok(callback) = params.callback(wire, &self.callback_prefix) else {
            return self.refuse(Fault::NoCallback, answer::bad_form(&self.resource_policy));
        };
        let is = wire.last().map(|(_, is)| is);
        let last = named("last", params.last());
        let code = match &last {
            Ok(code) if is == Some(LastIs::Code) => *code,
            _ => None,
        };
        let asked = Asked::new(Arc::clone(wire), callback, code);
        let version = last.and_then(|last| match last {
            Some(text) if is == Some(LastIs::Version) => {
                named("last", Version::parse_last(text).ok_or(Fault::NotAVersion))
            }
            _ => Ok(Version::NONE),
        });
        let key = named("key", params.key.required().and_then(Key::parse));
        let hold = wire.hold_seconds().map_or(self.hold, |seconds| {
            Duration::from_secs(seconds.into()).min(self.hold)
        });
        let target = match (key, version) {
            (Ok(key), Ok(last)) => Ok(Target {
                key,
                last,
                wait: spread(hold),
            }),
            (Err(mistake), last) => Err((mistake, last.ok())),
            (_, Err(mistake)) => Err((mistake, None)),
        };
        self.hold(Wanted::Wire(Box::new(asked)), grant, target, may_get)
    }
}
