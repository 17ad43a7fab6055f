//! The internal listener: its routes, and the requests of backends, peers and operators. No get
//! here, no callback.

use std::borrow::Cow;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either};
use futures_util::stream::{self, StreamExt};
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, debug_span, warn};

use crate::backend::issue::Issue;
use crate::backend::receipt::{self, KeyWaiters, Receipt, Report};
use crate::backend::set::{self, Sets};
use crate::backend::writer::{Writer, finish};
use crate::cluster::delivery::Delivery;
use crate::cluster::message::{self, Message, Missed};
use crate::dashboard::{Dashboard, Page, shows_pages};
use crate::health::{self, Health};
use crate::http::auth::{self, Hosts, Tokens};
use crate::http::body_budget::{BodyBudget, Taken};
use crate::http::body_text;
use crate::http::head::{self, Request};
use crate::http::query::{Plus, decode, fields};
use crate::http::refusal::{NoToken, Refusal};
use crate::http::response::{self, Response, code, json};
use crate::http::router::Router;
use crate::log::Seldom;
use crate::metrics::{Metrics, Now, SetEnd};
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::mistake::{Fault, Mistake, named};
use crate::model::signing::Signing;
use crate::model::status::Update;
use crate::net::clients::Clients;
use crate::runtime::clock::{millis, system_ms};
use crate::runtime::renewable::Renewable;
use crate::store::{Known, Snapshot};

/// The least length up to which messages of other nodes are accepted, however short the bodies
/// of sets must be.
const MIN_CHANNEL_BYTES: usize = 1024 * 1024;
const CHANNEL_MARGIN_BYTES: usize = 4096;
/// The number of nodes that are asked side by side for their waiters of a key.
const ASKED_AT_ONCE: usize = 64;
/// The number of updates that are delivered before other connections of this core have their
/// turn, because each may write several answers.
const AT_ONE_GO: usize = 16;
/// The time between two log lines about clients that have to be set up in another way.
const A_MINUTE: Duration = Duration::from_secs(60);
/// The beginnings of the public listener's paths, apart from those of templates.
const PUBLIC_PATHS: [&str; 6] = [
    "/status/get",
    "/status/events",
    "/status/ws",
    "/holdfast",
    "/healthz",
    "/demo",
];

#[derive(Clone, Copy, Debug)]
enum Route {
    Set,
    Channel,
    Issue,
    Key,
    Forget,
    Live,
    Ready,
    Path,
    Metrics,
    Nodes,
    Page,
    /// The page, for a browser that sends no good token: the page asks for one. It is in no
    /// table.
    AskToken,
}

impl Route {
    /// Returns the path as logs name it: the table's path, never that of the request, which may
    /// contain a key.
    const fn path(self) -> &'static str {
        match self {
            Self::Set => "/status/set",
            Self::Channel => "/channel/set",
            Self::Issue => "/keys",
            Self::Key | Self::Forget => "/keys/{key}",
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Path => "/health/path",
            Self::Metrics => "/metrics",
            Self::Nodes => "/nodes",
            Self::Page | Self::AskToken => "/",
        }
    }

    /// Returns whether the route needs no token: load balancers and alarms have none.
    const fn is_health(self) -> bool {
        matches!(self, Self::Live | Self::Ready | Self::Path)
    }

    /// Returns whether the answer reveals state and so needs the check of the host against DNS
    /// rebinding. Health does not, because monitors ask by any name: see
    /// [`Internal::may_read_addresses`]. A set does not, because browsers add an `origin` to
    /// it.
    const fn reveals_state(self) -> bool {
        matches!(self, Self::Key | Self::Nodes | Self::Page)
    }

    fn table(signs_keys: bool) -> Router<Self> {
        let row = |route: Self, method| (route.path(), vec![(method, route)]);
        // Many checks of health ask by HEAD.
        let checked = |route: Self| {
            let methods = vec![(Method::GET, route), (Method::HEAD, route)];
            (route.path(), methods)
        };
        let mut table = vec![
            row(Self::Set, Method::POST),
            row(Self::Channel, Method::POST),
            (
                Self::Key.path(),
                vec![(Method::GET, Self::Key), (Method::DELETE, Self::Forget)],
            ),
            checked(Self::Live),
            checked(Self::Ready),
            checked(Self::Path),
            checked(Self::Metrics),
            row(Self::Nodes, Method::GET),
            row(Self::Page, Method::GET),
        ];
        table.extend(signs_keys.then(|| row(Self::Issue, Method::POST)));
        Router::new(table)
    }
}

/// The parts that the internal listener is made of.
#[derive(Debug)]
pub(crate) struct InternalParts {
    pub(crate) node: String,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) dashboard: Arc<Dashboard>,
    pub(crate) tokens: Arc<Renewable<Tokens>>,
    /// The names by which the listener may be called if there are no tokens.
    pub(crate) hosts: Hosts,
    /// Signs keys; present if all keys have to be signed.
    pub(crate) signing: Option<Arc<Renewable<Signing>>>,
    pub(crate) limits: set::SetLimits,
    pub(crate) max_body_bytes: usize,
    /// Room for the bodies of sets.
    pub(crate) set_bodies: BodyBudget,
    /// Room for the messages of other nodes, which sets cannot use up.
    pub(crate) channel_bodies: BodyBudget,
    pub(crate) body_timeout: Duration,
    /// The clients' addresses that have limits.
    pub(crate) clients: Arc<Clients>,
    pub(crate) log_lines_dropped: Box<dyn LinesDropped>,
}

/// A function that returns how many log lines were thrown away so far.
pub(crate) trait LinesDropped: Fn() -> usize + Send + Sync {}
impl<F: Fn() -> usize + Send + Sync> LinesDropped for F {}

impl std::fmt::Debug for dyn LinesDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinesDropped")
    }
}

/// The handler of the internal listener's requests.
#[derive(Debug)]
pub(crate) struct Internal {
    routes: Router<Route>,
    page: Page,
    parts: InternalParts,
    /// Limits the log lines about requests by an unknown name: pages of strangers can cause
    /// very many.
    unknown_hosts: Seldom,
    /// Limits the log lines about bodies for which there is no room.
    no_room: Seldom,
    /// Limits the log lines about requests that web pages send.
    from_pages: Seldom,
    /// Limits the log lines about requests without a good token, for each [`NoToken`].
    without_token: [Seldom; NoToken::COUNT],
}

impl Internal {
    pub(crate) fn new(parts: InternalParts) -> Arc<Self> {
        let routes = Route::table(parts.signing.is_some());
        Arc::new(Self {
            routes,
            page: Page::default(),
            parts,
            unknown_hosts: Seldom::new(),
            no_room: Seldom::new(),
            from_pages: Seldom::each(A_MINUTE),
            without_token: [const { Seldom::each(A_MINUTE) }; NoToken::COUNT],
        })
    }

    /// Answers one request.
    ///
    /// # Cancel safety
    /// If it is dropped because the client left, a set or deletion that has begun is carried
    /// out all the same.
    pub(crate) fn answer(
        self: &Arc<Self>,
        request: Request,
    ) -> Either<Ready<Response>, BoxFuture<'static, Response>> {
        let routed = self.route(&request);
        let route = routed.as_ref().map_or("none", |(route, _)| route.path());
        let span = debug_span!("request", listener = "internal", route);
        let reads_body = matches!(routed, Ok((Route::Set | Route::Channel | Route::Issue, _)));
        let leaves_body = !reads_body && !request.body().is_end_stream();
        let metrics = Arc::clone(&self.parts.metrics);
        // A body that the route does not use is not read: the connection is closed instead.
        let end = move |answer: Result<Response, Refusal>| {
            let response = answer.unwrap_or_else(|refusal| {
                metrics.refused(refusal.limit(), refusal.drops());
                debug!(refusal = refusal.logged(), "refused");
                response::refusal(&refusal)
            });
            if leaves_body {
                response::closing(response)
            } else {
                response
            }
        };
        let inner = Arc::clone(self);
        let answer: BoxFuture<'static, _> = match routed {
            Ok((Route::Set, _)) => Box::pin(async move { end(inner.set(request).await) }),
            Ok((Route::Channel, _)) => Box::pin(async move { end(inner.channel(request).await) }),
            Ok((Route::Issue, _)) => Box::pin(async move { end(inner.issue(request).await) }),
            Ok((Route::Key, Some(key))) => {
                Box::pin(async move { end(inner.key(&key, request.uri().query()).await) })
            }
            Ok((Route::Nodes, _)) => {
                Box::pin(async move { end(inner.nodes(request.uri().query()).await) })
            }
            Ok((Route::Forget, Some(key))) => {
                Box::pin(async move { end(Ok(inner.forget(key).await)) })
            }
            Ok((route, _)) => {
                return Either::Left(ready(
                    span.in_scope(|| end(self.answer_at_once(route, request.headers()))),
                ));
            }
            Err(refusal) => return Either::Left(ready(span.in_scope(|| end(Err(refusal))))),
        };
        Either::Right(if span.is_disabled() {
            answer
        } else {
            Box::pin(answer.instrument(span))
        })
    }

    fn route(&self, request: &Request) -> Result<(Route, Option<Key>), Refusal> {
        head::check(request)?;
        head::check_coding(request.headers())?;
        let path = request.uri().path();
        let (route, params) = self
            .routes
            .find(request.method(), path)
            .map_err(|refusal| explain(refusal, path))?;
        auth::refuse_pages(request.headers())
            .inspect_err(|refusal| log_refused(&self.from_pages, refusal))?;
        if !route.is_health() {
            match self.parts.tokens.current().check(request.headers()) {
                Err(_) if matches!(route, Route::Page) && shows_pages(request.headers()) => {
                    return Ok((Route::AskToken, None));
                }
                checked => {
                    checked.inspect_err(|refusal| self.log_without_token(refusal))?;
                }
            }
        }
        if route.reveals_state() && self.parts.tokens.current().first().is_none() {
            self.parts
                .hosts
                .check(request.headers())
                .inspect_err(|_| self.log_unknown_host())?;
        }
        Ok((
            route,
            params
                .get("key")
                .map(|raw| self.parse_key(raw))
                .transpose()?,
        ))
    }

    /// Logs why a request shows no good token. One reason leaves out no line about another.
    fn log_without_token(&self, refusal: &Refusal) {
        if let Refusal::Unauthorized(reason) = refusal {
            log_refused(&self.without_token[*reason as usize], refusal);
        }
    }

    /// Logs a request by an unknown name, and how a backend may call this listener by that
    /// name.
    fn log_unknown_host(&self) {
        if let Some(left_out) = self.unknown_hosts.admit() {
            warn!(
                left_out,
                "refused: unknown host name; give --internal-token-file, or --internal-host NAME"
            );
        }
    }

    fn answer_at_once(&self, route: Route, headers: &HeaderMap) -> Result<Response, Refusal> {
        let answer = |health: Result<(), Option<health::PathReport>>| match health {
            Ok(()) => Report::well(None),
            Err(Some(parts)) if !self.may_read_addresses(headers) => {
                Report::unwell(Some(parts.without_addresses()))
            }
            Err(parts) => Report::unwell(parts),
        };
        match route {
            Route::Live => Ok(Report::well(Some(&self.parts.node))),
            Route::Ready => Ok(answer(self.parts.health.ready())),
            Route::Path => Ok(answer(self.parts.health.path().map_err(Some))),
            Route::Metrics => {
                self.parts.delivery.store.set_gauges();
                let text = self.parts.metrics.text(&self.now());
                Ok(response::file(Metrics::CONTENT_TYPE, text.into()))
            }
            Route::Page => Ok(self.page.answer()),
            Route::AskToken => Ok(response::unauthorized(self.page.answer())),
            // `answer` handles these by itself: they read a body, have a key, or ask other
            // nodes.
            Route::Set
            | Route::Channel
            | Route::Issue
            | Route::Key
            | Route::Forget
            | Route::Nodes => Err(Refusal::NotFound),
        }
    }

    /// Returns whether the answer to a health request may contain the addresses of other nodes.
    /// A site that gives its own name this listener's address can read the answers, and must
    /// not learn a way into the network.
    fn may_read_addresses(&self, headers: &HeaderMap) -> bool {
        let InternalParts { tokens, hosts, .. } = &self.parts;
        let tokens = tokens.current();
        hosts.check(headers).is_ok() || (tokens.first().is_some() && tokens.check(headers).is_ok())
    }

    /// Collects the values that the metrics ask for when they are read.
    fn now(&self) -> Now {
        let InternalParts {
            delivery,
            writer,
            health,
            clients,
            log_lines_dropped,
            ..
        } = &self.parts;
        let Delivery { waiters, peers, .. } = &**delivery;
        let [peers, peer_queue, missed] = peers.queued();
        let recovery = &writer.recovery;
        Now {
            waiters: waiters.len(),
            waiters_limit: waiters.max(),
            waiting_keys: waiters.keys(),
            client_addresses: clients.count(),
            peers,
            peer_queue,
            missed,
            confirmed: recovery
                .as_ref()
                .map_or(0, |recovery| recovery.kept_count()),
            is_ready: health.ready().is_ok(),
            is_path_healthy: health.path().is_ok(),
            log_lines_dropped: log_lines_dropped(),
        }
    }

    async fn set(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let [content_type, coding] = described(request.headers());
        let body = self
            .body(request, self.parts.max_body_bytes, &self.parts.set_bodies)
            .await;
        let (body, taken) = body.inspect_err(|refusal| {
            let is_busy = *refusal == Refusal::NoRoom;
            if is_busy {
                self.parts.metrics.unavailable(Cause::InboundBytes);
                if let Some(left_out) = self.no_room.admit() {
                    let cause = Cause::InboundBytes.as_str();
                    warn!(
                        cause,
                        left_out, "refused a set: no room for its body (--max-inbound-bytes)"
                    );
                }
            }
            self.parts.metrics.set_ended(if is_busy {
                SetEnd::Busy
            } else {
                SetEnd::Invalid
            });
        })?;
        let content_type = content_type.as_ref().map(HeaderValue::as_bytes);
        let text = body_text::of(&body, coding.as_ref());
        let sets = text
            .and_then(|text| set::parse(text, content_type, self.parts.limits))
            .inspect_err(|_| self.parts.metrics.set_ended(SetEnd::Invalid))?;
        drop(body);
        let writer = Arc::clone(&self.parts.writer);
        Ok(finish(async move {
            // The body keeps its room until the set is done, even if the client has left by
            // then.
            let _taken = taken;
            match sets {
                Sets::One(set) => writer.put(set).await.into_response(),
                Sets::Many(sets) => Receipt::all_into_response(writer.put_all(sets).await),
            }
        })
        .await)
    }

    /// Makes a key for a page.
    async fn issue(&self, request: Request) -> Result<Response, Refusal> {
        let signing = self.parts.signing.as_ref().ok_or(Refusal::NotFound)?;
        let [content_type, coding] = described(request.headers());
        let (body, _taken) = self
            .body(request, self.parts.max_body_bytes, &self.parts.set_bodies)
            .await?;
        let content_type = content_type.as_ref().map(HeaderValue::as_bytes);
        let text = body_text::of(&body, coding.as_ref())?;
        let issue = Issue::parse(text, content_type, self.parts.writer.status_ttl)?;
        Ok(issue.answer(&signing.current(), system_ms()))
    }

    async fn forget(&self, key: Key) -> Response {
        let writer = Arc::clone(&self.parts.writer);
        finish(async move { writer.forget(&key).await.into_response() }).await
    }

    async fn channel(&self, request: Request) -> Result<Response, Refusal> {
        let came = Instant::now();
        // Enough for the batches of other nodes, and for values as long as a set's body may
        // bring them, with what surrounds them in a message.
        let max = max_channel_bytes(self.parts.max_body_bytes);
        let (body, _taken) = self.body(request, max, &self.parts.channel_bodies).await?;
        let Message {
            to,
            updates,
            missed,
            missed_by,
            kept,
            had_by,
        } = message::parse(&body)?;
        if to != self.parts.node {
            return Err(Refusal::Misdirected);
        }
        let (writer, delivery) = (&self.parts.writer, &self.parts.delivery);
        if let Some(missed) = missed {
            writer.missed(missed);
        }
        match missed_by {
            Some(missed_by) if missed_by.node == delivery.name => writer.missed(missed_by.missed),
            Some(missed_by) => delivery.peers.add_missed(missed_by),
            None => {}
        }
        let recovery = writer.recovery.as_ref();
        let kept = recovery.map_or(0, |recovery| recovery.keep(kept, &had_by));
        let waiters = &delivery.waiters;
        let given_up = recovery.map(|_| self.given_up());
        let (mut delivered, mut late) = (Vec::with_capacity(updates.len()), Vec::new());
        for (index, (key, update, age)) in updates.iter().enumerate() {
            if index % AT_ONE_GO == AT_ONE_GO - 1 {
                yield_now().await;
            }
            if given_up.is_some_and(|given_up| update.version().get() < given_up) {
                late.push(key.clone());
                delivered.push(0);
                continue;
            }
            let since = age.and_then(|age| came.checked_sub(age));
            delivered.push(waiters.deliver_since(key, update, since));
        }
        if !late.is_empty() {
            writer.missed(Missed::Keys(late));
        }
        let store = self.parts.health.renews();
        Ok(json(
            StatusCode::OK,
            &message::Answer {
                code: code::SUCCESS,
                delivered,
                store,
                kept,
            },
        ))
    }

    /// Returns the version below which an update is so old that its sender has given it up. It has
    /// been in a socket while this node stood still, for example. The key may have a newer status
    /// by now, or may be deleted, and an answered set or deletion must not be followed by an older
    /// status. So such an update is not delivered, and its key is opened in the store.
    fn given_up(&self) -> u64 {
        let Delivery { store, peers, .. } = &*self.parts.delivery;
        store.clock_ms().saturating_sub(millis(peers.timeout()))
    }

    /// Answers with what is known of a key, and with its waiters. Nodes ask each other with
    /// `?node=<id>`: the answer then has only this node's waiters. If this is not that node,
    /// the request is refused.
    async fn key(&self, key: &Key, query: Option<&str>) -> Result<Response, Refusal> {
        let snapshot = match self.is_asked_alone(query)? {
            true => Snapshot::default(),
            false => match self.parts.delivery.store.read(key).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    let receipt = self.parts.writer.failed(error);
                    debug!(key = %key.hashed(), cause = receipt.cause(), "not read");
                    return Ok(receipt.into_response());
                }
            },
        };
        let held = self.held(key, &snapshot.leases).await;
        let is_status = matches!(
            snapshot.known,
            Some(Known {
                update: Update::Status(_),
                ..
            })
        );
        if !is_status && held.waiters.is_empty() && held.unreachable.is_empty() {
            return Err(Refusal::NotFound);
        }
        Ok(json(
            StatusCode::OK,
            &receipt::KeyReport::new(key, snapshot.known.as_ref(), held),
        ))
    }

    /// Answers with the report of this node and, unless it is asked alone, with those of its
    /// peers. With `?samples=N` each report has at most `N` samples. `?node=` without an id
    /// asks whichever node receives it alone.
    async fn nodes(&self, query: Option<&str>) -> Result<Response, Refusal> {
        let samples = parameter(query, "samples")
            .flatten()
            .and_then(|samples| samples.parse().ok());
        let samples = samples.unwrap_or(usize::MAX);
        let dashboard = &self.parts.dashboard;
        let is_any = parameter(query, "node")
            .flatten()
            .is_some_and(|node| node.is_empty());
        Ok(if is_any || self.is_asked_alone(query)? {
            dashboard.own(samples)
        } else {
            dashboard.all(samples).await
        })
    }

    /// Returns whether `?node=<id>` asks for what this node alone knows.
    fn is_asked_alone(&self, query: Option<&str>) -> Result<bool, Refusal> {
        match parameter(query, "node") {
            None => Ok(false),
            Some(node) if node.as_deref() == Some(&self.parts.node) => Ok(true),
            Some(_) => Err(Refusal::Misdirected),
        }
    }

    /// Counts the waiters of a key: those of this node, and those that the other nodes with
    /// leases report.
    async fn held(&self, key: &Key, leases: &[Lease]) -> KeyWaiters {
        let Delivery {
            name,
            waiters,
            peers,
            nodes,
            ..
        } = &*self.parts.delivery;
        let others = leases.iter().filter(|lease| lease.name != *name);
        let asked: Vec<_> = others
            .map(async |lease| (lease, peers.count(lease, key).await))
            .collect();
        let mut counts = stream::iter(asked).buffered(ASKED_AT_ONCE);
        let mut held = KeyWaiters::default();
        while let Some((lease, count)) = counts.next().await {
            match count {
                Ok(0) => {}
                Ok(count) => drop(held.waiters.insert(lease.name.clone(), count)),
                Err(error) => {
                    let (_, url) = lease.node_and_url();
                    debug!(%error, peer = url, "a node did not report its waiters");
                    if nodes.is_listed(&lease.name) {
                        held.unreachable.push(url.to_owned());
                    }
                }
            }
        }
        let here = waiters.count(key) as u64;
        if here > 0 {
            held.waiters.insert(name.clone(), here);
        }
        held
    }

    /// Percent-decodes and parses the key in a path.
    fn parse_key(&self, raw: &str) -> Result<Key, Mistake> {
        let text = decode(raw.as_bytes(), Plus::Literal).ok_or(Fault::BadEncoding);
        named("key", text.and_then(|text| self.parts.limits.key(&text)))
    }

    /// Reads a body within its limits.
    async fn body(
        &self,
        request: Request,
        max: usize,
        room: &BodyBudget,
    ) -> Result<(Vec<u8>, Taken), Refusal> {
        if request.body().size_hint().lower() > max as u64 {
            return Err(Refusal::BodyTooLong(max));
        }
        let read = timeout(self.parts.body_timeout, room.read(request.into_body(), max)).await;
        read.unwrap_or(Err(Refusal::BodyTooSlow))
    }
}

/// Returns whether a path is a route of this listener, but not whether keys are signed. `/` is
/// not counted: it is the beginning of each site.
pub(crate) fn has_route(path: &str) -> bool {
    let routes = [
        Route::Set,
        Route::Channel,
        Route::Issue,
        Route::Live,
        Route::Ready,
        Route::Path,
        Route::Metrics,
        Route::Nodes,
    ];
    let is_key = path
        .strip_prefix("/keys/")
        .is_some_and(|key| !key.is_empty() && !key.contains('/'));
    is_key || routes.iter().any(|route| route.path() == path)
}

/// Returns whether a path is one of the public listener.
pub(crate) fn is_public(path: &str) -> bool {
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with(['/', '.', '-']);
    PUBLIC_PATHS
        .iter()
        .any(|public| path.strip_prefix(public).is_some_and(is_below))
}

/// Returns the refusal of a request for `path`, with the reason why it is not found if that is
/// known.
fn explain(refusal: Refusal, path: &str) -> Refusal {
    match refusal {
        Refusal::NotFound if path == Route::Issue.path() => Refusal::NoSecrets,
        Refusal::NotFound if is_public(path) => Refusal::OtherListener("public"),
        other => other,
    }
}

/// Logs why a client is refused that was set up in a wrong way, at most once a minute.
fn log_refused(seldom: &Seldom, refusal: &Refusal) {
    if let Some(left_out) = seldom.admit() {
        warn!(left_out, "refused on the internal listener: {refusal}");
    }
}

/// Returns the type and the content coding that a request gives its body.
fn described(headers: &HeaderMap) -> [Option<HeaderValue>; 2] {
    [CONTENT_TYPE, CONTENT_ENCODING].map(|name| headers.get(name).cloned())
}

/// Returns the longest message that another node may send, if the bodies of sets have this
/// limit.
pub(crate) fn max_channel_bytes(max_body_bytes: usize) -> usize {
    max_body_bytes.max(MIN_CHANNEL_BYTES) + CHANNEL_MARGIN_BYTES
}

/// Returns the value of the first parameter with this name, if there is one. The inner `None`
/// is a value whose encoding is bad.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Option<Cow<'a, str>>> {
    fields(query.unwrap_or_default().as_bytes(), Plus::Literal)
        .find_map(|(given, value)| (given.as_deref() == Some(name)).then_some(value))
}
