//! The reader of the URL of a Redis.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::{Account, Host, Kind, OfSentinels, Target};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The mistake in the URL of a Redis. Its text does not repeat the URL, because there may be a
/// password in it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its text says")]
pub enum UrlError {
    #[error("not a URL: write redis://host:port")]
    NotAUrl,
    #[error(
        "the scheme is not redis, rediss, one of them with +sentinel or +cluster, or redis+unix"
    )]
    UnknownScheme,
    #[error("a ? or # in it has no meaning; write one in a password as %3F or %23")]
    QueryOrFragment,
    #[error(
        "behind the ? of sentinels there may be only sentinel_username=, sentinel_password= and \
         sentinel_tls=, with & between them; write a ?, & or # in a password as %3F, %26 or %23"
    )]
    NotOfSentinels,
    #[error("behind the ? of a unix socket there may be only db=; write a ? in a password as %3F")]
    NotOfASocket,
    #[error("a name behind the ? is given twice")]
    GivenTwice,
    #[error("sentinel_tls is neither true nor false")]
    TlsNoBool,
    #[error("sentinel_username without sentinel_password")]
    NoSentinelPassword,
    #[error("the path of a unix socket begins with /: redis+unix:///run/redis/redis.sock")]
    NoPath,
    #[error("several hosts are for redis+sentinel:// and redis+cluster://")]
    SeveralHosts,
    #[error("the name of the master is missing: redis+sentinel://host/name")]
    NoMasterName,
    #[error("the database is not a number")]
    DatabaseNoNumber,
    #[error("a cluster has only database 0")]
    DatabaseOfCluster,
    #[error("the database is not a number from 0 to 65535")]
    DatabaseTooGreat,
    #[error("a user without a password: write user:password@, or :password@")]
    NoPassword,
    #[error("write an IPv6 address in brackets: [::1]:6379")]
    NoBrackets,
    #[error("a host is missing")]
    NoHost,
    #[error("a port is not a number")]
    PortNoNumber,
    #[error("bad percent-encoding")]
    BadEncoding,
}

pub(super) fn parse(url: &str) -> Result<Target, UrlError> {
    // Environment variables and files often end in a line break.
    let (scheme, rest) = url.trim().split_once("://").ok_or(UrlError::NotAUrl)?;
    if rest.contains('#') {
        return Err(UrlError::QueryOrFragment);
    }
    match scheme {
        "redis" | "rediss" => single(scheme == "rediss", rest),
        "redis+sentinel" | "rediss+sentinel" => of_sentinels(scheme.starts_with("rediss"), rest),
        "redis+cluster" | "rediss+cluster" => cluster(scheme == "rediss+cluster", rest),
        // The second is what Python's and Go's libraries take.
        "redis+unix" | "unix" => of_socket(rest),
        _ => Err(UrlError::UnknownScheme),
    }
}

fn single(tls: bool, rest: &str) -> Result<Target, UrlError> {
    let (account, hosts, path) = parts(rest, REDIS_PORT)?;
    if hosts.len() > 1 {
        return Err(UrlError::SeveralHosts);
    }
    let db = parse_db(path)?;
    Ok(target(Kind::Single, hosts, tls, account, db))
}

fn cluster(tls: bool, rest: &str) -> Result<Target, UrlError> {
    let (account, hosts, path) = parts(rest, REDIS_PORT)?;
    if parse_db(path)? != 0 {
        return Err(UrlError::DatabaseOfCluster);
    }
    Ok(target(Kind::Cluster, hosts, tls, account, 0))
}

/// The names behind the `?` are those of go-redis.
fn of_sentinels(tls: bool, rest: &str) -> Result<Target, UrlError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let names = ["sentinel_username", "sentinel_password", "sentinel_tls"];
    let [user, password, of_tls] = parse_query(query, names, UrlError::NotOfSentinels)?;
    let password = password.filter(|password| !password.is_empty());
    if user.is_some() && password.is_none() {
        return Err(UrlError::NoSentinelPassword);
    }
    let account = password.map(|password| Account {
        user: user.filter(|user| !user.is_empty()),
        password: Some(password),
    });
    let of_tls = match of_tls.as_deref() {
        None => tls,
        Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(UrlError::TlsNoBool),
    };
    let (of_redis, hosts, path) = parts(rest, SENTINEL_PORT)?;
    let (name, db) = path.split_once('/').unwrap_or((path, ""));
    if name.is_empty() {
        return Err(UrlError::NoMasterName);
    }
    let kind = Kind::Sentinel(OfSentinels {
        name: decoded(name)?,
        account,
        tls: of_tls,
    });
    Ok(target(kind, hosts, tls, of_redis, parse_db(db)?))
}

fn of_socket(rest: &str) -> Result<Target, UrlError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let [db] = parse_query(query, ["db"], UrlError::NotOfASocket)?;
    let (account, path) = if rest.starts_with('/') {
        (Account::default(), rest.to_owned())
    } else {
        let (account, path) = rest.rsplit_once("@/").ok_or(UrlError::NoPath)?;
        (parse_account(account)?, format!("/{path}"))
    };
    let name = decoded(&path)?;
    if name.ends_with('/') {
        return Err(UrlError::NoPath);
    }
    let db = parse_db(db.as_deref().unwrap_or_default())?;
    let hosts = vec![Host { name, port: 0 }];
    Ok(target(Kind::Single, hosts, false, account, db))
}

fn target(kind: Kind, hosts: Vec<Host>, tls: bool, account: Account, db: i64) -> Target {
    Target {
        kind,
        hosts,
        tls,
        account,
        db,
        certificates: Arc::default(),
    }
}

/// Reads `[user:password@]h1[:port],h2`, and returns what is behind it, without the `/` between.
fn parts(rest: &str, port: u16) -> Result<(Account, Vec<Host>, &str), UrlError> {
    if rest.contains('?') {
        return Err(UrlError::QueryOrFragment);
    }
    // A password may hold an `@` that was not encoded; no host does.
    let (account, rest) = match rest.rsplit_once('@') {
        Some((account, rest)) => (parse_account(account)?, rest),
        None => (Account::default(), rest),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = hosts.split(',').map(|host| parse_host(host, port));
    Ok((account, hosts.collect::<Result<_, _>>()?, path))
}

/// Reads `name=value&name=value`. Returns the value of each of `names` that is there. Any other
/// name is the mistake `other`.
fn parse_query<const N: usize>(
    query: &str,
    names: [&str; N],
    other: UrlError,
) -> Result<[Option<String>; N], UrlError> {
    let mut values = [const { None }; N];
    for field in query.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').ok_or(other)?;
        let at = names.iter().position(|known| *known == name).ok_or(other)?;
        if values[at].replace(decoded(value)?).is_some() {
            return Err(UrlError::GivenTwice);
        }
    }
    Ok(values)
}

/// Reads the number of a database; 0 if there is none.
fn parse_db(text: &str) -> Result<i64, UrlError> {
    if text.is_empty() {
        return Ok(0);
    }
    let db = text.parse().map_err(|_| UrlError::DatabaseNoNumber)?;
    if (0..=i64::from(u16::MAX)).contains(&db) {
        Ok(db)
    } else {
        Err(UrlError::DatabaseTooGreat)
    }
}

/// Reads `user:password`, `:password` or `user`.
fn parse_account(account: &str) -> Result<Account, UrlError> {
    let (user, password) = match account.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (account, None),
    };
    let user = if user.is_empty() {
        None
    } else {
        Some(decoded(user)?)
    };
    if user.is_some() && password.is_none() {
        return Err(UrlError::NoPassword);
    }
    let password = password.map(decoded).transpose()?;
    Ok(Account { user, password })
}

fn parse_host(text: &str, default_port: u16) -> Result<Host, UrlError> {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(UrlError::NoBrackets);
            }
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.is_empty() {
        return Err(UrlError::NoHost);
    }
    let port = port.map_or(Ok(default_port), |port| {
        port.parse().map_err(|_| UrlError::PortNoNumber)
    })?;
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| UrlError::BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_shown_without_its_password() {
        for (url, shown) in [
            ("redis://h", "redis://h:6379/0"),
            (" redis://h/2\r\n", "redis://h:6379/2"),
            ("rediss://u:p%40x@h:1/3", "rediss://h:1/3"),
            ("redis://:p@[::1]:7/", "redis://[::1]:7/0"),
            (
                "redis+sentinel://a,b:5,[::2]/my/2",
                "redis+sentinel://a:26379,b:5,[::2]:26379/my/2",
            ),
            ("rediss+cluster://u:p@a:1,b", "rediss+cluster://a:1,b:6379"),
            (
                "redis+sentinel://a/m?sentinel_tls=true&sentinel_username=u&sentinel_password=p",
                "redis+sentinel://a:26379/m/0?sentinel_tls=true",
            ),
            (
                "rediss+sentinel://u:p@a/m/1?sentinel_tls=true",
                "rediss+sentinel://a:26379/m/1",
            ),
            ("redis+unix:///run/r.sock", "redis+unix:///run/r.sock?db=0"),
            (
                "unix://u:p@/run/a%20b.sock?db=3",
                "redis+unix:///run/a b.sock?db=3",
            ),
            (
                "unix://:p@@/run/a@b.sock",
                "redis+unix:///run/a@b.sock?db=0",
            ),
        ] {
            assert_eq!(format!("{:?}", Target::parse(url).expect(url)), shown);
        }
        let target = Target::parse("redis://u%3A:p%40@x@h").expect("good");
        assert_eq!(
            (
                target.account.user.as_deref(),
                target.account.password.as_deref()
            ),
            (Some("u:"), Some("p@@x"))
        );
    }

    #[test]
    fn each_mistake_is_named_and_no_password_told() {
        for (url, named) in [
            ("h:6379", "URL"),
            ("http://h", "scheme"),
            ("redis://", "host is missing"),
            ("redis://a,b", "several hosts"),
            ("redis://secret@h", "without a password"),
            ("redis://:secret@h:x", "port"),
            ("redis://h/x", "database"),
            ("redis://h/-1", "database"),
            ("redis://::1", "brackets"),
            ("redis://h?x=secret", "?"),
            ("redis+sentinel://h", "name of the master"),
            ("redis+cluster://h/1", "database 0"),
            ("redis+cluster://h?sentinel_tls=true", "%3F"),
            ("redis://h/0?db=1", "%3F"),
            ("redis://:secret?@h", "%3F"),
            ("redis+sentinel://:secret?x@h/m", "%3F"),
            ("redis+sentinel://h/m?password=secret", "sentinel_password"),
            (
                "redis+sentinel://h/m?sentinel_username=u",
                "sentinel_password",
            ),
            ("redis+sentinel://h/m?sentinel_tls=secret", "neither"),
            ("redis+sentinel://h/m?sentinel_password=secret#x", "%23"),
            (
                "redis+sentinel://h/m?sentinel_tls=true&sentinel_tls=true",
                "twice",
            ),
            ("redis+sentinel://h?sentinel_tls=true", "name of the master"),
            ("unix://run/r.sock", "begins with /"),
            ("redis+unix:///", "begins with /"),
            ("redis+unix:///r.sock?database=1", "only db="),
            ("redis+unix:///r.sock?db=x", "database"),
            ("redis+unix://secret@/r.sock", "without a password"),
            ("rediss+unix:///r.sock", "scheme"),
        ] {
            let mistake = Target::parse(url).expect_err(url).to_string();
            assert!(
                mistake.contains(named) && !mistake.contains("secret"),
                "{url}: {mistake}"
            );
        }
    }

    #[test]
    fn sentinels_may_have_an_account_of_their_own_that_may_change() {
        let read = |query: &str| {
            let url = format!("redis+sentinel://u:p@h/m?{query}");
            Target::parse(&url).expect("good")
        };
        let of = |target: &Target| match &target.kind {
            Kind::Sentinel(sentinels) => sentinels.account.clone(),
            _ => panic!("sentinels"),
        };
        let account = |user: Option<&str>, password: &str| {
            Some(Account {
                user: user.map(str::to_owned),
                password: Some(password.to_owned()),
            })
        };
        let one = read("sentinel_username=s%26&sentinel_password=a%3Fb=c+d");
        assert!(of(&one) == account(Some("s&"), "a?b=c+d"));
        let other = read("sentinel_password=e");
        assert!(of(&other) == account(None, "e"));
        assert!(of(&read("")).is_none() && of(&read("sentinel_password=")).is_none());
        assert!(one != other && one.is_at_the_servers_of(&other) && one.has_password());
        assert!(!one.is_at_the_servers_of(&read("sentinel_tls=true")));
    }
}
