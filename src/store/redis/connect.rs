//! Connecting to whatever Redis it is, and who says which servers are its masters.

use std::collections::HashMap;
use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo,
};
use tokio::time::timeout;

use super::script::Conn;
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

/// Connects to one server.
///
/// # Errors
/// What is wrong, for people.
pub(super) async fn open(
    target: &Target,
    host: &Host,
    limit: Duration,
) -> Result<redis::aio::MultiplexedConnection, String> {
    let client = Client::open(info(target, host)).map_err(|error| error.to_string())?;
    // The time limits are kept here, around each command and around connecting.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let connected = timeout(limit, connecting).await.map_err(|_| format!("{host}: connecting took too long"))?;
    connected.map_err(|error| format!("{host}: {error}"))
}

fn info(target: &Target, host: &Host) -> ConnectionInfo {
    let Host { name, port } = host.clone();
    let address = if target.tls {
        ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(name, port)
    };
    let mut account = RedisConnectionInfo::default().set_db(target.db).set_skip_set_lib_name();
    if let Some(user) = &target.user {
        account = account.set_username(user);
    }
    if let Some(password) = &target.password {
        account = account.set_password(password);
    }
    let info = address.into_connection_info().expect("an address is always good");
    info.set_redis_settings(account)
}
