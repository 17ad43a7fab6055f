//! Checks the headers of the PROXY protocol. The rules are those of its specification, read a second
//! time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use holdfast::fuzzed::{missing_of_proxy_header, proxied_client};

/// The longest headers of both versions, as docs/limits.md has them.
const LONGEST: [usize; 2] = [107, 4096];

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// It is whole: its length, and the client that it names, if it is good.
    Whole(usize, Option<Option<IpAddr>>),
    /// More bytes must come.
    Incomplete,
    /// No header begins so.
    Refused,
}

impl Read {
    /// Returns the length and the client of a good header.
    fn good(self) -> Option<(usize, Option<IpAddr>)> {
        match self {
            Self::Whole(length, Some(client)) => Some((length, client)),
            _ => None,
        }
    }
}

/// Checks that a header is read to its end and not beyond, however the bytes come, and names the
/// right client. The first byte of the input is the length of the pieces in which the others come.
pub fn check(input: &[u8]) {
    let Some((&size, bytes)) = input.split_first() else {
        return;
    };
    let whole = read(bytes, usize::MAX);
    // A bad one may be refused earlier or later.
    for size in [usize::from(size).max(1), 1] {
        assert_eq!(
            read(bytes, size).good(),
            whole.good(),
            "in pieces of {size}"
        );
    }
    let is_binary = bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n");
    if let Read::Whole(length, client) = whole {
        assert!(length <= LONGEST[usize::from(is_binary)]);
        let header = &bytes[..length];
        let expected = if is_binary {
            binary(header)
        } else {
            text(header)
        };
        assert_eq!(client, expected);
    }
    // A good header is not refused.
    let end = bytes.iter().position(|byte| *byte == b'\n');
    if let Some(end) = end.filter(|end| !is_binary && *end < LONGEST[0]) {
        let header = &bytes[..=end];
        if let Some(client) = text(header) {
            assert_eq!(whole, Read::Whole(header.len(), Some(client)));
        }
    }
}

/// Reads a header as a connection does, of which each read gets up to `size` bytes.
fn read(bytes: &[u8], size: usize) -> Read {
    let mut length = 0;
    loop {
        match missing_of_proxy_header(&bytes[..length]) {
            Ok(0) => return Read::Whole(length, proxied_client(&bytes[..length]).ok()),
            Ok(_) if length == bytes.len() => return Read::Incomplete,
            Ok(missing) => length += missing.min(size).min(bytes.len() - length),
            Err(_) => return Read::Refused,
        }
    }
}

/// Returns the client that a header of version 1 names, if the header is good.
fn text(header: &[u8]) -> Option<Option<IpAddr>> {
    let line = header.strip_prefix(b"PROXY ")?.strip_suffix(b"\r\n")?;
    if line.starts_with(b"UNKNOWN") {
        return (!line.contains(&b'\r')).then_some(None);
    }
    let line = std::str::from_utf8(line).ok()?;
    let fields: Vec<_> = line.split(' ').collect();
    let [family, source, destination, ports @ ..] = &fields[..] else {
        return None;
    };
    // A sign and zeros in front are let pass: the ports are not used.
    let is_port = |port: &&str| port.parse::<u16>().is_ok();
    if ports.len() != 2 || !ports.iter().all(is_port) {
        return None;
    }
    let addresses = [*source, *destination];
    let client = match *family {
        "TCP4" => addresses.map(|text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)),
        "TCP6" => addresses.map(|text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)),
        _ => return None,
    };
    client[1]?;
    Some(Some(client[0]?.to_canonical()))
}

/// Returns the client that a header of version 2 names, if the header is good.
fn binary(header: &[u8]) -> Option<Option<IpAddr>> {
    let (&[command, family], addresses) = (header.get(12..14)?.first_chunk()?, &header[16..]);
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return None,
    };
    let client = match family {
        0x00 => None,
        0x31 | 0x32 => {
            addresses.get(..216)?;
            None
        }
        0x11 | 0x12 => {
            let ip: [u8; 4] = *addresses.get(..12)?.first_chunk()?;
            Some(IpAddr::from(ip))
        }
        0x21 | 0x22 => {
            let ip: [u8; 16] = *addresses.get(..36)?.first_chunk()?;
            Some(IpAddr::from(ip).to_canonical())
        }
        _ => return None,
    };
    if is_local {
        return Some(None);
    }
    // UDP is refused.
    let is_udp = matches!(family, 0x12 | 0x22);
    (!is_udp).then_some(client)
}
