//! The public listener: its routes, and the answers that are ready at once. It does not use the
//! store directly, takes no lock, and serves no set but the demo's.

use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::future::{BoxFuture, Either};
use hyper::{Method, StatusCode};
use tracing::field::Empty;
use tracing::{Span, debug, debug_span};

use crate::demo::{self, Demo};
use crate::health::Health;
use crate::http::head::{self, Request};
use crate::http::origin;
use crate::http::refusal::Refusal;
use crate::http::response::{self, Response};
use crate::http::router::Router;
use crate::internal;
use crate::net::clients::Client;
use crate::net::connection::Handling;
use crate::page::client_library;
use crate::page::get::{GetHandler, HeldGet};
use crate::page::wire::Template;

#[derive(Clone, Copy, Debug)]
enum Route {
    Get,
    Events,
    Socket,
    /// The place of a template in the list, and its path.
    Wire(usize, &'static str),
    Options(&'static str),
    Library(client_library::Form),
    /// The health check of balancers that reach only this listener.
    Health,
    Demo(demo::Route),
}

impl Route {
    /// Returns the path as logs name it.
    const fn path(self) -> &'static str {
        match self {
            Self::Get => "/status/get",
            Self::Events => "/status/events",
            Self::Socket => "/status/ws",
            Self::Wire(_, path) | Self::Options(path) => path,
            Self::Library(form) => form.path(),
            Self::Health => "/healthz",
            Self::Demo(_) => "/demo",
        }
    }
}

/// An answer that is ready at once. Only the demo has others, which come when its set is
/// stored.
pub(crate) type Answer = Either<Ready<Response>, BoxFuture<'static, Response>>;

/// The handler of the public listener's requests.
#[derive(Debug)]
pub(crate) struct Public {
    routes: Router<Route>,
    gets: Arc<GetHandler>,
    health: Arc<Health>,
    wires: Vec<Arc<Template>>,
    demo: Option<Demo>,
}

impl Public {
    /// Makes the handler. `wires` are templates whose paths are not those of other routes.
    pub(crate) fn new(
        gets: Arc<GetHandler>,
        health: Arc<Health>,
        wires: Vec<Arc<Template>>,
        demo: Option<Demo>,
    ) -> Arc<Self> {
        Arc::new(Self {
            routes: Router::new(table(&wires, demo.is_some())),
            gets,
            health,
            wires,
            demo,
        })
    }

    /// Answers one request, or has its connection parked.
    ///
    /// # Cancel safety
    /// If it is dropped because the client left, a set of the demo that has begun is carried
    /// out all the same.
    pub(crate) fn answer(&self, request: &Request) -> Handling<Answer, HeldGet> {
        let span = debug_span!("request", listener = "public", route = Empty);
        span.in_scope(|| self.begin(request))
    }

    fn begin(&self, request: &Request) -> Handling<Answer, HeldGet> {
        let headers = request.headers();
        let grant = || self.gets.allow_origin.grant(headers);
        let query = request.uri().query().unwrap_or_default();
        let client = request.extensions().get::<Client>();
        let may_get = || client.is_none_or(Client::may_get);
        let routed = self.route(request);
        Span::current().record(
            "route",
            routed.as_ref().map_or("none", |route| route.path()),
        );
        let answered = match routed {
            Ok(route @ (Route::Get | Route::Wire(..))) => {
                let begun = match route {
                    Route::Wire(at, _) => {
                        let wire = &self.wires[at];
                        self.gets.begin_wire(wire, query, headers, may_get())
                    }
                    _ => self.gets.begin(query, headers, may_get()),
                };
                match begun {
                    Handling::Answer(response) => Ok(Either::Left(response)),
                    Handling::Park(get) => return Handling::Park(get),
                    Handling::Flow(stream) => return Handling::Flow(stream),
                }
            }
            Ok(Route::Events) => match self.gets.begin_events(query, headers, client) {
                Ok(stream) => return Handling::Flow(Box::new(stream)),
                Err(response) => Ok(Either::Left(*response)),
            },
            Ok(Route::Socket) => {
                let version = request.version();
                match self.gets.begin_socket(query, version, headers, client) {
                    Ok(socket) => return Handling::Flow(Box::new(socket)),
                    Err(refusal) => Err(refusal),
                }
            }
            Ok(Route::Options(_)) => Ok(Either::Left(
                grant().apply(origin::options(headers, "GET, OPTIONS")),
            )),
            Ok(Route::Library(form)) => Ok(Either::Left(
                form.answer(headers, &self.gets.resource_policy),
            )),
            Ok(Route::Health) => Ok(Either::Left(self.healthz())),
            Ok(Route::Demo(route)) => match &self.demo {
                Some(demo) => demo.answer(route, request),
                None => Err(Refusal::NotFound),
            },
            Err(refusal) => Err(refusal),
        };
        Handling::Answer(match answered {
            Ok(Either::Left(response)) => Either::Left(ready(response)),
            Ok(Either::Right(response)) => Either::Right(response),
            Err(refusal) => {
                self.gets.metrics.refused(refusal.limit(), refusal.drops());
                debug!(refusal = refusal.logged(), "refused");
                let refused = grant().apply(response::refusal(&refusal));
                // A body is not read: the connection is closed instead.
                let has_body = head::check_no_body(request).is_err();
                Either::Left(ready(if has_body {
                    response::closing(refused)
                } else {
                    refused
                }))
            }
        })
    }

    /// Answers whether a load balancer should send this node requests, and not why: every client
    /// may ask.
    fn healthz(&self) -> Response {
        let (status, text) = match self.health.ready() {
            Ok(()) => (StatusCode::OK, "ok"),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        let mut response = response::file("text/plain; charset=utf-8", text.into());
        *response.status_mut() = status;
        response
    }

    fn route(&self, request: &Request) -> Result<Route, Refusal> {
        head::check(request)?;
        let path = request.uri().path();
        let found = self.routes.find(request.method(), path);
        let (route, _) = found.map_err(|refusal| match refusal {
            Refusal::NotFound if internal::has_route(path) => Refusal::OtherListener("internal"),
            other => other,
        })?;
        // After the route, because a set that is sent to this listener has a body, and has to be
        // told where it belongs.
        head::check_no_body(request)?;
        Ok(route)
    }
}

/// Returns the routes: each path, with its methods.
fn table(wires: &[Arc<Template>], has_demo: bool) -> Vec<(&'static str, Vec<(Method, Route)>)> {
    let asked = |path, route| {
        let options = Route::Options(path);
        (path, vec![(Method::GET, route), (Method::OPTIONS, options)])
    };
    let mut table = vec![
        asked("/status/get", Route::Get),
        asked("/status/events", Route::Events),
        ("/status/ws", vec![(Method::GET, Route::Socket)]),
    ];
    table.extend(wires.iter().enumerate().map(|(at, wire)| {
        // Leaked once: routes and logs need it until the process ends.
        let path = wire.path().to_owned().leak();
        asked(path, Route::Wire(at, path))
    }));
    let file = |route: Route| {
        let methods = vec![(Method::GET, route), (Method::HEAD, route)];
        (route.path(), methods)
    };
    table.push(file(Route::Health));
    table.extend(client_library::Form::ALL.map(|form| file(Route::Library(form))));
    if has_demo {
        table.extend(demo::Route::table().into_iter().map(|(path, methods)| {
            (
                path,
                methods
                    .into_iter()
                    .map(|(method, route)| (method, Route::Demo(route)))
                    .collect(),
            )
        }));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::HeaderValue;
    use tokio::net::UnixStream;

    use super::*;
    use crate::cluster::membership::Nodes;
    use crate::http::origin::AllowOrigin;
    use crate::metrics::Metrics;
    use crate::net::closing::Stop;
    use crate::net::connection::{Shared, http1, serve};
    use crate::net::http2::stream::Http2Stream;
    use crate::net::http2_connection::tests::{size_of_connection, size_of_task};
    use crate::net::parked::Parked;
    use crate::net::parked::connection::Connection;
    use crate::net::stream::Stream;
    use crate::net::timed::Timeouts;
    use crate::page::get::RefusedKeys;
    use crate::page::returning::Returning;
    use crate::page::script::Prefix;
    use crate::page::socket_limits::SocketLimits;
    use crate::runtime::shutdown;
    use crate::store::Store;
    use crate::store::memory::{Memory, MemoryLimits};
    use crate::waiters::Waiters;

    fn gets() -> Arc<GetHandler> {
        let second = Duration::from_secs(1);
        let limits = MemoryLimits {
            max_statuses: 1,
            max_bytes: 1000,
            max_floors: 1,
        };
        let metrics = Arc::<Metrics>::default();
        let store = Arc::new(Store::Memory(Arc::new(Memory::new(
            limits,
            Arc::clone(&metrics),
        ))));
        let waiters = Waiters::new(1, 1);
        let drain = shutdown::drain().1;
        let nodes = Nodes::new(None, String::new());
        Arc::new(GetHandler {
            waiters,
            store,
            recovery: None,
            returning: Returning::new(drain.clone(), nodes, second),
            drain,
            metrics,
            hold: second,
            stream_life: second,
            sockets: SocketLimits::new(1, 1),
            signing: None,
            callback_prefix: Prefix::default(),
            resource_policy: HeaderValue::from_static("cross-origin"),
            allow_origin: AllowOrigin::Any,
            refused_keys: RefusedKeys::default(),
        })
    }

    fn health() -> Arc<Health> {
        let nodes = Nodes::new(None, "http://a:1".to_owned());
        Arc::new(Health::new(shutdown::drain().1, nodes, None))
    }

    #[test]
    fn no_template_has_a_path_of_ours() {
        let template = include_str!("../deploy/wires/wechat-web.json");
        let own = table(&[], true);
        assert!(own.len() > 6, "{}", own.len());
        for (path, _) in own {
            assert!(internal::is_public(path), "{path}");
            assert!(!internal::has_route(path), "{path}");
            let with_path = template.replace("/cgi-bin/mmwebwx-bin/login", path);
            let mistakes = Template::parse(&with_path).expect_err(path);
            assert!(mistakes.concat().contains("holdfast's own"), "{mistakes:?}");
        }
    }

    /// The handler of a server, with what all of its connections share.
    fn shared() -> Arc<Shared<impl Fn(Request) -> Handling<Answer, HeldGet> + Send + Sync>> {
        let second = Duration::from_secs(1);
        let public = Public::new(gets(), health(), Vec::new(), None);
        Arc::new(Shared {
            handler: move |request: Request| public.answer(&request),
            http1: http1(false),
            timeouts: Timeouts {
                head: second,
                idle: second,
                write: second,
            },
            stop: Arc::<Stop>::default(),
            metrics: Arc::default(),
        })
    }

    /// The task is what each held get costs, besides its socket, its timer and its place among
    /// the waiters. A new wait in a connection must put the data that it seldom needs on the
    /// heap.
    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let (stream, _client) = UnixStream::pair().expect("a pair of sockets");
        let task = serve(Stream::Unix(stream), shared(), ());
        let (task, get) = (size_of_val(&task), size_of::<Parked<HeldGet, Connection>>());
        // A release build is 8 bytes smaller, and the counts of its `Arc` take 16. So each get takes
        // 256 bytes, and not the allocator's next size, which is 320.
        assert!(
            task <= 304 && get <= 248,
            "{task} bytes, and {get} for the get"
        );
    }

    #[test]
    fn the_task_of_a_request_of_http2_is_small() {
        let task = size_of_task(&*shared());
        let get = size_of::<Parked<HeldGet, Http2Stream>>();
        // The runtime adds 96 bytes, and takes multiples of 128.
        assert!(
            task <= 288 && get <= 240,
            "{task} bytes, and {get} for the get"
        );
    }

    #[test]
    fn a_connection_of_http2_is_small() {
        let connection = size_of_connection(&*shared());
        // The next larger allocation takes 2,048 bytes.
        assert!(connection <= 1_792, "{connection} bytes");
    }
}
