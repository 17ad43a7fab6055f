//! The routes of the internal listener.

use hyper::Method;

use crate::http::refusal::Refusal;
use crate::http::router::Router;

/// The beginnings of the public listener's paths, apart from those of templates.
const PUBLIC_PATHS: [&str; 6] = [
    "/status/get",
    "/status/events",
    "/status/ws",
    "/holdfast",
    "/healthz",
    "/demo",
];

/// A route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
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
    pub(super) const fn path(self) -> &'static str {
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
    pub(super) const fn is_health(self) -> bool {
        matches!(self, Self::Live | Self::Ready | Self::Path)
    }

    /// Returns whether the answer reveals state and so needs the check of the host against DNS
    /// rebinding. Health does not, because monitors ask by any name: see
    /// `may_read_addresses` in `internal.rs`. A set does not, because browsers add an `origin` to
    /// it.
    pub(super) const fn reveals_state(self) -> bool {
        matches!(self, Self::Key | Self::Nodes | Self::Page)
    }

    /// Returns all routes. Without `signs_keys` there is no route that makes a key.
    pub(super) fn table(signs_keys: bool) -> Router<Self> {
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
pub(super) fn explain(refusal: Refusal, path: &str) -> Refusal {
    match refusal {
        Refusal::NotFound if path == Route::Issue.path() => Refusal::NoSecrets,
        Refusal::NotFound if is_public(path) => Refusal::OtherListener("public"),
        other => other,
    }
}
