//! A network of IP addresses, as `--trusted-proxy` names it. Pure.

use std::net::IpAddr;

/// The addresses that begin with the same bits, or the clients of unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// `10.0.0.0/8`, `2001:db8::/32`, or a single address.
    Ip {
        /// The first address.
        first: IpAddr,
        /// The number of bits that all its addresses share.
        bits: u32,
    },
    /// Clients that connect to a unix socket. They have no address.
    Unix,
}

impl Network {
    /// Reads a network: an address, an address with the number of its bits, or `unix:`.
    ///
    /// # Errors
    /// Returns the mistake, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "unix:" {
            return Ok(Self::Unix);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address
            .parse()
            .map_err(|_| "not an IP address; write 10.0.0.0/8, or unix:".to_owned())?;
        let longest = longest(first);
        let is_number = |bits: &&str| bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => longest,
            Some(bits) => Some(bits)
                .filter(is_number)
                .and_then(|bits| bits.parse().ok())
                .filter(|bits| *bits <= longest)
                .ok_or_else(|| format!("the number behind / must be from 0 to {longest}"))?,
        };
        if first.to_canonical() != first {
            return Err("write the IPv4 address alone, without ::ffff:".to_owned());
        }
        let network = Self::Ip { first, bits };
        if masked(first, bits) != masked(first, longest) {
            return Err(format!("the address has more than its first {bits} bits"));
        }
        Ok(network)
    }

    /// Returns whether a client with this address is of the network. Clients of unix sockets have
    /// none.
    #[must_use]
    pub fn contains(&self, client: Option<IpAddr>) -> bool {
        match (self, client.map(|ip| ip.to_canonical())) {
            (Self::Unix, client) => client.is_none(),
            (Self::Ip { .. }, None) => false,
            (Self::Ip { first, bits }, Some(ip)) => {
                first.is_ipv4() == ip.is_ipv4() && masked(ip, *bits) == masked(*first, *bits)
            }
        }
    }
}

/// Returns the number of bits of an address.
fn longest(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Returns the first `bits` bits of an address, with zeros behind them.
fn masked(ip: IpAddr, bits: u32) -> u128 {
    let all = match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    all & u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_with_its_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "::ffff:192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
        ] {
            let parsed = Network::parse(network).expect(network);
            let has = |ip: &str| parsed.contains(Some(ip.parse().expect("an address")));
            assert!(has(inside) && !has(outside), "{network}");
            assert!(!parsed.contains(None), "{network}");
        }
        assert!(Network::parse("unix:").expect("good").contains(None));
    }

    #[test]
    fn a_network_that_is_none_is_a_mistake() {
        for bad in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "10.0.0/8",
            "::1/129",
            "2001:db8::1/32",
            "::ffff:10.0.0.0/104",
            "localhost",
            "unix",
            "unix:/run/x",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
