//! A connection to one server or to a cluster.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::RoutingInfo;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, Value, cmd, pipe,
};
use tokio::time::timeout;

use super::certificates::{NO_PLAIN, NO_TLS};
use super::connect_error::ConnectError;
use super::last_words::{last_words, speaks_without_tls};
use super::server::Server;
use super::url::{Account, Host, Target};

/// The codes of the errors with which a server answers `PING` if it needs a password, or is about to
/// hang up.
const HANGS_UP: [&str; 3] = ["NOAUTH", "ERR", "DENIED"];

/// A connection to Redis of either kind. Cheap to clone.
#[derive(Clone)]
pub(super) enum Conn {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Conn {
    /// Sends a command on `key` to one server, and returns its answer. `asking` says that the
    /// key's slot is being moved to that server.
    ///
    /// # Errors
    /// Returns an error of the server or of the connection. The library repeats no command, so
    /// the caller knows how often it was sent.
    ///
    /// # Cancel safety
    /// If it is dropped, the command may be carried out, even much later.
    pub(super) async fn ask(
        &mut self,
        command: Cmd,
        server: &Server,
        key: &str,
        asking: bool,
    ) -> RedisResult<Value> {
        match self {
            Self::Single(conn) => conn.send_packed_command(&command).await?.extract_error(),
            Self::Cluster(conn) if asking => {
                let mut both = pipe();
                both.cmd("ASKING").add_command(command);
                let answer = conn
                    .route_pipeline(both, 1, 1, server.route(key))
                    .await?
                    .pop();
                answer.unwrap_or(Value::Nil).extract_error()
            }
            Self::Cluster(conn) => {
                let routing = RoutingInfo::SingleNode(server.route(key));
                conn.route_command(command, routing).await?.extract_error()
            }
        }
    }
}

/// Returns the settings of sockets to Redis. `limit` is the longest time that a command may
/// take.
///
/// The system gives up soon on bytes that are not acknowledged. Otherwise it would send them
/// again for minutes, even after the connection was closed here. A command is sent at once, even
/// while the answer to another one is awaited.
pub(super) fn tcp_settings(limit: Duration) -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout((2 * limit).max(Duration::from_secs(1)))
}

/// Connects to one server, and logs in.
///
/// # Errors
/// [`ConnectError`].
pub(super) async fn open(
    target: &Target,
    host: &Host,
    limit: Duration,
) -> Result<MultiplexedConnection, ConnectError> {
    let address = address(target, host, limit);
    let client = if target.tls {
        Client::build_with_tls(address, target.certificates.for_library())?
    } else {
        Client::open(address)?
    };
    // The library's time limits are off, because this program sets its own around each command
    // and around connecting.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let connecting = async {
        let mut conn = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        log_in(&mut conn, target).await?;
        Ok(conn)
    };
    let error: RedisError = match timeout(limit, connecting).await {
        Ok(Ok(conn)) => return Ok(conn),
        Ok(Err(error)) => error,
        Err(_) if target.tls && speaks_without_tls(host, limit / 2).await => {
            return Err(ConnectError::Server(host.clone(), NO_TLS.into()));
        }
        Err(_) => return Err(ConnectError::Late(host.clone())),
    };
    if error.code().is_none()
        && !error.is_connection_refusal()
        && let Some(said) = last_words(target, host, limit / 2).await
    {
        return Err(ConnectError::Server(host.clone(), said));
    }
    let hung_up = error.is_connection_dropped() && !error.is_connection_refusal();
    // A unix socket never has TLS.
    if !target.tls && host.socket().is_none() && error.code().is_none() && hung_up {
        let said = format!("{}: {NO_PLAIN}", words(&error));
        return Err(ConnectError::Server(host.clone(), said));
    }
    Err(ConnectError::of_login(host, &error))
}

/// Logs in, and chooses the database. The library could do both, but it does not repeat Redis's
/// words when a password is refused.
async fn log_in(conn: &mut MultiplexedConnection, target: &Target) -> RedisResult<()> {
    let Account { user, password } = &target.account;
    if let Some(password) = password {
        let mut login = cmd("AUTH");
        login.arg(user).arg(password);
        match login.exec_async(conn).await {
            // A Redis before version 6 has no users.
            Err(error) if user.is_some() && words(&error).contains("number of arguments") => {
                cmd("AUTH").arg(password).exec_async(conn).await?;
            }
            answered => answered?,
        }
    }
    if target.db != 0 {
        cmd("SELECT").arg(target.db).exec_async(conn).await?;
    }
    // A server may have hung up by now. Without a command under way, the library would not repeat
    // the cause, such as an alert of TLS.
    match cmd("PING").exec_async(conn).await {
        // With any other answer the connection stays. The inspection finds out what it is good for.
        Err(error) if error.code().is_some_and(|code| !HANGS_UP.contains(&code)) => Ok(()),
        answered => answered,
    }
}

/// Returns an error in Redis's own words, so that an operator can search for them. If Redis has
/// said nothing, returns the library's words.
pub(super) fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => {
            // Redis repeats the arguments of a command that it does not know, also the password of
            // AUTH.
            let (detail, _) = detail.split_once(", with args").unwrap_or((detail, ""));
            format!("{code} {detail}")
        }
        _ => error.to_string(),
    }
}

/// Returns the address of a server and the account to use there. `limit` is the longest time
/// that a command may take.
pub(super) fn info(target: &Target, host: &Host, limit: Duration) -> ConnectionInfo {
    let mut account = RedisConnectionInfo::default()
        .set_db(target.db)
        .set_skip_set_lib_name();
    if let Some(user) = &target.account.user {
        account = account.set_username(user);
    }
    if let Some(password) = &target.account.password {
        account = account.set_password(password);
    }
    address(target, host, limit).set_redis_settings(account)
}

/// Returns the address of a server, without an account.
fn address(target: &Target, host: &Host, limit: Duration) -> ConnectionInfo {
    let Host { name, port } = host.clone();
    let address = if let Some(path) = host.socket() {
        ConnectionAddr::Unix(path.to_owned())
    } else if target.tls {
        ConnectionAddr::TcpTls {
            host: name,
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(name, port)
    };
    let info = address
        .into_connection_info()
        .expect("an address is always good");
    info.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name())
        .set_tcp_settings(tcp_settings(limit))
}
