//! The internal listener: its routes, and what backends, peers and operators ask for. No get here, no callback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::time::timeout;
use tracing::{Instrument, debug, info_span};

use crate::auth::{self, Tokens};
use crate::channel;
use crate::error::{Mistake, Refusal, What};
use crate::head;
use crate::health::Health;
use crate::key::Key;
use crate::listener::Address;
use crate::metrics::{Metrics, SetEnd};
use crate::query::{Plus, decode};
use crate::receipt::{Delivered, Looked, Receipt, Report};
use crate::response::{self, Response, code, json};
use crate::router::Router;
use crate::server::Request;
use crate::set::{self, Set, Sets};
use crate::status::{Status, Update};
use crate::store::{Known, Put, Store, StoreError};
use crate::waiters::Waiters;

#[derive(Clone, Copy, Debug)]
enum Route {
    Set,
    Channel,
    Look,
    Forget,
    Live,
    Ready,
    Path,
    Metrics,
}

impl Route {
    /// As logs tell it: the table's path, never the request's, in which a key may stand.
    const fn path(self) -> &'static str {
        match self {
            Self::Set => "/status/set",
            Self::Channel => "/channel/set",
            Self::Look | Self::Forget => "/keys/{key}",
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Path => "/health/path",
            Self::Metrics => "/metrics",
        }
    }

    /// Load balancers and alarms ask these, and have no token.
    const fn is_health(self) -> bool {
        matches!(self, Self::Live | Self::Ready | Self::Path)
    }

    fn table() -> Router<Self> {
        let row = |route: Self, method| (route.path(), vec![(method, route)]);
        Router::new([
            row(Self::Set, Method::POST),
            row(Self::Channel, Method::POST),
            (Self::Look.path(), vec![(Method::GET, Self::Look), (Method::DELETE, Self::Forget)]),
            row(Self::Live, Method::GET),
            row(Self::Ready, Method::GET),
            row(Self::Path, Method::GET),
            row(Self::Metrics, Method::GET),
        ])
    }
}

/// What the internal listener needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) node: String,
    pub(crate) address: Address,
    pub(crate) store: Arc<Store>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) tokens: Tokens,
    pub(crate) limits: set::Limits,
    pub(crate) max_body_bytes: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) status_ttl: Duration,
    pub(crate) log_lines_dropped: Box<dyn LinesDropped>,
}

/// Tells how many log lines were thrown away so far.
pub(crate) trait LinesDropped: Fn() -> usize + Send + Sync {}
impl<F: Fn() -> usize + Send + Sync> LinesDropped for F {}

impl std::fmt::Debug for dyn LinesDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinesDropped")
    }
}

/// What the internal listener answers with.
#[derive(Debug)]
pub(crate) struct Internal {
    routes: Router<Route>,
    parts: Parts,
}

impl Internal {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { routes: Route::table(), parts })
    }

    /// Answers one request.
    ///
    /// # Cancel safety
    /// Dropped, because the client left, a set or delete that has begun is carried out all the same.
    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let routed = self.route(&request);
        let route = routed.as_ref().map_or("none", |(route, _)| route.path());
        let span = info_span!("request", listener = "internal", route);
        let reads_body = matches!(routed, Ok((Route::Set | Route::Channel, _)));
        let leaves_body = !reads_body && !request.body().is_end_stream();
        let answer = async {
            match routed {
                Ok((route, key)) => self.handle(route, key, request).await,
                Err(refusal) => Err(refusal),
            }
        };
        let response = answer.instrument(span.clone()).await.unwrap_or_else(|refusal| {
            span.in_scope(|| debug!(refusal = refusal.logged(), "refused"));
            response::refusal(&refusal)
        });
        // A body that was not asked for is not worth reading.
        if leaves_body { response::closing(response) } else { response }
    }

    fn route(&self, request: &Request) -> Result<(Route, Option<Key>), Refusal> {
        head::check(request)?;
        head::check_coding(request.headers())?;
        let (route, params) = self.routes.find(request.method(), request.uri().path())?;
        auth::refuse_pages(request.headers())?;
        if !route.is_health() {
            self.parts.tokens.check(request.headers())?;
        }
        Ok((route, params.get("key").map(parse_path_key).transpose()?))
    }

    async fn handle(self: Arc<Self>, route: Route, key: Option<Key>, request: Request) -> Result<Response, Refusal> {
        match (route, key) {
            (Route::Set, _) => self.set(request).await,
            (Route::Channel, _) => self.channel(request).await,
            (Route::Look, Some(key)) => Ok(self.look(&key).await),
            (Route::Forget, Some(key)) => Ok(finish(async move { self.forget(&key).await }).await),
            (Route::Look | Route::Forget, None) => Err(Refusal::NotFound),
            (Route::Live, _) => Ok(Report::well(Some(&self.parts.node))),
            (Route::Ready, _) if self.parts.health.ready() => Ok(Report::well(None)),
            (Route::Ready, _) => Ok(Report::unwell(None)),
            (Route::Path, _) => Ok(match self.parts.health.path() {
                Ok(()) => Report::well(None),
                Err(parts) => Report::unwell(Some(parts)),
            }),
            (Route::Metrics, _) => {
                let Parts { waiters, metrics, log_lines_dropped, .. } = &self.parts;
                let text = metrics.text(waiters.len(), waiters.keys(), log_lines_dropped());
                Ok(response::file(Metrics::CONTENT_TYPE, text.into()))
            }
        }
    }

    async fn set(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let body = self.body(request).await.inspect_err(|_| self.parts.metrics.set_ended(SetEnd::Invalid))?;
        let content_type = content_type.as_ref().map(HeaderValue::as_bytes);
        let sets = set::parse(&body, content_type, self.parts.limits)
            .inspect_err(|_| self.parts.metrics.set_ended(SetEnd::Invalid))?;
        drop(body);
        Ok(finish(async move {
            match sets {
                Sets::One(set) => self.put(set).await.into_response(),
                Sets::Many(sets) => {
                    let mut receipts = Vec::with_capacity(sets.len());
                    for set in sets {
                        receipts.push(self.put(set).await);
                    }
                    Receipt::all_into_response(receipts)
                }
            }
        })
        .await)
    }

    /// Stores a status, then gives it to the key's waiters: in this order, see `get`'s argument. Only what is stored
    /// is delivered: what the backend is told did not happen, no page sees.
    async fn put(&self, set: Set) -> Receipt {
        let Set { key, value, ttl, is_final, after } = set;
        let put = Put { value: value.clone(), is_final, ttl: ttl.unwrap_or(self.parts.status_ttl), after };
        let receipt = match self.parts.store.put(&key, put).await {
            Ok(version) => self.deliver(&key, &Update::Status(Status { version, value, is_final })),
            Err(error) => self.failed(error),
        };
        self.parts.metrics.set_ended(receipt.end());
        debug!(key = %key.hashed(), result = receipt.end().as_str(), delivered = receipt.delivered(), "set");
        receipt
    }

    async fn forget(&self, key: &Key) -> Response {
        let receipt = match self.parts.store.forget(key).await {
            Ok(version) => self.deliver(key, &Update::Gone(version)),
            Err(error) => self.failed(error),
        };
        debug!(key = %key.hashed(), result = receipt.end().as_str(), delivered = receipt.delivered(), "deleted");
        receipt.into_response()
    }

    fn deliver(&self, key: &Key, update: &Update) -> Receipt {
        Receipt::stored(update.version(), self.parts.waiters.deliver(key, update))
    }

    fn failed(&self, error: StoreError) -> Receipt {
        Receipt::failed(error, response::retry_after_ms(self.parts.waiters.len()))
    }

    async fn channel(&self, request: Request) -> Result<Response, Refusal> {
        let body = self.body(request).await?;
        let (to, updates) = channel::parse(&body)?;
        if to != self.parts.node {
            return Err(Refusal::Misdirected);
        }
        let delivered = updates.iter().map(|(key, update)| self.parts.waiters.deliver(key, update)).collect();
        Ok(json(StatusCode::OK, &Delivered { code: code::SUCCESS, delivered }))
    }

    async fn look(&self, key: &Key) -> Response {
        let known = match self.parts.store.look(key).await {
            Ok(known) => known,
            Err(error) => return self.failed(error).into_response(),
        };
        let held = self.parts.waiters.count(key);
        let is_status = matches!(known, Some(Known { update: Update::Status(_), .. }));
        if !is_status && held == 0 {
            return response::refusal(&Refusal::NotFound);
        }
        let waiters = (held > 0).then(|| (self.name(), held)).into_iter().collect();
        json(StatusCode::OK, &Looked::new(key, known.as_ref(), waiters))
    }

    /// This node as its leases call it.
    fn name(&self) -> String {
        match &self.parts.address {
            Address::Tcp(address) => format!("{}@http://{address}", self.parts.node),
            unix @ Address::Unix(_) => format!("{}@{unix}", self.parts.node),
        }
    }

    /// Reads a body within its limits.
    async fn body(&self, request: Request) -> Result<Bytes, Refusal> {
        let max = self.parts.max_body_bytes;
        if request.body().size_hint().lower() > max as u64 {
            return Err(Refusal::BodyTooLong(max));
        }
        match timeout(self.parts.body_timeout, Limited::new(request.into_body(), max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLong(max)),
            Ok(Err(_)) => Err(Refusal::BodyBroken),
            Err(_) => Err(Refusal::BodyTooSlow),
        }
    }
}

/// Percent-decodes a key that stood in a path.
fn parse_path_key(raw: &str) -> Result<Key, Mistake> {
    let text = decode(raw.as_bytes(), Plus::Literal).ok_or(What::BadEncoding);
    text.and_then(|text| Key::parse(&text)).map_err(|what| Mistake::new("key", what))
}

/// Carries out to its end what must not be left half done: a backend that hangs up after its set was stored would
/// else leave the key's waiters unwoken.
async fn finish(work: impl Future<Output = Response> + Send + 'static) -> Response {
    tokio::spawn(work.in_current_span()).await.expect("the work is not aborted, and its panic is this request's")
}
