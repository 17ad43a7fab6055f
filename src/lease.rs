//! Affinity: which nodes hold waiters of a key. Pure.

/// That a node may hold waiters of a key; or, in the list of all nodes, that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node, as `<node id>@<address>`.
    pub name: String,
    /// When it ends, in ms since 1970 by the store's clock.
    pub ends: u64,
}

impl Lease {
    /// A lease from what stands in the store; `None` where that is no node's name.
    #[must_use]
    pub fn parse(name: &str, ends: u64) -> Option<Self> {
        let (node, address) = name.split_once('@')?;
        let good = !node.is_empty() && address.starts_with("http://");
        good.then(|| Self { name: name.to_owned(), ends })
    }

    /// The node's id, and the URL at which it is reached.
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
        for bad in ["", "n1", "@http://a:1", "n1@", "n1@https://a:1", "n1@unix:/x"] {
            assert_eq!(Lease::parse(bad, 5), None, "{bad}");
        }
    }
}
