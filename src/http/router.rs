//! A table that maps a path and a method to a route, built on matchit. Each listener has one.

use hyper::Method;
use matchit::Params;

use crate::http::refusal::Refusal;

/// A table of routes. `R` is the name of a route, not the code that serves it.
#[derive(Debug)]
pub(crate) struct Router<R> {
    paths: matchit::Router<Path<R>>,
}

#[derive(Debug)]
struct Path<R> {
    /// The methods, joined as the `allow` header lists them.
    allow: &'static str,
    methods: Vec<(Method, R)>,
}

impl<R: Copy> Router<R> {
    /// Makes a table of each path with its methods and their routes.
    ///
    /// # Panics
    /// Panics if two paths clash. The tables are written in this program.
    pub(crate) fn new(table: impl IntoIterator<Item = (&'static str, Vec<(Method, R)>)>) -> Self {
        let mut paths = matchit::Router::new();
        for (path, mut methods) in table {
            methods.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
            let allow: Vec<_> = methods.iter().map(|(method, _)| method.as_str()).collect();
            // Leaked once per listener, because its answers need the text until the process
            // ends.
            let allow = allow.join(", ").leak();
            paths
                .insert(path, Path { allow, methods })
                .expect("the paths of a table do not clash");
        }
        Self { paths }
    }

    /// Finds the route, and the path's parameters as they were sent, without decoding them.
    ///
    /// # Errors
    /// Fails with [`Refusal::NotFound`] if no path matches, and with
    /// [`Refusal::MethodNotAllowed`] if the path has other methods.
    pub(crate) fn find<'p>(
        &self,
        method: &Method,
        path: &'p str,
    ) -> Result<(R, Params<'_, 'p>), Refusal> {
        let found = self.paths.at(path).map_err(|_| Refusal::NotFound)?;
        match found
            .value
            .methods
            .iter()
            .find(|(allowed, _)| allowed == method)
        {
            Some((_, route)) => Ok((*route, found.params)),
            None => Err(Refusal::MethodNotAllowed(found.value.allow)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_a_method_and_the_methods_there_are() {
        let router = Router::new([
            ("/a", vec![(Method::POST, 1), (Method::GET, 2)]),
            ("/keys/{key}", vec![(Method::GET, 3)]),
        ]);
        assert_eq!(router.find(&Method::GET, "/a").map(|found| found.0), Ok(2));
        assert_eq!(
            router.find(&Method::PUT, "/a").err(),
            Some(Refusal::MethodNotAllowed("GET, POST"))
        );
        assert_eq!(
            router.find(&Method::HEAD, "/a").err(),
            Some(Refusal::MethodNotAllowed("GET, POST"))
        );
        for path in ["/", "", "/a/", "/b", "/keys", "/keys/", "/keys/a/b", "*"] {
            assert_eq!(
                router.find(&Method::GET, path).err(),
                Some(Refusal::NotFound),
                "{path}"
            );
        }
        let (route, params) = router.find(&Method::GET, "/keys/a%2Fb").expect("a route");
        assert_eq!((route, params.get("key")), (3, Some("a%2Fb")));
    }
}
