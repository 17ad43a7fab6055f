//! The public listener: its routes, and a get from its request to its answer. No set here, no store by name, no lock.

use std::sync::Arc;

use hyper::Method;
use hyper::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use tracing::{Instrument, debug_span};

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

    /// Answers one request.
    ///
    /// # Cancel safety
    /// Dropped, because the client left, a held get leaves nothing behind.
    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let route = match self.route(&request) {
            Ok(route) => route,
            Err(refusal) => {
                let grant = self.gets.allow_origin.grant(request.headers());
                return grant.apply(response::refusal(&refusal));
            }
        };
        match route {
            Route::Get => self.get(&request).await,
            Route::Options => {
                let headers = request.headers();
                let preflight = headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
                let grant = self.gets.allow_origin.grant(headers);
                grant.apply(response::options(preflight, "GET, OPTIONS"))
            }
            Route::Demo(file) => match &self.demo {
                Some(demo) => demo.answer(file),
                None => response::refusal(&Refusal::NotFound),
            },
        }
    }

    fn route(&self, request: &Request) -> Result<Route, Refusal> {
        head::check(request)?;
        head::check_no_body(request.headers())?;
        let (route, _) = self.routes.find(request.method(), request.uri().path())?;
        Ok(route)
    }

    async fn get(&self, request: &Request) -> Response {
        match self.gets.begin(request.uri().query().unwrap_or_default(), request.headers()) {
            Begun::Answer(response) => response,
            Begun::Held(held) => {
                let span = debug_span!("request", listener = "public", route = "/status/get");
                let outcome = self.gets.hold(&held).instrument(span).await;
                self.gets.render(held, &outcome)
            }
        }
    }
}
