//! A session with an ensemble: one task that connects to one server after the other, and keeps the
//! session over connections that break. If the session has expired, it makes another one.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::select;
use rand::seq::SliceRandom;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};

use super::jute::{Decode, Encode};
use super::link::{Link, LinkEnd, Pace, take_frame};
use crate::log::Seldom;
use crate::store::zookeeper::url::{Account, Host};

/// The time between two log lines about servers that cannot be reached.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after all servers were tried in vain, at first and at most.
const FIRST_REST: Duration = Duration::from_millis(50);
const MAX_REST: Duration = Duration::from_secs(1);
/// The part of the session's time without a connection after which it is given up. The servers have
/// ended it by then: they count from the last thing that they heard, and look twice in its time. A
/// session that is not given up could not be taken up again on an ensemble that was emptied,
/// because its servers refuse a client that has seen later writes than they have.
const GIVEN_UP_AFTER: f64 = 1.5;

/// The scheme of accounts with a user and a password.
const DIGEST: &str = "digest";

/// The settings of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionOptions {
    pub(crate) hosts: Vec<Host>,
    pub(crate) account: Option<Account>,
    /// The time without a sign of life after which the servers end the session. They may give
    /// another one.
    pub(crate) expiry: Duration,
    /// The longest time that connecting to one server may take.
    pub(crate) timeout: Duration,
}

/// A connection that works, and its session.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) link: Link,
    /// The session's number.
    pub(crate) session: i64,
    /// The server.
    pub(crate) host: Host,
}

/// A session that a server has given.
#[derive(Debug)]
struct Session {
    id: i64,
    password: Bytes,
    expiry: Duration,
    /// The number of the last write that was seen. A server that is behind it is not used.
    zxid: i64,
}

/// The reason why a server cannot be used.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// It has not yet found the others, or has seen less than this client.
    #[error("it hung up: it may have no quorum, or be behind")]
    HungUp,
    #[error("its answer makes no sense: is this a ZooKeeper?")]
    Nonsense,
    #[error("the session has expired")]
    Expired,
}

/// Starts a task that keeps a session. It ends when all receivers are dropped.
pub(crate) fn spawn(options: SessionOptions) -> watch::Receiver<Option<Connected>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(Owner::new(options, sender).run());
    receiver
}

/// Connects once, and ends the session after `work`.
///
/// # Errors
/// Returns what is wrong with each server, as a text for people.
pub(crate) async fn once<T>(
    options: SessionOptions,
    work: impl AsyncFnOnce(&Connected) -> T,
) -> Result<T, String> {
    let mut owner = Owner::new(options, watch::Sender::new(None));
    let opened = owner.find().await?;
    let begun = owner.begin(opened);
    let (connected, running) = begun.ok_or_else(|| HostError::Expired.to_string())?;
    let mut running = pin!(running);
    let done = tokio::select! {
        end = &mut running => return Err(format!("{}: {end}", connected.host)),
        done = work(&connected) => done,
    };
    let closed = connected.link.close_session();
    let _ = timeout(owner.options.timeout, select(running, pin!(closed))).await;
    Ok(done)
}

struct Owner {
    options: SessionOptions,
    session: Option<Session>,
    state: watch::Sender<Option<Connected>>,
    logged: Seldom,
}

/// A connection on which a session is established.
struct Opened {
    host: Host,
    stream: TcpStream,
    /// The bytes that were read behind the answer that established the session.
    begun: BytesMut,
}

impl Owner {
    const fn new(options: SessionOptions, state: watch::Sender<Option<Connected>>) -> Self {
        Self {
            options,
            session: None,
            state,
            logged: Seldom::each(LOG_INTERVAL),
        }
    }

    async fn run(mut self) {
        let mut lost_at = Instant::now();
        let mut rest = FIRST_REST;
        while !self.state.is_closed() {
            if let Some(session) = &self.session
                && lost_at.elapsed() > session.expiry.mul_f64(GIVEN_UP_AFTER)
            {
                info!("the session with ZooKeeper is given up");
                self.session = None;
            }
            let began = Instant::now();
            match self.find().await {
                Ok(opened) => {
                    self.use_server(opened).await;
                    lost_at = Instant::now();
                }
                Err(why) => {
                    if self.logged.admit().is_some() {
                        warn!(%why, "no server of ZooKeeper can be used");
                    }
                }
            }
            // A server may hang up again and again.
            if began.elapsed() > MAX_REST {
                rest = FIRST_REST;
            }
            sleep(rest).await;
            rest = (rest * 2).min(MAX_REST);
        }
    }

    /// Connects to the first server that works, in random order.
    ///
    /// # Errors
    /// Returns what is wrong with each server, as a text for people.
    async fn find(&mut self) -> Result<Opened, String> {
        let mut hosts = self.options.hosts.clone();
        hosts.shuffle(&mut rand::rng());
        let mut failures = Vec::new();
        for host in hosts {
            match self.connect(&host).await {
                Ok((stream, begun)) => {
                    return Ok(Opened {
                        host,
                        stream,
                        begun,
                    });
                }
                Err(error) => {
                    if matches!(error, HostError::Expired) {
                        info!(%host, "the session with ZooKeeper has expired");
                        self.session = None;
                    }
                    failures.push(format!("{host}: {error}"));
                }
            }
        }
        Err(failures.join("; "))
    }

    /// Begins to use a connection: logs in, and returns what its users need. The connection works
    /// while the future runs.
    fn begin(&self, opened: Opened) -> Option<(Connected, impl Future<Output = LinkEnd> + use<>)> {
        let session = self.session.as_ref()?;
        let link = Link::new(session.zxid);
        if let Some(account) = &self.options.account {
            link.log_in(DIGEST, account.as_bytes());
        }
        let connected = Connected {
            link: link.clone(),
            session: session.id,
            host: opened.host,
        };
        // As ZooKeeper's own client does.
        let pace = Pace {
            ping: session.expiry / 3,
            silence: session.expiry * 2 / 3,
        };
        debug!(host = %connected.host, session = session.id, expiry = ?session.expiry, "connected");
        let running = async move { link.run(opened.stream, opened.begun, pace).await };
        Some((connected, running))
    }

    /// Uses a server until its connection ends.
    async fn use_server(&mut self, opened: Opened) {
        let Some((connected, running)) = self.begin(opened) else {
            return;
        };
        self.state.send_replace(Some(connected.clone()));
        let end = tokio::select! {
            end = running => end,
            () = self.state.closed() => return,
        };
        self.state.send_replace(None);
        if let Some(session) = &mut self.session {
            session.zxid = session.zxid.max(connected.link.zxid());
        }
        let host = connected.host;
        if matches!(end, LinkEnd::AuthFailed) {
            error!(%host, "ZooKeeper refuses the account of --zookeeper-auth-file");
        } else {
            warn!(%host, why = %end, "the connection to ZooKeeper has ended");
        }
    }

    /// Connects to a server, and establishes the session there.
    async fn connect(&mut self, host: &Host) -> Result<(TcpStream, BytesMut), HostError> {
        let limit = self.options.timeout;
        timeout(limit, async {
            let mut stream = TcpStream::connect((host.name.as_str(), host.port)).await?;
            stream.set_nodelay(true)?;
            let begun = self.establish(&mut stream).await?;
            Ok((stream, begun))
        })
        .await
        .unwrap_or(Err(HostError::Late(limit)))
    }

    /// Takes up the session on a connection, or begins one if there is none. Returns what was read
    /// behind the answer.
    async fn establish<S>(&mut self, stream: &mut S) -> Result<BytesMut, HostError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let before = self.session.as_ref();
        stream
            .write_all(&greeting(before, self.options.expiry))
            .await?;
        let mut bytes = BytesMut::new();
        let mut answer = loop {
            match take_frame(&mut bytes) {
                Err(_) => return Err(HostError::Nonsense),
                Ok(Some(answer)) => break answer,
                Ok(None) => {}
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(HostError::HungUp);
            }
        };
        let answer = (|| {
            let _protocol = answer.int()?;
            Some((answer.int()?, answer.long()?, answer.buffer()?))
        })();
        let (expiry_ms, id, password) = answer.ok_or(HostError::Nonsense)?;
        let expiry_ms = u64::try_from(expiry_ms).map_err(|_| HostError::Nonsense)?;
        if expiry_ms == 0 || id == 0 {
            return Err(HostError::Expired);
        }
        self.session = Some(Session {
            id,
            password,
            expiry: Duration::from_millis(expiry_ms),
            zxid: before.map_or(0, |session| session.zxid),
        });
        Ok(bytes)
    }
}

/// Returns the message that begins a session, or takes up `before`.
fn greeting(before: Option<&Session>, expiry: Duration) -> BytesMut {
    const NO_PASSWORD: &[u8] = &[0; 16];
    let mut body = BytesMut::new();
    body.put_i32(0);
    body.put_i64(before.map_or(0, |session| session.zxid));
    body.put_i32(i32::try_from(expiry.as_millis()).unwrap_or(i32::MAX));
    body.put_i64(before.map_or(0, |session| session.id));
    body.put_buffer(before.map_or(NO_PASSWORD, |session| &session.password));
    // Not at a server that has lost the others, and can only be read from.
    body.put_flag(false);
    let mut message = BytesMut::new();
    message.put_buffer(&body);
    message
}
