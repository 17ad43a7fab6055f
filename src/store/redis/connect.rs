//! Connects to a Redis of any kind, and keeps the source that says which servers are its
//! masters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::ProtocolVersion;
use redis::cluster::ClusterClientBuilder;
use tokio::time::timeout;

use super::conn::{Conn, info, open, tcp_settings};
use super::connect_error::ConnectError;
use super::sentinel::Sentinels;
use super::server::Servers;
use super::url::{Host, Kind, Target};

/// A connection, and the state that only its owner needs.
pub(super) struct Connected {
    pub(super) conn: Conn,
    pub(super) found_by: FoundBy,
    /// The servers and the keys that each has. In a cluster they are those that the last inspection
    /// found.
    pub(super) servers: Arc<Servers>,
}

impl Connected {
    fn new(conn: Conn, found_by: FoundBy) -> Self {
        Self {
            conn,
            found_by,
            servers: Arc::new(Servers::one()),
        }
    }
}

/// The source that says which servers are masters.
pub(super) enum FoundBy {
    /// The server itself.
    Itself,
    /// Sentinels, and the server that they named.
    Sentinels(Box<Sentinels>, Host),
    /// The nodes of a cluster.
    Cluster {
        /// The nodes that the settings name.
        hosts: Vec<Host>,
        /// The masters that nodes have named since the connection was made, by id.
        known: HashMap<String, Host>,
    },
}

/// Connects. If there are several servers, finds the master. `before` is the master that
/// sentinels named before.
///
/// # Errors
/// [`ConnectError`].
pub(super) async fn connect(
    target: &Target,
    before: Option<&Host>,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    match &target.kind {
        Kind::Single => {
            let conn = open(target, &target.hosts[0], limit).await?;
            Ok(Connected::new(Conn::Single(conn), FoundBy::Itself))
        }
        Kind::Sentinel(of_sentinels) => {
            let mut sentinels = Sentinels::new(target.clone(), of_sentinels.clone(), limit);
            let (conn, master) = sentinels.connect(before).await?;
            Ok(Connected::new(
                Conn::Single(conn),
                FoundBy::Sentinels(Box::new(sentinels), master),
            ))
        }
        Kind::Cluster => {
            let found_by = FoundBy::Cluster {
                hosts: target.hosts.clone(),
                known: HashMap::new(),
            };
            let nodes = target.hosts.iter().map(|host| info(target, host, limit));
            let mut client = ClusterClientBuilder::new(nodes)
                .connection_timeout(limit)
                .response_timeout(limit)
                // The library must repeat no command, so that the sender knows how often it was
                // sent: see `Conn::ask`.
                .retries(0)
                .tcp_settings(tcp_settings(limit))
                .use_protocol(ProtocolVersion::RESP3);
            if target.tls {
                client = client.certs(target.certificates.for_library());
            }
            let client = client.build()?;
            // The library asks one node after the other for the slots, and some nodes may be
            // frozen.
            let connecting = timeout(limit * 5, client.get_async_connection()).await;
            let conn = connecting.map_err(|_| ConnectError::ClusterLate)??;
            Ok(Connected::new(Conn::Cluster(conn), found_by))
        }
    }
}
