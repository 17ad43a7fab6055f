//! Affinity: which nodes hold waiters of a key. Pure.

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
    /// Makes a lease from what the store holds. Returns `None` if `name` is not the name of a
    /// node.
    #[must_use]
    pub fn parse(name: &str, ends: u64) -> Option<Self> {
        let (node, address) = name.split_once('@')?;
        let good = !node.is_empty() && address.starts_with("http://");
        good.then(|| Self {
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
        ] {
            assert_eq!(Lease::parse(bad, 5), None, "{bad}");
        }
    }
}
