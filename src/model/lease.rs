//! Affinity: which nodes hold waiters of a key. Pure.

/// The longest name of a node. A name of the domain name system has up to 253 bytes.
const MAX_NAME_BYTES: usize = 512;

/// A record that a node may hold waiters of a key. In the list of all nodes it is a record that
/// the node is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node, as `<node id>@<address>`.
    pub name: String,
    /// The time at which it ends, in ms since 1970 by the store's clock.
    pub ends: u64,
}

impl Lease {
    /// Makes a lease from what the store holds, or another node names. Returns `None` if `name`
    /// is not the name of a node: letters and digits, `@`, and `http://host:port`.
    #[must_use]
    pub fn parse(name: &str, ends: u64) -> Option<Self> {
        let (node, url) = name.split_once('@')?;
        let is_id = !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_host = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_graphic())
                && !host.contains(['/', '?', '#', '@', '\\'])
        };
        let is_good = name.len() <= MAX_NAME_BYTES
            && is_id
            && url.strip_prefix("http://").is_some_and(is_host);
        is_good.then(|| Self {
            name: name.to_owned(),
            ends,
        })
    }

    /// Returns the node's id and the URL at which it is reached.
    #[must_use]
    pub fn node_and_url(&self) -> (&str, &str) {
        self.name.split_once('@').unwrap_or_default()
    }
}

/// The list of the nodes that share a store, as one node reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeList {
    /// The time at which it was read, in ms since 1970 by the store's clock.
    pub now: u64,
    /// The other nodes. The end of a lease is the end of its node's place.
    pub others: Vec<Lease>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_names_a_node_and_where_it_is_reached() {
        let lease = Lease::parse("n1@http://10.0.0.1:11001", 5).expect("good");
        assert_eq!(lease.node_and_url(), ("n1", "http://10.0.0.1:11001"));
        for bad in [
            "",
            "n1",
            "@http://a:1",
            "n1@",
            "n1@https://a:1",
            "n1@unix:/x",
            "n 1@http://a:1",
            "n1\n@http://a:1",
            "n1@http://",
            "n1@http://a:1/x",
            "n1@http://a:1?x",
            "n1@http://a:1#x",
            "n1@http://u:p@a:1",
            "n1@http://a:1\r\nx: y",
        ] {
            assert_eq!(Lease::parse(bad, 5), None, "{bad}");
        }
        let named = |host: usize| format!("n1@http://{}:1", "a".repeat(host));
        assert!(Lease::parse(&named(MAX_NAME_BYTES - 12), 5).is_some());
        assert_eq!(Lease::parse(&named(MAX_NAME_BYTES - 11), 5), None);
        assert!(Lease::parse("n1@http://[::1]:11001", 5).is_some());
    }
}
