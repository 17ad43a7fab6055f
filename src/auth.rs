//! Who may use the internal listener: those who know a token, where tokens are set; and no page, also none whose site has
//! given its name the address of this listener.

use std::net::Ipv4Addr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use subtle::ConstantTimeEq;

use crate::error::Refusal;

/// The bearer tokens of the internal listener; without any, everyone who reaches it may use it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<String>);

impl Tokens {
    /// Reads a token a line; empty lines are passed over. Says what is wrong with the file.
    ///
    /// # Errors
    /// A text for people, without a token in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        match tokens.iter().position(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            Some(at) => Err(format!("token {} has a character that is not printable ASCII", at + 1)),
            None if tokens.is_empty() => Err("there is no token in it".into()),
            None => Ok(Self(tokens)),
        }
    }

    /// The token that this node shows to others.
    #[must_use]
    pub fn first(&self) -> Option<Token> {
        self.0.first().cloned().map(Token)
    }

    /// Checks a request's token.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else { return Err(Refusal::Unauthorized) };
        let shown = bearer(shown.as_bytes()).ok_or(Refusal::Unauthorized)?;
        // Each is compared, and each in a time that does not tell how much of it is right.
        let known = self.0.iter().fold(subtle::Choice::from(0), |known, token| known | token.as_bytes().ct_eq(shown));
        if known.into() { Ok(()) } else { Err(Refusal::Unauthorized) }
    }
}

/// Tokens do not get into a log.
impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// As the value of an `authorization` header.
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

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Refuses what a browser sends for a page: a page that its user opens inside the network could else post to this
/// listener, without reading the answer, and set any status. Backends send neither header.
pub(crate) fn refuse_pages(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(ORIGIN) { Err(Refusal::Forbidden) } else { refuse_other_sites(headers) }
}

/// Refuses what a browser says it sends for another site's page. (It says so over HTTPS, and to this machine.)
pub(crate) fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Refusal> {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let of_the_user = |site: &[u8]| site == b"same-origin" || site == b"none";
    let from_elsewhere = headers.get_all(SEC_FETCH_SITE).iter().any(|site| !of_the_user(site.as_bytes()));
    if from_elsewhere { Err(Refusal::Forbidden) } else { Ok(()) }
}

/// The names by which the internal listener may be asked for what it knows, where it asks for no token. A site can give its
/// own name this listener's address (DNS rebinding); then its pages are of the same origin, and may read the answers. But they
/// call it by that name, which is none of ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// These, besides addresses, `localhost`, and names without a dot, which no site can have.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Checks by what name a request calls. It has one host, and that is well-formed.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(host) = headers.get(HOST) else { return Ok(()) };
        let name = host.to_str().map(host_of).map(str::to_ascii_lowercase).map_err(|_| Refusal::Forbidden)?;
        let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
        let is_local = !name.contains('.') || name.ends_with(".localhost");
        if is_address || is_local || self.0.contains(&name) { Ok(()) } else { Err(Refusal::Forbidden) }
    }
}

/// The host of `host:port`.
pub(crate) fn host_of(authority: &str) -> &str {
    let end = if authority.starts_with('[') { authority.find(']').map(|at| at + 1) } else { authority.find(':') };
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
        for bad in ["Bearer on", "Bearer onee", "Bearer ", "Bearer", "one", "Basic one", ""] {
            assert!(!check("one\ntwo", bad), "{bad}");
        }
        assert!(Tokens::parse("one").expect("good").check(&HeaderMap::new()).is_err());
        assert!(Tokens::default().check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_file_without_a_token_is_a_mistake() {
        assert!(Tokens::parse(" \n\n").is_err());
        assert!(Tokens::parse("a b").is_err_and(|message| !message.contains("a b")));
        assert_eq!(format!("{:?}", Tokens::parse("secret").expect("good")), "Tokens(1)");
    }

    #[test]
    fn a_name_that_a_site_may_have_is_not_ours_unless_it_is_said_to_be() {
        let hosts = Hosts::new(["Push-1.Example.com".to_owned()]);
        let admits =
            |host: &'static str| hosts.check(&HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))])).is_ok();
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
