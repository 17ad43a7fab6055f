//! The internal listener: its routes, and what backends, peers and operators ask for. No get here, no callback.

use std::borrow::Cow;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, join_all};
use futures_util::stream::{self, StreamExt};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, debug_span, warn};

use crate::auth::{self, Hosts, Tokens};
use crate::channel;
use crate::clock::system_ms;
use crate::connection::Request;
use crate::delivery::Delivery;
use crate::error::{Mistake, Refusal, What, named};
use crate::head;
use crate::health::{self, Health};
use crate::inbound::{Inbound, Taken};
use crate::inside::{Inside, Page, shows_pages};
use crate::key::Key;
use crate::lease::Lease;
use crate::metrics::{Metrics, Now, SetEnd};
use crate::query::{Plus, decode, fields};
use crate::receipt::{self, Held, Receipt, Report, Told};
use crate::response::{self, Response, code, json};
use crate::router::Router;
use crate::set::{self, Sets};
use crate::signing::{Issue, Signing};
use crate::status::Update;
use crate::store::{Known, Looked};
use crate::writer::{Writer, finish};

/// Other nodes' messages are taken up to this, however small bodies of sets have to be.
const MIN_CHANNEL_BYTES: usize = 1024 * 1024;
const CHANNEL_MARGIN_BYTES: usize = 4096;
/// Nodes that are asked side by side who waits for a key there.
const ASKED_AT_ONCE: usize = 64;
/// Updates that are delivered before other connections of this core have their turn: each may write some answers.
const AT_ONE_GO: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Route {
    Set,
    Channel,
    Issue,
    Look,
    Forget,
    Live,
    Ready,
    Path,
    Metrics,
    Nodes,
    Page,
    /// The page, for who shows no good token: it asks for one. In no table.
    AskToken,
}

impl Route {
    /// As logs tell it: the table's path, never the request's, in which a key may stand.
    const fn path(self) -> &'static str {
        match self {
            Self::Set => "/status/set",
            Self::Channel => "/channel/set",
            Self::Issue => "/keys",
            Self::Look | Self::Forget => "/keys/{key}",
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Path => "/health/path",
            Self::Metrics => "/metrics",
            Self::Nodes => "/nodes",
            Self::Page | Self::AskToken => "/",
        }
    }

    /// Load balancers and alarms ask these, and have no token.
    const fn is_health(self) -> bool {
        matches!(self, Self::Live | Self::Ready | Self::Path)
    }

    /// What is told is no stranger's page's to read. How the node does, monitors ask by any name; and what a page sends, it
    /// sends with its origin.
    const fn tells(self) -> bool {
        matches!(self, Self::Look | Self::Nodes | Self::Page)
    }

    fn table(signs_keys: bool) -> Router<Self> {
        let row = |route: Self, method| (route.path(), vec![(method, route)]);
        let mut table = vec![
            row(Self::Set, Method::POST),
            row(Self::Channel, Method::POST),
            (Self::Look.path(), vec![(Method::GET, Self::Look), (Method::DELETE, Self::Forget)]),
            row(Self::Live, Method::GET),
            row(Self::Ready, Method::GET),
            row(Self::Path, Method::GET),
            row(Self::Metrics, Method::GET),
            row(Self::Nodes, Method::GET),
            row(Self::Page, Method::GET),
        ];
        table.extend(signs_keys.then(|| row(Self::Issue, Method::POST)));
        Router::new(table)
    }
}

/// What the internal listener needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) node: String,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) inside: Arc<Inside>,
    pub(crate) tokens: Tokens,
    /// By what names it is called, where there are no tokens.
    pub(crate) hosts: Hosts,
    /// Where all keys are signed.
    pub(crate) signing: Option<Arc<Signing>>,
    pub(crate) limits: set::Limits,
    pub(crate) max_body_bytes: usize,
    /// Room for the bodies of sets.
    pub(crate) set_bodies: Inbound,
    /// And for other nodes' messages, which sets cannot take.
    pub(crate) channel_bodies: Inbound,
    pub(crate) body_timeout: Duration,
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
    page: Page,
    parts: Parts,
    /// See [`Internal::tell_of_hosts`].
    told_of_hosts: AtomicBool,
}

impl Internal {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let routes = Route::table(parts.signing.is_some());
        Arc::new(Self { routes, page: Page::default(), parts, told_of_hosts: AtomicBool::new(false) })
    }

    /// Answers one request.
    ///
    /// # Cancel safety
    /// Dropped, because the client left, a set or delete that has begun is carried out all the same.
    pub(crate) fn answer(self: &Arc<Self>, request: Request) -> Either<Ready<Response>, BoxFuture<'static, Response>> {
        let routed = self.route(&request);
        let route = routed.as_ref().map_or("none", |(route, _)| route.path());
        let span = debug_span!("request", listener = "internal", route);
        let reads_body = matches!(routed, Ok((Route::Set | Route::Channel | Route::Issue, _)));
        let leaves_body = !reads_body && !request.body().is_end_stream();
        let metrics = Arc::clone(&self.parts.metrics);
        // A body that was not asked for is not worth reading.
        let end = move |answer: Result<Response, Refusal>| {
            let response = answer.unwrap_or_else(|refusal| {
                metrics.refused(refusal.limit(), refusal.drops());
                debug!(refusal = refusal.logged(), "refused");
                response::refusal(&refusal)
            });
            if leaves_body { response::closing(response) } else { response }
        };
        let inner = Arc::clone(self);
        let answer: BoxFuture<'static, _> = match routed {
            Ok((Route::Set, _)) => Box::pin(async move { end(inner.set(request).await) }),
            Ok((Route::Channel, _)) => Box::pin(async move { end(inner.channel(request).await) }),
            Ok((Route::Issue, _)) => Box::pin(async move { end(inner.issue(request).await) }),
            Ok((Route::Look, Some(key))) => Box::pin(async move { end(inner.look(&key, request.uri().query()).await) }),
            Ok((Route::Nodes, _)) => Box::pin(async move { end(inner.nodes(request.uri().query()).await) }),
            Ok((Route::Forget, Some(key))) => Box::pin(async move { end(Ok(inner.forget(key).await)) }),
            Ok((route, _)) => return Either::Left(ready(span.in_scope(|| end(self.answer_at_once(route))))),
            Err(refusal) => return Either::Left(ready(span.in_scope(|| end(Err(refusal))))),
        };
        Either::Right(if span.is_disabled() { answer } else { Box::pin(answer.instrument(span)) })
    }

    fn route(&self, request: &Request) -> Result<(Route, Option<Key>), Refusal> {
        head::check(request)?;
        head::check_coding(request.headers())?;
        let (route, params) = self.routes.find(request.method(), request.uri().path())?;
        auth::refuse_pages(request.headers())?;
        if !route.is_health() {
            match self.parts.tokens.check(request.headers()) {
                Err(_) if matches!(route, Route::Page) && shows_pages(request.headers()) => {
                    return Ok((Route::AskToken, None));
                }
                checked => checked?,
            }
        }
        if route.tells() && self.parts.tokens.first().is_none() {
            self.parts.hosts.check(request.headers()).inspect_err(|_| self.tell_of_hosts())?;
        }
        Ok((route, params.get("key").map(|raw| self.parse_key(raw)).transpose()?))
    }

    /// Tells once how a backend is called by a name that is not known. Pages of strangers must not fill the log.
    fn tell_of_hosts(&self) {
        if !self.told_of_hosts.swap(true, Ordering::Relaxed) {
            warn!("refused: called by a name that is not known; give --internal-token-file, or --internal-host NAME");
        }
    }

    fn answer_at_once(&self, route: Route) -> Result<Response, Refusal> {
        match route {
            Route::Live => Ok(Report::well(Some(&self.parts.node))),
            Route::Ready => Ok(match self.parts.health.ready() {
                Ok(()) => Report::well(None),
                Err(parts) => Report::unwell(parts),
            }),
            Route::Path => Ok(match self.parts.health.path() {
                Ok(()) => Report::well(None),
                Err(parts) => Report::unwell(Some(parts)),
            }),
            Route::Metrics => {
                let text = self.parts.metrics.text(&self.now());
                Ok(response::file(Metrics::CONTENT_TYPE, text.into()))
            }
            Route::Page => Ok(self.page.answer()),
            Route::AskToken => Ok(response::unauthorized(self.page.answer())),
            // These read a body, have a key, or ask others.
            Route::Set | Route::Channel | Route::Issue | Route::Look | Route::Forget | Route::Nodes => {
                Err(Refusal::NotFound)
            }
        }
    }

    /// What the metrics ask.
    fn now(&self) -> Now {
        let Parts { delivery, writer, health, log_lines_dropped, .. } = &self.parts;
        let Delivery { waiters, peers, store, .. } = &**delivery;
        let (peers, peer_queue) = peers.queued();
        let (doubted, confirmed) = writer.recovery.queued();
        Now {
            waiters: waiters.len(),
            waiters_limit: waiters.max(),
            waiting_keys: waiters.keys(),
            peers,
            peer_queue,
            doubted,
            confirmed,
            is_ready: health.ready().is_ok(),
            is_path_healthy: health.path().is_ok(),
            log_lines_dropped: log_lines_dropped(),
            store: store.now(),
        }
    }

    async fn set(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let body = self.body(request, self.parts.max_body_bytes, &self.parts.set_bodies).await;
        let (body, taken) = body.inspect_err(|refusal| {
            let is_busy = *refusal == Refusal::NoRoom;
            self.parts.metrics.set_ended(if is_busy { SetEnd::Busy } else { SetEnd::Invalid });
        })?;
        let content_type = content_type.as_ref().map(HeaderValue::as_bytes);
        let sets = set::parse(&body, content_type, self.parts.limits)
            .inspect_err(|_| self.parts.metrics.set_ended(SetEnd::Invalid))?;
        drop(body);
        let writer = Arc::clone(&self.parts.writer);
        Ok(finish(async move {
            // To the end, also where the client is gone by then.
            let _taken = taken;
            match sets {
                Sets::One(set) => writer.put(set).await.await.into_response(),
                Sets::Many(sets) => {
                    let mut receipts = Vec::with_capacity(sets.len());
                    // Stored in order; what other nodes answer is not waited for in between.
                    for (index, set) in sets.into_iter().enumerate() {
                        if index % AT_ONE_GO == AT_ONE_GO - 1 {
                            yield_now().await;
                        }
                        receipts.push(writer.put(set).await);
                    }
                    Receipt::all_into_response(join_all(receipts).await)
                }
            }
        })
        .await)
    }

    /// Makes a key for a page.
    async fn issue(&self, request: Request) -> Result<Response, Refusal> {
        let signing = self.parts.signing.as_ref().ok_or(Refusal::NotFound)?;
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let (body, _taken) = self.body(request, self.parts.max_body_bytes, &self.parts.set_bodies).await?;
        let content_type = content_type.as_ref().map(HeaderValue::as_bytes);
        let issue = Issue::parse(&body, content_type, self.parts.writer.status_ttl)?;
        Ok(issue.answer(signing, system_ms()))
    }

    async fn forget(&self, key: Key) -> Response {
        let writer = Arc::clone(&self.parts.writer);
        finish(async move { writer.forget(&key).await.into_response() }).await
    }

    async fn channel(&self, request: Request) -> Result<Response, Refusal> {
        let came = Instant::now();
        // Other nodes' batches, and values as long as a set's body may bring them, with what is around them here.
        let max = max_channel_bytes(self.parts.max_body_bytes);
        let (body, _taken) = self.body(request, max, &self.parts.channel_bodies).await?;
        let (to, updates) = channel::parse(&body)?;
        if to != self.parts.node {
            return Err(Refusal::Misdirected);
        }
        if let [(key, ..)] = &updates[..]
            && health::is_probe(key)
        {
            self.parts.health.note_told();
        }
        let waiters = &self.parts.delivery.waiters;
        let mut delivered = Vec::with_capacity(updates.len());
        for (index, (key, update, age)) in updates.iter().enumerate() {
            if index % AT_ONE_GO == AT_ONE_GO - 1 {
                yield_now().await;
            }
            let since = age.and_then(|age| came.checked_sub(age));
            delivered.push(waiters.deliver_since(key, update, since));
        }
        Ok(json(StatusCode::OK, &Told { code: code::SUCCESS, delivered }))
    }

    /// What is known of a key, and who waits for it. With `?node=<id>`, which is how nodes ask each other, only whom
    /// this node holds, if it is that node.
    async fn look(&self, key: &Key, query: Option<&str>) -> Result<Response, Refusal> {
        let looked = match self.is_asked_alone(query)? {
            true => Looked::default(),
            false => match self.parts.delivery.store.look(key).await {
                Ok(looked) => looked,
                Err(error) => return Ok(self.parts.writer.failed(error).into_response()),
            },
        };
        let held = self.held(key, &looked.leases).await;
        let is_status = matches!(looked.known, Some(Known { update: Update::Status(_), .. }));
        if !is_status && held.waiters.is_empty() && held.unreachable.is_empty() {
            return Err(Refusal::NotFound);
        }
        Ok(json(StatusCode::OK, &receipt::Looked::new(key, looked.known.as_ref(), held)))
    }

    /// What goes on here and, unless this node is asked alone, on its peers; with `?samples=N` fewer looks than are kept.
    /// `?node=` without an id asks whichever node it is alone.
    async fn nodes(&self, query: Option<&str>) -> Result<Response, Refusal> {
        let samples = parameter(query, "samples").flatten().and_then(|samples| samples.parse().ok());
        let samples = samples.unwrap_or(usize::MAX);
        let inside = &self.parts.inside;
        let is_any = parameter(query, "node").flatten().is_some_and(|node| node.is_empty());
        Ok(if is_any || self.is_asked_alone(query)? { inside.own(samples) } else { inside.all(samples).await })
    }

    /// Whether `?node=<id>` asks for what this node alone knows.
    fn is_asked_alone(&self, query: Option<&str>) -> Result<bool, Refusal> {
        match parameter(query, "node") {
            None => Ok(false),
            Some(node) if node.as_deref() == Some(&self.parts.node) => Ok(true),
            Some(_) => Err(Refusal::Misdirected),
        }
    }

    /// Who waits for a key: here, and by their own word on the nodes with leases.
    async fn held(&self, key: &Key, leases: &[Lease]) -> Held {
        let Delivery { name, waiters, peers, .. } = &*self.parts.delivery;
        let others = leases.iter().filter(|lease| lease.name != *name);
        let asked: Vec<_> = others.map(async |lease| (lease, peers.count(lease, key).await)).collect();
        let mut counts = stream::iter(asked).buffered(ASKED_AT_ONCE);
        let mut held = Held::default();
        while let Some((lease, count)) = counts.next().await {
            match count {
                Ok(0) => {}
                Ok(count) => drop(held.waiters.insert(lease.name.clone(), count)),
                Err(error) => {
                    let (_, url) = lease.node_and_url();
                    debug!(%error, peer = url, "a node does not say whom it holds");
                    held.unreachable.push(url.to_owned());
                }
            }
        }
        let here = waiters.count(key) as u64;
        if here > 0 {
            held.waiters.insert(name.clone(), here);
        }
        held
    }

    /// Percent-decodes a key that stood in a path.
    fn parse_key(&self, raw: &str) -> Result<Key, Mistake> {
        let text = decode(raw.as_bytes(), Plus::Literal).ok_or(What::BadEncoding);
        named("key", text.and_then(|text| self.parts.limits.key(&text)))
    }

    /// Reads a body within its limits.
    async fn body(&self, request: Request, max: usize, room: &Inbound) -> Result<(Vec<u8>, Taken), Refusal> {
        if request.body().size_hint().lower() > max as u64 {
            return Err(Refusal::BodyTooLong(max));
        }
        let read = timeout(self.parts.body_timeout, room.read(request.into_body(), max)).await;
        read.unwrap_or(Err(Refusal::BodyTooSlow))
    }
}

/// The longest message of another node, where bodies of sets have this limit.
pub(crate) fn max_channel_bytes(max_body_bytes: usize) -> usize {
    max_body_bytes.max(MIN_CHANNEL_BYTES) + CHANNEL_MARGIN_BYTES
}

/// The first parameter of this name, if there is one; `None` in it where its encoding is bad.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Option<Cow<'a, str>>> {
    fields(query.unwrap_or_default().as_bytes(), Plus::Literal)
        .find_map(|(given, value)| (given.as_deref() == Some(name)).then_some(value))
}
