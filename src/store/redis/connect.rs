//! Connecting to whatever Redis it is, and who says which servers are its masters.

use std::collections::HashMap;
use std::time::Duration;

use redis::ProtocolVersion;
use redis::cluster::ClusterClientBuilder;
use tokio::time::timeout;

use super::conn::{Conn, info, open};
use super::sentinel::Sentinels;
use super::url::{Host, Kind, Target};

/// A connection, and what its owner alone has to know of it.
pub(super) struct Connected {
    pub(super) conn: Conn,
    pub(super) told_by: ToldBy,
}

/// Who says which servers are masters.
pub(super) enum ToldBy {
    /// The server itself.
    Itself,
    /// Sentinels; and which server they named.
    Sentinels(Sentinels, Host),
    /// A cluster's nodes; and the masters that they named since the connection was made, by id.
    Cluster(HashMap<String, Host>),
}

/// Connects, and finds the master where there are several servers.
///
/// # Errors
/// What is wrong, for people.
pub(super) async fn connect(target: &Target, limit: Duration) -> Result<Connected, String> {
    match &target.kind {
        Kind::Single => {
            let conn = open(target, &target.hosts[0], limit).await?;
            Ok(Connected { conn: Conn::Single(conn), told_by: ToldBy::Itself })
        }
        Kind::Sentinel(name) => {
            let mut sentinels = Sentinels::new(target.clone(), name.clone(), limit);
            let (conn, master) = sentinels.connect().await?;
            Ok(Connected { conn: Conn::Single(conn), told_by: ToldBy::Sentinels(sentinels, master) })
        }
        Kind::Cluster => {
            let nodes = target.hosts.iter().map(|host| info(target, host));
            let client = ClusterClientBuilder::new(nodes)
                .connection_timeout(limit)
                .response_timeout(limit)
                .retries(3)
                .min_retry_wait(10)
                .max_retry_wait(100)
                .use_protocol(ProtocolVersion::RESP3)
                .build()
                .map_err(|error| error.to_string())?;
            // It asks one after the other which slots there are, and some may be frozen.
            let connecting = timeout(limit * 5, client.get_async_connection()).await;
            let conn = connecting.map_err(|_| "connecting took too long")?.map_err(|error| error.to_string())?;
            Ok(Connected { conn: Conn::Cluster(conn), told_by: ToldBy::Cluster(HashMap::new()) })
        }
    }
}
