//! The public listener: its routes, and a get from its request to its answer. No set here, no store by name, no lock.

use std::sync::Arc;

use hyper::Method;
use hyper::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, debug_span};

use crate::demo::{self, Demo};
use crate::error::Refusal;
use crate::get::{Begun, Gets};
use crate::head;
use crate::response::{self, Response};
use crate::router::Router;
use crate::server::Request;

#[derive(Clone, Copy, Debug)]
enum Route {
    Get,
    Options,
    Demo(demo::File),
}

impl Route {
    /// As logs tell it.
    const fn path(self) -> &'static str {
        match self {
            Self::Get | Self::Options => "/status/get",
            Self::Demo(_) => "/demo",
        }
    }
}

/// What the public listener answers with.
#[derive(Debug)]
pub(crate) struct Public {
    routes: Router<Route>,
    gets: Gets,
    demo: Option<Demo>,
}

impl Public {
    pub(crate) fn new(gets: Gets, demo: Option<Demo>) -> Arc<Self> {
        let mut table = vec![("/status/get", vec![(Method::GET, Route::Get), (Method::OPTIONS, Route::Options)])];
        if demo.is_some() {
            table.extend(demo::PATHS.map(|(path, file)| (path, vec![(Method::GET, Route::Demo(file))])));
        }
        Arc::new(Self { routes: Router::new(table), gets, demo })
    }

    /// Answers one request. The request itself, and with it the buffer that it was read into, is let go before a get
    /// is held.
    ///
    /// # Cancel safety
    /// Dropped, because the client left, a held get leaves nothing behind.
    pub(crate) fn answer(self: Arc<Self>, request: Request) -> impl Future<Output = Response> + Send {
        let span = debug_span!("request", listener = "public", route = Empty);
        let begun = span.in_scope(|| self.begin(&request));
        drop(request);
        async move {
            match begun {
                Begun::Answer(response) => response,
                Begun::Held(held) => {
                    let outcome = self.gets.hold(&held).instrument(span).await;
                    self.gets.render(held, &outcome)
                }
            }
        }
    }

    fn begin(&self, request: &Request) -> Begun {
        let headers = request.headers();
        let grant = || self.gets.allow_origin.grant(headers);
        let routed = self.route(request);
        Span::current().record("route", routed.as_ref().map_or("none", |route| route.path()));
        Begun::Answer(match routed {
            Ok(Route::Get) => return self.gets.begin(request.uri().query().unwrap_or_default(), headers),
            Ok(Route::Options) => {
                let preflight = headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
                grant().apply(response::options(preflight, "GET, OPTIONS"))
            }
            Ok(Route::Demo(file)) => match &self.demo {
                Some(demo) => demo.answer(file),
                None => response::refusal(&Refusal::NotFound),
            },
            Err(refusal) => {
                debug!(refusal = refusal.logged(), "refused");
                grant().apply(response::refusal(&refusal))
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
