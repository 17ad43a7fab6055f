//! Where the demo is found: from this machine, and from a phone beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::listener::Address;

/// Two URLs of the public listener, as in `http://192.168.1.5:11000`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// For a browser on this machine; none on a unix socket.
    pub(crate) here: Option<String>,
    /// For a phone on the same network; none where only this machine is listened to, or there is no network.
    pub(crate) phone: Option<String>,
}

impl Addresses {
    /// Of a listener, by the address that it is bound to.
    pub(crate) fn of(public: &Address) -> Self {
        match public {
            Address::Tcp(address) => {
                let phone = address.parse().ok().and_then(|bound| for_a_phone(bound, own));
                Self {
                    here: Some(format!("http://{}", of_this_machine(address))),
                    phone: phone.map(|address| format!("http://{address}")),
                }
            }
            Address::Unix(_) => Self::default(),
        }
    }
}

/// An address that stands for all of the machine's, as one of them.
pub(super) fn of_this_machine(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(all) if all.ip().is_unspecified() && all.is_ipv4() => format!("127.0.0.1:{}", all.port()),
        Ok(all) if all.ip().is_unspecified() => format!("[::1]:{}", all.port()),
        _ => address.to_owned(),
    }
}

/// The address by which others reach a listener. `own` says which of the machine's it would use towards another one.
fn for_a_phone(bound: SocketAddr, own: impl Fn(IpAddr) -> Option<IpAddr>) -> Option<SocketAddr> {
    // They are for documentation (RFC 5737, RFC 3849): nobody's, so that the way to them is the default route.
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let ip = match bound.ip() {
        all if all.is_unspecified() && all.is_ipv4() => own(V4),
        // It takes connections of both versions, and at home version 4 is there more often.
        all if all.is_unspecified() => own(V4).or_else(|| own(V6)),
        one => Some(one),
    };
    let ip = ip.filter(|ip| !ip.is_loopback() && !ip.is_unspecified())?;
    Some(SocketAddr::new(ip, bound.port()))
}

/// Asks the system, by a socket that sends nothing.
fn own(towards: IpAddr) -> Option<IpAddr> {
    let any = if towards.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((towards, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_is_told_as_one_that_reaches_it() {
        for (bound, here) in
            [("0.0.0.0:7", "127.0.0.1:7"), ("[::]:7", "[::1]:7"), ("192.168.1.5:7", "192.168.1.5:7"), ("a:7", "a:7")]
        {
            assert_eq!(of_this_machine(bound), here);
        }
    }

    #[test]
    fn a_phone_is_led_to_what_is_no_loopback_address() {
        let lan =
            |towards: IpAddr| Some(if towards.is_ipv4() { [192, 168, 1, 5].into() } else { "fd00::5".parse().ok()? });
        let only_v6 = |towards: IpAddr| lan(towards).filter(IpAddr::is_ipv6);
        let alone = |_| Some(IpAddr::from([127, 0, 0, 1]));
        let phone = |bound: &str, own: &dyn Fn(IpAddr) -> Option<IpAddr>| {
            for_a_phone(bound.parse().expect(bound), own).map(|address| address.to_string())
        };
        assert_eq!(phone("0.0.0.0:7", &lan).as_deref(), Some("192.168.1.5:7"));
        assert_eq!(phone("[::]:7", &lan).as_deref(), Some("192.168.1.5:7"));
        assert_eq!(phone("[::]:7", &only_v6).as_deref(), Some("[fd00::5]:7"));
        assert_eq!(phone("10.0.0.9:7", &alone).as_deref(), Some("10.0.0.9:7"));
        for none in ["127.0.0.1:7", "127.0.0.9:7", "[::1]:7"] {
            assert_eq!(phone(none, &lan), None, "{none}");
        }
        assert_eq!((phone("0.0.0.0:7", &only_v6), phone("0.0.0.0:7", &alone)), (None, None));
        assert_eq!(Addresses::of(&Address::Unix("/a".into())), Addresses::default());
    }
}
