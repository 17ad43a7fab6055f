//! The membership of this node: one task that takes each new connection into use. It creates the
//! znodes that all nodes need, and the node's own, which is ephemeral. While that is there, every
//! other node tells this one of each set.
//!
//! Each connection begins an epoch, so that all held keys are opened again. The znode may have been
//! missing since the last one, and with it the sets that others told meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::client::{Access, CallError, Connected, Found, Link, Read, Refusal, Write};
use super::record::{Paths, SHARDS};
use super::told::Told;
use crate::log::Seldom;

/// The first words of the root's data: the program, and the version of the layout below it.
const LAYOUT: &str = "holdfast 1 ";
/// The time between two log lines about a connection that cannot be taken into use.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The pause before the next try.
const REST: Duration = Duration::from_millis(200);

/// The state of this node's membership.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The connection that is in use, while there is one.
    pub(super) joined: Option<Joined>,
    /// See [`Presence`](crate::store::Presence).
    pub(super) epoch: u64,
    /// See [`Presence`](crate::store::Presence).
    pub(super) generation: u64,
    /// The identity of the ensemble's data.
    pub(super) identity: Arc<str>,
}

/// A connection in use.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) link: Link,
    pub(super) session: i64,
    pub(super) generation: u64,
}

/// The reason why a connection cannot be taken into use.
#[derive(Debug, thiserror::Error)]
pub(super) enum JoinError {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("no answer in time")]
    Late,
    #[error("{0} was not written by holdfast, or by another version of it: choose another path")]
    NotOurs(String),
}

impl From<Refusal> for JoinError {
    fn from(refusal: Refusal) -> Self {
        Self::Call(refusal.into())
    }
}

/// Takes connections into use.
pub(super) struct Member {
    pub(super) connections: watch::Receiver<Option<Connected>>,
    pub(super) state: watch::Sender<State>,
    /// Asks for a new start on the same connection, because the node's znode is gone.
    pub(super) rejoin: Arc<Notify>,
    pub(super) entrance: Entrance,
    pub(super) told: Arc<Told>,
}

/// The znodes that are needed, and how they are made.
#[derive(Clone, Debug)]
pub(super) struct Entrance {
    pub(super) paths: Paths,
    /// The node's znode.
    pub(super) own: String,
    pub(super) access: Access,
    /// The longest time that an operation may take.
    pub(super) timeout: Duration,
}

impl Member {
    /// Runs until nobody needs it any more.
    pub(super) async fn run(mut self) {
        let logged = Seldom::each(LOG_INTERVAL);
        let mut greatest_zxid = 0;
        loop {
            let connected = self.connections.borrow_and_update().clone();
            if let Some(connected) = connected {
                match self.entrance.join(&connected).await {
                    Ok(identity) => {
                        let zxid = connected.link.zxid();
                        self.enter(&connected, identity, zxid < greatest_zxid);
                        greatest_zxid = zxid;
                    }
                    Err(error) => {
                        if logged.admit().is_some() {
                            warn!(host = %connected.host, %error, "ZooKeeper cannot be used");
                        }
                        tokio::select! {
                            () = sleep(REST) => continue,
                            _ = self.connections.changed() => {}
                            () = self.state.closed() => return,
                        }
                        continue;
                    }
                }
                tokio::select! {
                    changed = self.connections.changed() => if changed.is_err() {
                        return;
                    },
                    () = self.rejoin.notified() => warn!("this node's znode is gone: joining again"),
                    () = self.state.closed() => return,
                }
                greatest_zxid = greatest_zxid.max(connected.link.zxid());
                self.state.send_modify(|state| state.joined = None);
            } else {
                tokio::select! {
                    changed = self.connections.changed() => if changed.is_err() {
                        return;
                    },
                    () = self.state.closed() => return,
                }
            }
        }
    }

    /// Begins an epoch. `went_back` says that the ensemble has lost writes.
    fn enter(&self, connected: &Connected, identity: String, went_back: bool) {
        self.state.send_modify(|state| {
            let is_another = state.generation == 0 || went_back || *state.identity != identity;
            if is_another {
                if state.generation > 0 {
                    warn!("ZooKeeper has lost what was stored in it");
                    self.told.clear();
                }
                state.generation += 1;
                state.identity = identity.into();
            }
            state.epoch += 1;
            state.joined = Some(Joined {
                link: connected.link.clone(),
                session: connected.session,
                generation: state.generation,
            });
        });
        info!(host = %connected.host, "connected to ZooKeeper");
    }
}

impl Entrance {
    /// Creates what is missing, and the node's znode. Returns the identity of the ensemble's data.
    pub(super) async fn join(&self, connected: &Connected) -> Result<String, JoinError> {
        let link = &connected.link;
        let identity = match self.identity(link).await? {
            Some(identity) => identity,
            None => {
                self.create_all(link).await?;
                self.identity(link).await?.ok_or(Refusal::NoNode)?
            }
        };
        self.take_place(link, connected.session).await?;
        Ok(identity)
    }

    /// Reads the root. Returns `None` if there is none.
    async fn identity(&self, link: &Link) -> Result<Option<String>, JoinError> {
        let root = self.paths.root();
        let (synced, read) = (link.sync(root), link.read(&[Read::Data(root.to_owned())]));
        // A root that does not exist is nothing that a server could be behind with.
        match self.in_time(synced).await {
            Ok(()) | Err(JoinError::Call(CallError::Refused(Refusal::NoNode))) => {}
            Err(error) => return Err(error),
        }
        match self.in_time(read).await?.pop() {
            Some(Found::Data(data, _)) => {
                let text = std::str::from_utf8(&data).unwrap_or_default();
                if !text.starts_with(LAYOUT) {
                    return Err(JoinError::NotOurs(root.to_owned()));
                }
                Ok(Some(text.to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// Creates the root and all that every node needs below it, in one step.
    async fn create_all(&self, link: &Link) -> Result<(), JoinError> {
        for path in self.paths.above_root() {
            // Others may have things of their own there.
            let create = Write::Create {
                path: path.to_owned(),
                data: Bytes::new(),
                access: Access::Everybody,
                is_ephemeral: false,
            };
            ignore_existing(self.in_time(link.write(&[create])).await?)?;
        }
        let identity = format!("{LAYOUT}{:016x}", rand::random::<u64>());
        let mut all = vec![
            self.create(self.paths.root(), identity.into()),
            self.create(&self.paths.nodes(), Bytes::new()),
            self.create(&self.paths.keys(), Bytes::new()),
        ];
        let shards = (0..SHARDS).filter_map(|shard| u8::try_from(shard).ok());
        all.extend(shards.map(|shard| self.create(&self.paths.shard(shard), Bytes::new())));
        ignore_existing(self.in_time(link.write(&all)).await?)
    }

    /// Creates the node's znode, in the place of one that ends with an earlier session. Writes to it
    /// in any case: so the server has by now all that was written before, and the account may write.
    async fn take_place(&self, link: &Link, session: i64) -> Result<(), JoinError> {
        let found = self
            .in_time(link.read(&[Read::Data(self.own.clone())]))
            .await?;
        let create = Write::Create {
            path: self.own.clone(),
            data: Bytes::new(),
            access: self.access,
            is_ephemeral: true,
        };
        let writes = match found.first() {
            Some(Found::Data(_, stat)) if stat.owner == session => vec![Write::Set {
                path: self.own.clone(),
                data: Bytes::new(),
                version: None,
            }],
            Some(Found::Data(_, stat)) => vec![
                Write::Delete {
                    path: self.own.clone(),
                    version: Some(stat.version),
                },
                create,
            ],
            _ => vec![create],
        };
        self.in_time(link.write(&writes))
            .await?
            .map(drop)
            .map_err(|refused| refused.why.into())
    }

    fn create(&self, path: &str, data: Bytes) -> Write {
        Write::Create {
            path: path.to_owned(),
            data,
            access: self.access,
            is_ephemeral: false,
        }
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, JoinError> {
        let answer = timeout(self.timeout, call).await;
        Ok(answer.map_err(|_| JoinError::Late)??)
    }
}

/// Ignores that something exists already, because several nodes start together.
fn ignore_existing<T>(written: Result<T, super::client::Refused>) -> Result<(), JoinError> {
    match written {
        Ok(_) => Ok(()),
        Err(refused) if refused.why == Refusal::NodeExists => Ok(()),
        Err(refused) => Err(refused.why.into()),
    }
}
