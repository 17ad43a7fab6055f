//! The parsers of values that have a form of their own, and no type that parses itself.

use std::str::FromStr;

use hyper::header::HeaderValue;
use hyper::http::uri::Uri;
use tracing_subscriber::EnvFilter;

use crate::http::origin::OriginPattern;
use crate::page::script::Prefix;

/// The two forms of an origin, said in each mistake.
const ORIGIN_FORMS: &str = "write https://host or https://host:port, or https://*.example.com for all hosts below a domain";

/// Parses an origin, or a pattern of origins.
pub(super) fn parse_origin(text: &str) -> Result<OriginPattern, String> {
    let Some((scheme, rest)) = text.split_once('*') else {
        return parse_exact_origin(text).map(OriginPattern::Exact);
    };
    // The rest of a pattern has to be an origin too, behind the same scheme.
    let domain = rest.strip_prefix('.').unwrap_or_default();
    if !scheme.ends_with("://") || domain.is_empty() || domain.contains('*') {
        return Err(format!(
            "not a pattern: * stands for one or more whole labels, once, at the beginning of the host; {ORIGIN_FORMS}"
        ));
    }
    parse_exact_origin(&format!("{scheme}{domain}"))?;
    let host = domain.split(':').next().unwrap_or_default();
    let is_address = host.starts_with('[')
        || host
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if is_address {
        return Err(format!("an address has no hosts below it; {ORIGIN_FORMS}"));
    }
    if !host.contains('.') && host != "localhost" {
        return Err(format!(
            "this allows the pages of strangers, everybody below .{host}: name a domain of yours; {ORIGIN_FORMS}"
        ));
    }
    Ok(OriginPattern::Subdomains {
        scheme: scheme.to_owned(),
        domain: rest.to_owned(),
    })
}

/// Parses an origin as browsers send it. Origins are compared byte for byte, so one that no
/// browser sends is a mistake.
fn parse_exact_origin(text: &str) -> Result<HeaderValue, String> {
    let no_origin = || format!("not an origin: {ORIGIN_FORMS}");
    let uri = Uri::from_str(text).map_err(|_| no_origin())?;
    let as_sent = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}").to_ascii_lowercase(),
        _ => return Err(no_origin()),
    };
    let default_port = as_sent.starts_with("https://") && as_sent.ends_with(":443")
        || as_sent.starts_with("http://") && as_sent.ends_with(":80");
    if default_port {
        return Err("browsers leave the default port out".into());
    }
    // No host has an empty label, but a last one.
    let host = as_sent.split_once("://").map_or("", |(_, host)| host);
    if host.starts_with('.') || host.contains("..") {
        return Err(format!("a label of the host is empty; {ORIGIN_FORMS}"));
    }
    if as_sent != text || text.contains('@') {
        return Err(format!("not as browsers send it, which is {as_sent}"));
    }
    HeaderValue::from_str(text).map_err(|error| error.to_string())
}

/// Parses a host's name as a `host` header has it, without the port.
pub(super) fn parse_host_name(text: &str) -> Result<String, String> {
    let good = (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if good {
        Ok(text.to_owned())
    } else {
        Err("not a host's name: write push-1.example.com, without a port".into())
    }
}

pub(super) fn parse_callback_prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text)
        .ok_or_else(|| "not the beginning of a name that may be called, as cb_ or app.".to_owned())
}

pub(super) fn parse_redis_prefix(text: &str) -> Result<String, String> {
    if text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("not up to 64 bytes of printable ASCII".into())
    }
}

/// Checks a filter of the log. It is kept as text, because [`EnvFilter`] cannot be cloned.
pub(super) fn parse_log_filter(text: &str) -> Result<String, String> {
    // A filter takes a word alone for the name of a target, and then writes no line of any other.
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| {
        levels.iter().any(|level| word.eq_ignore_ascii_case(level))
            || word.parse().is_ok_and(|level: u8| level <= 5)
    };
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mut directives = text.split(',').map(str::trim);
    if let Some(word) = directives.find(|word| is_word(word) && !is_level(word)) {
        return Err(format!(
            "'{}' is no level: write {}, or TARGET=LEVEL",
            word.escape_debug(),
            levels.join(", ")
        ));
    }
    match EnvFilter::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_as_a_filter() {
        for good in [
            "warn",
            "INFO",
            "3",
            "off",
            "info,hyper=warn",
            "holdfast=debug,warn",
        ] {
            assert_eq!(parse_log_filter(good).as_deref(), Ok(good));
        }
        for bad in ["warning", "loud", "info,verbose", "holdfast", "9"] {
            let mistake = parse_log_filter(bad).expect_err(bad);
            assert!(
                mistake.contains("is no level: write error, warn"),
                "{mistake}"
            );
        }
    }

    #[test]
    fn an_origin_is_what_browsers_send() {
        for good in [
            "https://a.example",
            "http://localhost:8080",
            "http://[::1]:3000",
            "https://*.example.com",
            "http://*.example.com:8080",
            "http://*.localhost:3000",
        ] {
            assert!(parse_origin(good).is_ok(), "{good}");
        }
        for bad in [
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "https://u@a.example",
            "null",
            "",
            "*.example.com",
            "https://*",
            "https://*.",
            "https://*example.com",
            "https://a*.example.com",
            "https://a.*.example.com",
            "https://*.*.example.com",
            "https://*.example.*",
            "https://*.com",
            "https://*.0.0.1",
            "https://*.[::1]",
            "https://*.Example.com",
            "https://*..example.com",
            "https://*.example.com/",
            "https://*.example.com:443",
            "https://*.example.com:*",
            "*://*.example.com",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }
}
