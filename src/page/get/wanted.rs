//! The form in which a page wants the answer to its get.

use hyper::header::HeaderValue;

use crate::http::origin::Grant;
use crate::http::response::Response;
use crate::metrics::Wire;
use crate::model::status::{Outcome, Status, Version};
use crate::page::answer;
use crate::page::script::Form;
use crate::page::wire::Asked;

/// The form in which a page wants the answer to its get.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The answer of holdfast's own wire.
    Plain(Form),
    /// The script of a template. Boxed, so that every held get stays small.
    Wire(Box<Asked>),
}

impl Wanted {
    /// Renders an outcome. See [`answer::answer`].
    pub(super) fn answer(
        &self,
        grant: &Grant,
        outcome: &Outcome,
        last: Version,
        retry_after: Option<u64>,
        policy: &HeaderValue,
    ) -> Response {
        match self {
            Self::Plain(form) => answer::answer(form, grant, outcome, last, retry_after, policy),
            Self::Wire(asked) => answer::templated(asked, outcome, last, policy),
        }
    }

    /// Returns whether the page knows a status already, although its version is new: see
    /// [`Asked::knows`].
    pub(super) fn knows(&self, status: &Status) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Wire(asked) => asked.knows(&status.value),
        }
    }

    /// Returns the wire, as metrics name it.
    pub(super) const fn wire(&self) -> Wire {
        match self {
            Self::Plain(Form::Jsonp(_)) => Wire::Jsonp,
            Self::Plain(Form::Assignment(_)) => Wire::Assignment,
            Self::Plain(Form::Json) => Wire::Json,
            Self::Wire(_) => Wire::Template,
        }
    }

    /// Returns the path of the get, as logs name it.
    pub(super) fn route(&self) -> &str {
        match self {
            Self::Plain(_) => "/status/get",
            Self::Wire(asked) => asked.path(),
        }
    }
}
