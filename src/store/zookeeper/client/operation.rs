//! The operations that are sent, and the answers to them.

use bytes::{BufMut, Bytes, BytesMut};

use super::jute::{Decode, Encode};

/// The numbers of the operations.
pub(super) mod code {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const CHECK: i32 = 13;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const MULTI_READ: i32 = 22;
    pub(crate) const AUTH: i32 = 100;
    pub(crate) const CLOSE_SESSION: i32 = -11;
    pub(crate) const ERROR: i32 = -1;
}

/// All rights to a znode.
const ALL_RIGHTS: i32 = 31;
const EPHEMERAL: i32 = 1;
/// The version that a write takes for "any".
const ANY_VERSION: i32 = -1;

/// An operation that reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Reads a znode's data.
    Data(String),
    /// Reads the names of a znode's children.
    Children(String),
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Data(Bytes, Stat),
    Children(Vec<String>),
    /// There is no such znode.
    Nothing,
}

/// An operation that writes, or that makes the writes beside it depend on something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Create {
        path: String,
        data: Bytes,
        access: Access,
        /// Whether the znode ends with the session.
        is_ephemeral: bool,
    },
    /// Deletes a znode that has this version, or any.
    Delete { path: String, version: Option<i32> },
    /// Replaces the data of a znode that has this version, or any.
    Set {
        path: String,
        data: Bytes,
        version: Option<i32>,
    },
    /// Fails unless the znode has this version.
    Check { path: String, version: i32 },
}

/// The answer to a [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The znode was created.
    Created,
    Set(Stat),
    Done,
}

/// The clients that may read and write a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Everybody,
    /// Those that log in as the session that creates it has.
    Creator,
}

/// The part of a znode's description that is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The number of times that the data was replaced.
    pub(crate) version: i32,
    /// The time at which the data was replaced, in ms since 1970, by the clock of the leader.
    pub(crate) mtime: i64,
    /// The session that an ephemeral znode ends with; 0 for others.
    pub(crate) owner: i64,
    pub(crate) children: i32,
}

/// The codes of errors with a meaning for the caller. All others are shown as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("NoNode")]
    NoNode,
    #[error("NodeExists")]
    NodeExists,
    #[error("BadVersion")]
    BadVersion,
    #[error("NoAuth: the account has no right to it")]
    NoAuth,
    #[error("QuotaExceeded")]
    QuotaExceeded,
    #[error("SessionExpired")]
    SessionExpired,
    #[error("error {0}")]
    Other(i32),
}

impl Refusal {
    /// Returns the error with a code; `None` if the code is that of success.
    pub(super) fn of(code: i32) -> Option<Self> {
        Some(match code {
            0 => return None,
            -101 => Self::NoNode,
            -102 => Self::NoAuth,
            -103 => Self::BadVersion,
            -110 => Self::NodeExists,
            -112 => Self::SessionExpired,
            -125 => Self::QuotaExceeded,
            other => Self::Other(other),
        })
    }
}

/// The refusal of several writes, none of which was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write {at}: {why}")]
pub(crate) struct Refused {
    /// The place of the write that was refused.
    pub(crate) at: usize,
    pub(crate) why: Refusal,
}

impl Read {
    const fn code(&self) -> i32 {
        match self {
            Self::Data(_) => code::GET_DATA,
            Self::Children(_) => code::GET_CHILDREN,
        }
    }

    fn encode(&self, to: &mut BytesMut) {
        let (Self::Data(path) | Self::Children(path)) = self;
        to.put_text(path);
        // No watch is set.
        to.put_flag(false);
    }
}

impl Write {
    const fn code(&self) -> i32 {
        match self {
            Self::Create { .. } => code::CREATE,
            Self::Delete { .. } => code::DELETE,
            Self::Set { .. } => code::SET_DATA,
            Self::Check { .. } => code::CHECK,
        }
    }

    fn encode(&self, to: &mut BytesMut) {
        match self {
            Self::Create {
                path,
                data,
                access,
                is_ephemeral,
            } => {
                to.put_text(path);
                to.put_buffer(data);
                let (scheme, id) = match access {
                    Access::Everybody => ("world", "anyone"),
                    Access::Creator => ("auth", ""),
                };
                to.put_length(1);
                to.put_i32(ALL_RIGHTS);
                to.put_text(scheme);
                to.put_text(id);
                to.put_i32(if *is_ephemeral { EPHEMERAL } else { 0 });
            }
            Self::Delete { path, version } => {
                to.put_text(path);
                to.put_i32(version.unwrap_or(ANY_VERSION));
            }
            Self::Set {
                path,
                data,
                version,
            } => {
                to.put_text(path);
                to.put_buffer(data);
                to.put_i32(version.unwrap_or(ANY_VERSION));
            }
            Self::Check { path, version } => {
                to.put_text(path);
                to.put_i32(*version);
            }
        }
    }
}

/// Writes the operations of one request that is carried out as one step.
fn encode_all<'a, T: 'a>(
    operations: impl IntoIterator<Item = &'a T>,
    code: impl Fn(&T) -> i32,
    encode: impl Fn(&T, &mut BytesMut),
    to: &mut BytesMut,
) {
    let header = |to: &mut BytesMut, code: i32, is_last: bool| {
        to.put_i32(code);
        to.put_flag(is_last);
        to.put_i32(-1);
    };
    for operation in operations {
        header(to, code(operation), false);
        encode(operation, to);
    }
    header(to, -1, true);
}

pub(super) fn encode_reads(reads: &[Read], to: &mut BytesMut) {
    encode_all(reads, Read::code, Read::encode, to);
}

pub(super) fn encode_writes(writes: &[Write], to: &mut BytesMut) {
    encode_all(writes, Write::code, Write::encode, to);
}

/// Reads one answer after the other of a request that was carried out as one step. `each` is given
/// the code of each answer.
fn decode_all<T>(
    from: &mut Bytes,
    mut each: impl FnMut(i32, &mut Bytes) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    loop {
        let (code, is_last, _) = (from.int()?, from.flag()?, from.int()?);
        if is_last {
            return Some(all);
        }
        all.push(each(code, from)?);
    }
}

/// Reads the answer to several reads. Each of them is answered or refused by itself.
pub(super) fn decode_reads(mut from: Bytes) -> Option<Vec<Result<Found, Refusal>>> {
    decode_all(&mut from, |code, from| {
        Some(match code {
            code::GET_DATA => Ok(Found::Data(from.buffer()?, stat(from)?)),
            code::GET_CHILDREN => Ok(Found::Children(from.texts()?)),
            code::ERROR => match Refusal::of(from.int()?)? {
                Refusal::NoNode => Ok(Found::Nothing),
                refusal => Err(refusal),
            },
            _ => return None,
        })
    })
}

/// Reads the answer to several writes: all are carried out, or none.
pub(super) fn decode_writes(mut from: Bytes) -> Option<Result<Vec<Written>, Refused>> {
    /// The code of a write that would have been carried out but for another one.
    const NOT_TRIED: i32 = -2;
    let answers = decode_all(&mut from, |code, from| {
        Some(match code {
            code::CREATE => {
                from.text()?;
                Ok(Written::Created)
            }
            code::SET_DATA => Ok(Written::Set(stat(from)?)),
            code::DELETE | code::CHECK => Ok(Written::Done),
            code::ERROR => Err(from.int()?),
            _ => return None,
        })
    })?;
    let is_refused = |answer: &Result<Written, i32>| matches!(answer, Err(code) if *code != 0 && *code != NOT_TRIED);
    if let Some(at) = answers.iter().position(is_refused) {
        let why = Refusal::of(*answers[at].as_ref().err()?)?;
        return Some(Err(Refused { at, why }));
    }
    answers.into_iter().collect::<Result<_, _>>().ok().map(Ok)
}

fn stat(from: &mut Bytes) -> Option<Stat> {
    let (_czxid, _mzxid, _ctime, mtime) = (from.long()?, from.long()?, from.long()?, from.long()?);
    let (version, _cversion, _aversion) = (from.int()?, from.int()?, from.int()?);
    let (owner, _length, children, _pzxid) = (from.long()?, from.int()?, from.int()?, from.long()?);
    Some(Stat {
        version,
        mtime,
        owner,
        children,
    })
}
