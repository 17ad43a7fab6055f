//! One get: its checks, and what its page is answered.

mod held;
pub(crate) mod params;
mod templated;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tracing::{debug, info, warn};

pub(crate) use self::held::HeldGet;
pub(super) use self::held::{OPEN_GRACE, refused};
use self::params::{BadForm, Params, Target};
use self::wanted::Wanted;
use crate::cluster::recovery::Recovery;
use crate::http::origin::{AllowOrigin, Grant};
use crate::http::refusal::{Forbidden, Refusal};
use crate::http::response::{self, Response};
use crate::log::Seldom;
use crate::metrics::{GetEnd, Limit, Metrics};
use crate::model::key::Key;
use crate::model::mistake::{Fault, Mistake};
use crate::model::signing::{Admitted, KeyRejection, Signing};
use crate::model::status::{Outcome, Version};
use crate::net::connection::Handling;
use crate::page::answer;
use crate::page::returning::Returning;
use crate::page::script::Prefix;
use crate::page::socket_limits::SocketLimits;
use crate::runtime::clock::{MAX_AHEAD, system_ms};
use crate::runtime::renewable::Renewable;
use crate::runtime::shutdown::Drain;
use crate::store::Store;
use crate::waiters::{Full, Waiters};

/// The parts of the node that gets need.
#[derive(Debug)]
pub(crate) struct GetHandler {
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    /// The recovery; present if nodes share the store.
    pub(crate) recovery: Option<Arc<Recovery>>,
    pub(crate) drain: Drain,
    pub(crate) returning: Returning,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hold: Duration,
    /// The longest life of a stream.
    pub(crate) stream_life: Duration,
    pub(crate) sockets: SocketLimits,
    /// The check of keys' signatures, if keys have to be signed.
    pub(crate) signing: Option<Arc<Renewable<Signing>>>,
    /// The beginning that names of callbacks and variables must have.
    pub(crate) callback_prefix: Prefix,
    pub(crate) resource_policy: HeaderValue,
    pub(crate) allow_origin: AllowOrigin,
    pub(crate) refused_keys: RefusedKeys,
}

/// A limit on the log lines about keys that are refused, for each reason.
#[derive(Debug)]
pub(crate) struct RefusedKeys([Seldom; KeyRejection::ALL.len()]);

impl Default for RefusedKeys {
    fn default() -> Self {
        Self(KeyRejection::ALL.map(|_| Seldom::each(Duration::from_secs(60))))
    }
}

impl RefusedKeys {
    /// Logs why a key is refused, at most once a minute. Its page hears only that it is gone.
    fn log(&self, why: KeyRejection) {
        // `ALL` has the reasons in their order.
        let Some(left_out) = self.0[why as usize].admit() else {
            return;
        };
        match why {
            KeyRejection::Unsigned => warn!(
                left_out,
                "refused a page's key: it is not signed (--key-secret-file); let the page wait with a key of POST /keys"
            ),
            KeyRejection::Forged => warn!(
                left_out,
                "refused a page's key: no secret of --key-secret-file has signed it"
            ),
            // A page that stays open for long does nothing wrong.
            KeyRejection::Expired => info!(left_out, "refused a page's key: it has expired"),
        }
    }
}

impl GetHandler {
    /// Checks a request's parameters, in the order that docs/contract.md gives. A get that passes
    /// is held. `may_get` says whether its client's address may ask now.
    pub(crate) fn begin(
        self: &Arc<Self>,
        query: &str,
        headers: &HeaderMap,
        may_get: bool,
    ) -> Handling<Response, HeldGet> {
        let grant = self.allow_origin.grant(headers);
        let params = Params::parse(query);
        let form = match params.form(&self.callback_prefix) {
            _ if params.wants_script() && would_be_shown(headers) => {
                return self.refuse(
                    Fault::WouldBeShown,
                    grant.apply(response::refusal(&Refusal::Forbidden(
                        Forbidden::WouldBeShown,
                    ))),
                );
            }
            Err(BadForm) => {
                return self.refuse(Fault::NoCallback, answer::bad_form(&self.resource_policy));
            }
            Ok(form) => form,
        };
        self.hold(
            Wanted::Plain(form),
            grant,
            params.target(self.hold),
            may_get,
        )
    }

    /// Checks the content of a request, which is answered in this form. A get that passes is held.
    fn hold(
        self: &Arc<Self>,
        wanted: Wanted,
        grant: Grant,
        target: Result<Target, (Mistake, Option<Version>)>,
        may_get: bool,
    ) -> Handling<Response, HeldGet> {
        let answer = |outcome: &Outcome, last| {
            let retry_after = self.retry_after_ms(outcome, Instant::now());
            wanted.answer(&grant, outcome, last, retry_after, &self.resource_policy)
        };
        if !may_get {
            let last = match &target {
                Ok(target) => target.last,
                Err((_, last)) => last.unwrap_or_default(),
            };
            self.metrics.get_ended(GetEnd::Busy);
            debug!(outcome = GetEnd::Busy.as_str(), "get ended");
            return Handling::Answer(answer(&Outcome::Busy, last));
        }
        let Target { key, last, wait } = match target {
            Ok(target) => target,
            Err((mistake, last)) => {
                let what = mistake.what();
                let last = last.unwrap_or_default();
                return self.refuse(what, answer(&Outcome::Invalid(mistake), last));
            }
        };
        match self.admit(key) {
            Ok(Admitted { id: key, left }) => {
                let (handler, since) = (Arc::clone(self), Instant::now());
                let ends_with_key = left.is_some_and(|left| left <= wait);
                let wait = left.map_or(wait, |left| left.min(wait));
                // A fraction of a millisecond does not matter, and a hold is ten minutes at
                // most.
                let wait_ms = wait.as_millis().try_into().unwrap_or(u32::MAX);
                let ignores_last = !self.may_be_given(last);
                Handling::Park(HeldGet {
                    handler,
                    key,
                    last,
                    ignores_last,
                    wait_ms,
                    ends_with_key,
                    wanted,
                    grant,
                    since,
                })
            }
            Err(why) => self.refuse_key(why, answer(&Outcome::Gone(last), last)),
        }
    }

    /// Returns the time after which the page of a get that came at `since` is to ask again, in
    /// milliseconds, if this outcome makes it ask again after a while.
    pub(super) fn retry_after_ms(&self, outcome: &Outcome, since: Instant) -> Option<u64> {
        let after_ms = || self.returning.after_ms(since, self.waiters.len());
        answer::comes_again(outcome).then(after_ms)
    }

    /// Returns whether a node may have given a page this version. A version that no node gave
    /// must neither hide the key's status nor raise the key's versions.
    pub(super) fn may_be_given(&self, last: Version) -> bool {
        last == Version::NONE || last.get() <= self.store.clock_ms().saturating_add(MAX_AHEAD)
    }

    pub(super) fn admit(&self, key: Key) -> Result<Admitted, KeyRejection> {
        match &self.signing {
            Some(signing) => signing.current().admit(key, system_ms()),
            None => Ok(Admitted {
                id: key,
                left: None,
            }),
        }
    }

    /// Counts a key that was refused, and logs it at most once a minute for each reason.
    pub(super) fn note_refused_key(&self, why: KeyRejection) {
        self.metrics.key_refused(why);
        self.refused_keys.log(why);
    }

    /// Counts a waiter that was not registered because a limit is reached.
    pub(super) fn count_full(&self, full: Full) {
        self.metrics.limit_hit(match full {
            Full::Node => Limit::Waiters,
            Full::Key => Limit::WaitersPerKey,
        });
    }

    fn refuse_key(&self, why: KeyRejection, response: Response) -> Handling<Response, HeldGet> {
        self.metrics.get_ended(GetEnd::Gone);
        self.note_refused_key(why);
        debug!(
            outcome = GetEnd::Gone.as_str(),
            why = why.as_str(),
            "get ended"
        );
        Handling::Answer(response)
    }

    fn refuse(&self, what: Fault, response: Response) -> Handling<Response, HeldGet> {
        self.metrics.get_ended(GetEnd::Invalid);
        debug!(outcome = GetEnd::Invalid.as_str(), %what, "get ended");
        Handling::Answer(response)
    }
}

/// Returns whether a browser would show the answer as a page, or embed it as one. The answer
/// would then run with our origin's rights, or show a user what somebody else wrote into the
/// URL. Pages cannot forge this header.
fn would_be_shown(headers: &HeaderMap) -> bool {
    const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
    let shown: [&[u8]; 5] = [b"document", b"iframe", b"frame", b"object", b"embed"];
    headers
        .get_all(SEC_FETCH_DEST)
        .iter()
        .any(|dest| shown.contains(&dest.as_bytes()))
}
