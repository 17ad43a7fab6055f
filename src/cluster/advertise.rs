//! The address at which other nodes reach this one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use thiserror::Error;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::sleep;
use tracing::{error, warn};

use crate::log::Seldom;
use crate::net::listener::Address;

/// The pause between two tries to find the route to Redis.
const WAIT_REST: Duration = Duration::from_millis(500);
/// The pause between two tries to resolve names that only a check needs.
const CHECK_REST: Duration = Duration::from_secs(1);
/// The time after which the node logs again that it waits for a route to Redis.
const WAIT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The reason why no address was found.
#[derive(Debug, Error)]
pub enum NoAddress {
    /// The settings are wrong. Holds a text for people.
    #[error("{0}")]
    Mistake(String),
    /// The name of `--advertise` cannot be resolved.
    #[error("{0}: {1}")]
    Failed(String, #[source] io::Error),
    /// The address is that of the way to Redis, and there is none yet: no name of Redis resolves, or
    /// there is no route.
    #[error("{0}: {1}")]
    NoWay(String, #[source] io::Error),
}

/// Returns the address that leases name: the `given` one, or else the internal listener's. If
/// the listener is bound to an unspecified address, its port is combined with the address from
/// which this machine speaks to the store's `servers`. Only then a name of theirs must resolve. There
/// are no servers if the store is reached by a unix socket.
///
/// # Errors
/// Returns [`NoAddress`]. An address that only this machine reaches is a mistake if Redis is on
/// another machine, because other nodes may be elsewhere too.
pub async fn find(
    given: Option<&Address>,
    internal: &Address,
    servers: &[(&str, u16)],
) -> Result<Address, NoAddress> {
    let (redis_at, unknown) = resolve(servers).await;
    let found = match given {
        Some(given) => given.clone(),
        None if servers.is_empty() && is_unspecified(internal) => {
            let mistake = "--advertise: needed, because --internal is on all addresses, and a unix \
                 socket to Redis does not show which of them other nodes reach: give --advertise \
                 http://host:port";
            return Err(NoAddress::Mistake(mistake.into()));
        }
        None => {
            let at = of_listener(internal, &redis_at).await;
            match (at, unknown) {
                (Err(NoAddress::NoWay(..)), Some((host, error))) if redis_at.is_empty() => {
                    let what = format!("cannot resolve {host} (--redis)");
                    return Err(NoAddress::NoWay(what, error));
                }
                (at, _) => at?,
            }
        }
    };
    let failed = |error| NoAddress::Failed(format!("cannot resolve {found} (--advertise)"), error);
    let resolved = found.resolve().await.map_err(failed)?;
    if is_reached_here_only(&resolved) && redis_at.is_empty() && !servers.is_empty() {
        warn!(address = %found, "other machines do not reach the address that this node gives to other nodes: that is right only if Redis, whose name does not resolve yet, is on this machine");
    }
    match mistake(&found, &resolved, &redis_at) {
        Some(mistake) => Err(NoAddress::Mistake(mistake)),
        None => Ok(found),
    }
}

/// Returns the addresses of the servers, and one whose name does not resolve, if there is one.
async fn resolve<'a>(
    servers: &[(&'a str, u16)],
) -> (Vec<SocketAddr>, Option<(&'a str, io::Error)>) {
    let asked = servers.iter().map(async |&(host, port)| {
        let found = lookup_host((host, port)).await;
        found.map(Vec::from_iter).map_err(|error| (host, error))
    });
    let (mut found, mut unknown) = (Vec::new(), None);
    for answer in join_all(asked).await {
        match answer {
            Ok(addresses) => found.extend(addresses),
            Err(host) => unknown = Some(host),
        }
    }
    (found, unknown)
}

fn is_local(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn is_reached_here_only(addresses: &[SocketAddr]) -> bool {
    !addresses.is_empty() && addresses.iter().all(is_local)
}

/// Returns the mistake of an address that only this machine reaches, while Redis is on another one.
fn mistake(found: &Address, resolved: &[SocketAddr], redis_at: &[SocketAddr]) -> Option<String> {
    let is_wrong = is_reached_here_only(resolved) && !redis_at.iter().all(is_local);
    is_wrong.then(|| {
        format!(
            "--advertise: other nodes do not reach {}, while Redis is on another machine; give --internal or \
             --advertise an address of the network",
            found.url()
        )
    })
}

/// Checks an address once more as soon as its name and one of Redis resolve. Logs an error if only this
/// machine reaches it, while Redis is on another one.
///
/// # Cancel safety
/// It has no effect but a log line.
pub async fn check_later(found: Address, servers: Vec<(String, u16)>) {
    let servers: Vec<_> = servers
        .iter()
        .map(|(host, port)| (host.as_str(), *port))
        .collect();
    loop {
        let (redis_at, _) = resolve(&servers).await;
        if let Ok(resolved) = found.resolve().await
            && !redis_at.is_empty()
        {
            if let Some(mistake) = mistake(&found, &resolved, &redis_at) {
                error!("{mistake}");
            }
            return;
        }
        sleep(CHECK_REST).await;
    }
}

/// Waits until [`find`] returns an address or a mistake of the settings. A name in `given` need not
/// resolve: platforms give a node its name when it is ready.
///
/// The server that has the name of Redis may start later than this node: container platforms take
/// the name away together with the server.
///
/// # Cancel safety
/// It has no effect but log lines.
pub async fn wait(
    given: Option<&Address>,
    internal: &Address,
    servers: &[(&str, u16)],
) -> Result<Address, NoAddress> {
    let waits = Seldom::each(WAIT_LOG_INTERVAL);
    loop {
        match find(given, internal, servers).await {
            Err(why @ NoAddress::NoWay(..)) => {
                if waits.admit().is_some() {
                    error!(%why, "waiting for a route to Redis, which shows the address of this node; to start at once, give --advertise");
                }
                sleep(WAIT_REST).await;
            }
            Err(why @ NoAddress::Failed(..)) => match given {
                Some(given) => {
                    warn!(%why, "other nodes do not reach this node until the name resolves");
                    return Ok(given.clone());
                }
                None => return Err(why),
            },
            found => return found,
        }
    }
}

fn is_unspecified(address: &Address) -> bool {
    matches!(address, Address::Tcp(text)
        if text.parse().is_ok_and(|address: SocketAddr| address.ip().is_unspecified()))
}

async fn of_listener(internal: &Address, redis_at: &[SocketAddr]) -> Result<Address, NoAddress> {
    let Address::Tcp(text) = internal else {
        return Err(NoAddress::Mistake(
            "--advertise: needed, since --internal is a unix socket".into(),
        ));
    };
    match text.parse::<SocketAddr>() {
        Ok(bound) if bound.ip().is_unspecified() => {
            let route =
                |error| NoAddress::NoWay("there is no route to Redis (--redis)".into(), error);
            let ip = route_to(bound.ip(), redis_at).await.map_err(route)?;
            Ok(Address::Tcp(SocketAddr::new(ip, bound.port()).to_string()))
        }
        _ => Ok(internal.clone()),
    }
}

/// Returns the local address used to reach the first routable address in `others`. Connecting a
/// UDP socket reveals it without sending a packet.
pub(crate) async fn route_to(bound: IpAddr, others: &[SocketAddr]) -> io::Result<IpAddr> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    // A listener on 0.0.0.0 is not reached by IPv6.
    for to in others.iter().filter(|to| bound.is_ipv6() || to.is_ipv4()) {
        let from = SocketAddr::new(
            if to.is_ipv4() {
                [0; 4].into()
            } else {
                [0; 16].into()
            },
            0,
        );
        let socket = UdpSocket::bind(from).await?;
        match socket.connect(to).await.and_then(|()| socket.local_addr()) {
            Ok(local) => return Ok(local.ip()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::Target;

    async fn found(given: Option<&str>, internal: &str, redis: &str) -> Result<String, NoAddress> {
        let given = given.map(|url| Address::of_url(url).expect("good"));
        let internal = Address::parse(internal).expect("good");
        let redis = Target::parse(redis).expect("good");
        let servers: Vec<_> = redis.addresses().collect();
        find(given.as_ref(), &internal, &servers)
            .await
            .map(|address| address.url())
    }

    #[tokio::test]
    async fn it_is_what_was_given_or_the_listener_s_or_that_of_the_way_to_redis() {
        let local = "redis://127.0.0.1:6379";
        assert_eq!(
            found(None, "127.0.0.1:5", local).await.expect("good"),
            "http://127.0.0.1:5"
        );
        assert_eq!(
            found(None, "0.0.0.0:5", local).await.expect("good"),
            "http://127.0.0.1:5"
        );
        let given = found(Some("http://10.0.0.1:7"), "0.0.0.0:5", "redis://10.0.0.9").await;
        assert_eq!(given.expect("good"), "http://10.0.0.1:7");
        assert_eq!(
            found(Some("http://localhost:7/"), "unix:/x", local)
                .await
                .expect("good"),
            "http://localhost:7"
        );
    }

    #[tokio::test]
    async fn a_name_of_redis_that_does_not_resolve_matters_only_if_the_address_depends_on_it() {
        let redis = "redis://nowhere.invalid";
        for (given, internal, expected) in [
            (Some("http://10.0.0.1:7"), "0.0.0.0:5", "http://10.0.0.1:7"),
            (None, "10.0.0.2:5", "http://10.0.0.2:5"),
            (None, "127.0.0.1:5", "http://127.0.0.1:5"),
        ] {
            assert_eq!(
                found(given, internal, redis).await.expect(internal),
                expected
            );
        }
        let waits = found(None, "0.0.0.0:5", redis).await;
        let Err(NoAddress::NoWay(what, _)) = waits else {
            panic!("{waits:?}");
        };
        assert_eq!(what, "cannot resolve nowhere.invalid (--redis)");
    }

    #[tokio::test]
    async fn a_loopback_address_with_a_remote_redis_is_a_mistake() {
        for (given, internal) in [
            (None, "127.0.0.1:5"),
            (Some("http://localhost:7"), "0.0.0.0:5"),
        ] {
            assert!(matches!(
                found(given, internal, "redis://192.0.2.1").await,
                Err(NoAddress::Mistake(_))
            ));
        }
    }
}
