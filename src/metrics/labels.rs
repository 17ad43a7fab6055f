//! What the labels of metrics can say: each label is an enum, so that no text of a request can become one, and every series
//! is there from the start.

use crate::signing::NotGood;

/// The values of one label.
pub trait Label: Copy + 'static {
    /// All of them, each at the place that its number says.
    const ALL: &'static [Self];

    /// Its place.
    fn index(self) -> usize;

    /// As a label and in logs.
    fn as_str(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is called what README.md calls it")]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// As a label and in logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

labels! {
    /// How a get ended, as `holdfast_gets_total` tells it.
    GetEnd {
        Success => "success",
        Timeout => "timeout",
        Retry => "retry",
        Busy => "busy",
        Gone => "gone",
        Invalid => "invalid",
        Unavailable => "unavailable",
        /// The client went away before there was an answer.
        Left => "left",
    }
}

labels! {
    /// How a set ended, as `holdfast_sets_total` tells it.
    SetEnd {
        Success => "success",
        Conflict => "conflict",
        Busy => "busy",
        Invalid => "invalid",
        Unavailable => "unavailable",
    }
}

labels! {
    /// A listener of the node's.
    Side {
        Public => "public",
        Internal => "internal",
    }
}

labels! {
    /// What became of an update that another node was to be told of, as `holdfast_forwards_total` tells it.
    Forward {
        Delivered => "delivered",
        /// Another node is at its address.
        Replaced => "replaced",
        /// Nobody is.
        Absent => "absent",
        /// It did not confirm.
        Silent => "silent",
        /// Not tried: it had not confirmed shortly before.
        Skipped => "skipped",
        /// Not tried: too much waits for it, or there are too many nodes.
        Full => "full",
    }
}

labels! {
    /// What a store is asked, as `holdfast_store_calls_total` tells it.
    Verb {
        Open => "open",
        Put => "put",
        Look => "look",
        Forget => "forget",
        PutAgain => "put_again",
        DropLease => "drop_lease",
        Leave => "leave",
        Attend => "attend",
    }
}

labels! {
    /// What a store answered.
    CallEnd {
        Ok => "ok",
        Conflict => "conflict",
        Full => "full",
        Unavailable => "unavailable",
        Unknown => "unknown",
    }
}

labels! {
    /// A queue, as `holdfast_queue_length` tells it.
    Queue {
        /// Updates that wait for other nodes.
        Peers => "peers",
        /// Keys whose last set got no answer.
        Doubted => "doubted",
        /// Updates that are kept to be put again.
        Confirmed => "confirmed",
    }
}

labels! {
    /// A limit of the program's, as `holdfast_limit_hits_total` tells it.
    Limit {
        Waiters => "waiters",
        WaitersPerKey => "waiters_per_key",
        Connections => "connections",
        InternalConnections => "internal_connections",
        /// The system's: no descriptor, or no memory, for a connection.
        OpenFiles => "open_files",
        Statuses => "statuses",
        StatusBytes => "status_bytes",
        /// Keys that are waited for with a `last` ahead of the clock.
        Floors => "floors",
        HeadBytes => "head_bytes",
        BodyBytes => "body_bytes",
        /// Bodies that are under way together.
        InboundBytes => "inbound_bytes",
        ValueBytes => "value_bytes",
        Batch => "batch",
        RedisInFlight => "redis_in_flight",
        /// Redis's own `maxmemory`.
        RedisMemory => "redis_memory",
        PeerQueue => "peer_queue",
        /// Nodes that are spoken to.
        Peers => "peers",
        /// Updates that are kept to be put again.
        Confirmed => "confirmed",
        /// Keys whose last set got no answer.
        Doubted => "doubted",
        /// What the demo takes of its node in a second.
        Demo => "demo",
    }
}

labels! {
    /// Why the node ended a connection that its client had not done with, as `holdfast_dropped_total` tells it.
    Drop {
        HeadTimeout => "head_timeout",
        BodyTimeout => "body_timeout",
        WriteTimeout => "write_timeout",
        IdleTimeout => "idle_timeout",
        /// What came was no HTTP, or a request that a server must not guess at.
        BadHead => "bad_head",
        /// More was sent than may be.
        TooLong => "too_long",
    }
}

impl Label for NotGood {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn as_str(self) -> &'static str {
        self.as_str()
    }
}
