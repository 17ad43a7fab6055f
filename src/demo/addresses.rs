//! The addresses of the demo: for this machine, and for a phone beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cluster::advertise::route_to;
use crate::net::listener::Address;

/// Two URLs of the public listener, such as `http://192.168.1.5:11000`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// For a browser on this machine; `None` on a unix socket.
    pub(crate) here: Option<String>,
    /// For a phone on the same network; `None` if the listener serves only this machine, or if
    /// there is no network.
    pub(crate) phone: Option<String>,
}

impl Addresses {
    /// Returns the addresses of a listener, made from the one that it is bound to.
    pub(crate) async fn of(public: &Address) -> Self {
        // Addresses for documentation (RFC 5737, RFC 3849). Nobody has them, so the way to them
        // is the default route. Version 4 is first, because homes have it more often.
        const NOBODY: [SocketAddr; 2] = [
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
            SocketAddr::new(
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
                9,
            ),
        ];
        let Address::Tcp(address) = public else {
            return Self::default();
        };
        let here = Some(format!("http://{}", of_this_machine(address)));
        let Ok(bound) = address.parse::<SocketAddr>() else {
            return Self { here, phone: None };
        };
        let route = route_to(bound.ip(), &NOBODY).await.ok();
        Self {
            here,
            phone: for_a_phone(bound, route).map(|address| format!("http://{address}")),
        }
    }
}

/// Returns the address itself, or a loopback address if it is unspecified and so stands for all
/// addresses of the machine.
pub(crate) fn of_this_machine(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(all) if all.ip().is_unspecified() && all.is_ipv4() => {
            format!("127.0.0.1:{}", all.port())
        }
        Ok(all) if all.ip().is_unspecified() => format!("[::1]:{}", all.port()),
        _ => address.to_owned(),
    }
}

/// Returns the address by which others reach a listener. `route` is the machine's own address
/// towards them.
fn for_a_phone(bound: SocketAddr, route: Option<IpAddr>) -> Option<SocketAddr> {
    let ip = if bound.ip().is_unspecified() {
        route
    } else {
        Some(bound.ip())
    };
    let ip = ip.filter(|ip| !ip.is_loopback() && !ip.is_unspecified())?;
    Some(SocketAddr::new(ip, bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_is_told_as_one_that_reaches_it() {
        for (bound, here) in [
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("[::]:7", "[::1]:7"),
            ("192.168.1.5:7", "192.168.1.5:7"),
            ("a:7", "a:7"),
        ] {
            assert_eq!(of_this_machine(bound), here);
        }
    }

    #[test]
    fn a_phone_is_led_to_what_is_no_loopback_address() {
        let phone = |bound: &str, route: Option<&str>| {
            let route = route.map(|ip| ip.parse().expect(ip));
            for_a_phone(bound.parse().expect(bound), route).map(|address| address.to_string())
        };
        let lan = Some("192.168.1.5");
        assert_eq!(phone("0.0.0.0:7", lan).as_deref(), Some("192.168.1.5:7"));
        assert_eq!(
            phone("[::]:7", Some("fd00::5")).as_deref(),
            Some("[fd00::5]:7")
        );
        assert_eq!(phone("10.0.0.9:7", lan).as_deref(), Some("10.0.0.9:7"));
        for (bound, route) in [
            ("127.0.0.1:7", lan),
            ("127.0.0.9:7", lan),
            ("[::1]:7", lan),
            ("0.0.0.0:7", None),
            ("0.0.0.0:7", Some("127.0.0.1")),
        ] {
            assert_eq!(phone(bound, route), None, "{bound}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_no_page_s_address() {
        assert_eq!(
            Addresses::of(&Address::Unix("/a".into())).await,
            Addresses::default()
        );
    }
}
