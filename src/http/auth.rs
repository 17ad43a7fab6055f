//! Access to the internal listener. If tokens are set, a client must send one of them. Web pages
//! are refused, even those of a site that has given its own name the address of this listener.

use std::net::Ipv4Addr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::http::refusal::{Forbidden, NoToken, Refusal};

/// The bearer tokens of the internal listener. Without any, everyone who reaches it may use it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<String>);

/// The mistake in a file of tokens. Its text contains no token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its text says")]
pub enum TokensError {
    #[error("there is no token in it")]
    Empty,
    #[error("token {0} must be printable ASCII")]
    NotPrintable(usize),
}

impl Tokens {
    /// Reads one token per line and skips empty lines.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let tokens: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        match tokens
            .iter()
            .position(|token| !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            Some(at) => Err(TokensError::NotPrintable(at + 1)),
            None if tokens.is_empty() => Err(TokensError::Empty),
            None => Ok(Self(tokens)),
        }
    }

    /// Returns the token that this node sends to other nodes.
    #[must_use]
    pub fn first(&self) -> Option<Token> {
        self.0.first().cloned().map(Token)
    }

    /// Checks a request's token.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        // A request with two tokens is refused, whichever of them is good.
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let shown = match (shown.next(), shown.next()) {
            (None, _) => Err(NoToken::Missing),
            (Some(_), Some(_)) => Err(NoToken::GivenTwice),
            (Some(shown), None) => bearer(shown.as_bytes()).ok_or(NoToken::Missing),
        };
        let shown = shown.map_err(Refusal::Unauthorized)?;
        // Every token is compared, and in constant time, so that the time does not reveal how
        // much of a token is right.
        let known = self.0.iter().fold(subtle::Choice::from(0), |known, token| {
            known | token.as_bytes().ct_eq(shown)
        });
        if known.into() {
            Ok(())
        } else {
            Err(Refusal::Unauthorized(NoToken::Unknown))
        }
    }
}

/// Shows the number of tokens only, so that no token gets into a log.
impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// One of the [`Tokens`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Returns the token itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the token as the value of an `authorization` header.
    #[must_use]
    pub fn as_bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Returns the token of `Bearer <token>`. The scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Refuses a request that a browser sends for a web page. Otherwise a page that a user opens
/// inside the network could post to this listener and set any status, without reading the
/// answer. Backends send neither `origin` nor `sec-fetch-site`.
pub(crate) fn refuse_pages(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_of_a_page = headers.contains_key(ORIGIN) || is_of_another_site(headers);
    refuse_if(is_of_a_page, Forbidden::FromAPage)
}

/// Refuses a request that a page of another origin caused.
pub(crate) fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Refusal> {
    refuse_if(is_of_another_site(headers), Forbidden::FromAnotherSite)
}

fn refuse_if(is_refused: bool, why: Forbidden) -> Result<(), Refusal> {
    if is_refused {
        Err(Refusal::Forbidden(why))
    } else {
        Ok(())
    }
}

/// Returns whether the `sec-fetch-site` header of a request says that a page of another origin
/// caused it. Browsers send this header only over HTTPS and to their own machine.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let of_the_user = |site: &[u8]| site == b"same-origin" || site == b"none";
    headers
        .get_all(SEC_FETCH_SITE)
        .iter()
        .any(|site| !of_the_user(site.as_bytes()))
}

/// The names by which a client may call the internal listener and read what it knows, if no
/// tokens are set. A site can give its own name this listener's address (DNS rebinding). Then
/// its pages have the same origin as the listener and may read the answers. But their requests
/// carry the site's name in `host`, and that is none of these names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Allows `names`, besides addresses, `localhost` and names below it, and names without a
    /// dot, which no site can have.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(
            names
                .into_iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        )
    }

    /// Checks the name in the `host` header. The head is checked before, so there is one
    /// well-formed host, or none in a request of HTTP/1.0.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(host) = headers.get(HOST) else {
            return Ok(());
        };
        let name = host
            .to_str()
            .map(host_of)
            .map(str::to_ascii_lowercase)
            .map_err(|_| Refusal::Forbidden(Forbidden::UnknownHost))?;
        let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
        let is_local = !name.contains('.') || name.ends_with(".localhost");
        if is_address || is_local || self.0.contains(&name) {
            Ok(())
        } else {
            Err(Refusal::Forbidden(Forbidden::UnknownHost))
        }
    }
}

/// Returns the host of `host:port`.
pub(crate) fn host_of(authority: &str) -> &str {
    let end = if authority.starts_with('[') {
        authority.find(']').map(|at| at + 1)
    } else {
        authority.find(':')
    };
    &authority[..end.unwrap_or(authority.len())]
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn check(tokens: &str, header: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(header))]);
        Tokens::parse(tokens).expect("good").check(&headers).is_ok()
    }

    #[test]
    fn any_of_the_tokens_is_good_and_nothing_else() {
        assert!(check("one\n\n two \n", "Bearer one"));
        assert!(check("one\ntwo", "bearer two"));
        for bad in [
            "Bearer on",
            "Bearer onee",
            "Bearer ",
            "Bearer",
            "one",
            "Basic one",
            "",
        ] {
            assert!(!check("one\ntwo", bad), "{bad}");
        }
        assert!(
            Tokens::parse("one")
                .expect("good")
                .check(&HeaderMap::new())
                .is_err()
        );
        assert!(Tokens::default().check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_file_without_a_token_is_a_mistake() {
        assert!(Tokens::parse(" \n\n").is_err());
        assert!(Tokens::parse("a b").is_err_and(|error| !error.to_string().contains("a b")));
        assert_eq!(
            format!("{:?}", Tokens::parse("secret").expect("good")),
            "Tokens(1)"
        );
    }

    #[test]
    fn a_name_that_a_site_may_have_is_not_ours_unless_it_is_said_to_be() {
        let hosts = Hosts::new(["Push-1.Example.com".to_owned()]);
        let admits = |host: &'static str| {
            hosts
                .check(&HeaderMap::from_iter([(
                    HOST,
                    HeaderValue::from_static(host),
                )]))
                .is_ok()
        };
        for ours in [
            "127.0.0.1:11001",
            "10.0.0.9",
            "[::1]:11001",
            "localhost:11001",
            "LOCALHOST",
            "a.localhost",
            "holdfast:11001",
            "push-1.example.com:11001",
        ] {
            assert!(admits(ours), "{ours}");
        }
        for other in [
            "evil.example:11001",
            "push-1.example.com.",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "0x7f.1",
            "127.1",
        ] {
            assert!(!admits(other), "{other}");
        }
        assert!(hosts.check(&HeaderMap::new()).is_ok(), "HTTP/1.0");
    }
}
