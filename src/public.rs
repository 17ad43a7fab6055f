//! The public listener: its routes, and what is answered at once. No store by name, no lock, and no set but the demo's.

use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::future::{BoxFuture, Either};
use hyper::Method;
use hyper::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use tracing::field::Empty;
use tracing::{Span, debug, debug_span};

use crate::connection::{Handling, Request};
use crate::demo::{self, Demo};
use crate::error::Refusal;
use crate::get::{Begun, Get, Gets};
use crate::head;
use crate::library;
use crate::response::{self, Response};
use crate::router::Router;

#[derive(Clone, Copy, Debug)]
enum Route {
    Get,
    Options,
    Library(library::Form),
    Demo(demo::Route),
}

impl Route {
    /// As logs tell it.
    const fn path(self) -> &'static str {
        match self {
            Self::Get | Self::Options => "/status/get",
            Self::Library(form) => form.path(),
            Self::Demo(_) => "/demo",
        }
    }
}

/// What is answered at once; or, by the demo alone, when it is stored.
pub(crate) type Answer = Either<Ready<Response>, BoxFuture<'static, Response>>;

/// What the public listener answers with.
#[derive(Debug)]
pub(crate) struct Public {
    routes: Router<Route>,
    gets: Arc<Gets>,
    demo: Option<Demo>,
}

impl Public {
    pub(crate) fn new(gets: Arc<Gets>, demo: Option<Demo>) -> Arc<Self> {
        let mut table = vec![("/status/get", vec![(Method::GET, Route::Get), (Method::OPTIONS, Route::Options)])];
        table.extend(library::Form::ALL.map(|form| (form.path(), vec![(Method::GET, Route::Library(form))])));
        if demo.is_some() {
            table.extend(demo::Route::table().into_iter().map(|(path, methods)| {
                (path, methods.into_iter().map(|(method, route)| (method, Route::Demo(route))).collect())
            }));
        }
        Arc::new(Self { routes: Router::new(table), gets, demo })
    }

    /// Answers one request, or has its connection parked.
    ///
    /// # Cancel safety
    /// Dropped, because the client left, a set of the demo that has begun is carried out all the same.
    pub(crate) fn answer(&self, request: &Request) -> Handling<Answer, Get> {
        let span = debug_span!("request", listener = "public", route = Empty);
        span.in_scope(|| self.begin(request))
    }

    fn begin(&self, request: &Request) -> Handling<Answer, Get> {
        let headers = request.headers();
        let grant = || self.gets.allow_origin.grant(headers);
        let routed = self.route(request);
        Span::current().record("route", routed.as_ref().map_or("none", |route| route.path()));
        let answered = match routed {
            Ok(Route::Get) => match self.gets.begin(request.uri().query().unwrap_or_default(), headers) {
                Begun::Answer(response) => Ok(Either::Left(response)),
                Begun::Held(get) => return Handling::Park(get),
            },
            Ok(Route::Options) => {
                let preflight = headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
                Ok(Either::Left(grant().apply(response::options(preflight, "GET, OPTIONS"))))
            }
            Ok(Route::Library(form)) => Ok(Either::Left(form.answer(headers, &self.gets.resource_policy))),
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
                Either::Left(ready(grant().apply(response::refusal(&refusal))))
            }
        })
    }

    fn route(&self, request: &Request) -> Result<Route, Refusal> {
        head::check(request)?;
        head::check_no_body(request.headers())?;
        let (route, _) = self.routes.find(request.method(), request.uri().path())?;
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::HeaderValue;
    use tokio::net::UnixStream;

    use super::*;
    use crate::connection::{Shared, http1, serve};
    use crate::delivery::Delivery;
    use crate::listener::Stream;
    use crate::metrics::Metrics;
    use crate::peers::{self, Peers};
    use crate::recovery::Recovery;
    use crate::response::AllowOrigin;
    use crate::shutdown;
    use crate::stop::Stop;
    use crate::store::Store;
    use crate::store::memory::{Limits, Memory};
    use crate::stream::Timeouts;
    use crate::waiters::Waiters;

    fn gets() -> Arc<Gets> {
        let second = Duration::from_secs(1);
        let limits = Limits { max_statuses: 1, max_bytes: 1000, max_floors: 1 };
        let metrics = Arc::<Metrics>::default();
        let store = Arc::new(Store::Memory(Memory::new(limits, Arc::clone(&metrics))));
        let waiters = Waiters::new(1, 1);
        let peers = Peers::new(peers::Options { token: None, timeout: second, queue: 1 }, Arc::clone(&metrics));
        let (store_, waiters_) = (Arc::clone(&store), Arc::clone(&waiters));
        let delivery = Arc::new(Delivery { name: String::new(), waiters: waiters_, store: store_, peers });
        Arc::new(Gets {
            waiters,
            store,
            recovery: Recovery::new(delivery, Arc::clone(&metrics), second, second, 1),
            drain: shutdown::drain().1,
            metrics,
            hold: second,
            signing: None,
            resource_policy: HeaderValue::from_static("cross-origin"),
            allow_origin: AllowOrigin::Any,
        })
    }

    /// It is what each held get costs, besides its socket, its timer and its place among the waiters. Whoever adds a wait
    /// to a connection puts what is seldom on the heap.
    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let (stream, _client) = UnixStream::pair().expect("a pair of sockets");
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { head: second, idle: second, write: second };
        let public = Public::new(gets(), None);
        let handler = move |request: Request| public.answer(&request);
        let shared =
            Shared { handler, http1: http1(false), timeouts, stop: Arc::<Stop>::default(), metrics: Arc::default() };
        let task = serve(Stream::Unix(stream), Arc::new(shared), ());
        let (task, get) = (size_of_val(&task), size_of::<crate::park::Parked<Get>>());
        assert!(task <= 304 && get <= 256, "{task} bytes, and {get} for the get");
    }
}
