//! A connection: to one server, or to a cluster.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisFuture, Value,
};
use tokio::time::timeout;

use super::url::{Host, Target};

/// A connection to whatever Redis it is. Cheap to clone.
#[derive(Clone)]
pub(super) enum Conn {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Conn {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(conn) => conn.req_packed_command(cmd),
            Self::Cluster(conn) => conn.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(conn) => conn.req_packed_commands(pipeline, offset, count),
            Self::Cluster(conn) => conn.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(conn) => conn.get_db(),
            Self::Cluster(conn) => conn.get_db(),
        }
    }
}

/// Connects to one server.
///
/// # Errors
/// What is wrong, for people.
pub(super) async fn open(target: &Target, host: &Host, limit: Duration) -> Result<MultiplexedConnection, String> {
    let client = Client::open(info(target, host)).map_err(|error| error.to_string())?;
    // The time limits are kept here, around each command and around connecting.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let connected = timeout(limit, connecting).await.map_err(|_| format!("{host}: connecting took too long"))?;
    connected.map_err(|error| format!("{host}: {error}"))
}

/// How a server is reached, and by whom.
pub(super) fn info(target: &Target, host: &Host) -> ConnectionInfo {
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
