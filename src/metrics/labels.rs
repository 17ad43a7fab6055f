//! The values of the labels of metrics. Each label is an enum, so that no text of a request can
//! become a label, and every series is there from the start.

use crate::model::cause::Cause;
use crate::model::signing::KeyRejection;

/// The values of one label.
pub trait Label: Copy + 'static {
    /// All values, each at the place that its index says.
    const ALL: &'static [Self];

    /// Returns the place of the value in [`Label::ALL`].
    fn index(self) -> usize;

    /// Returns the name that labels and logs use.
    fn as_str(self) -> &'static str;
}

/// Defines a label: an enum, and the text of each value.
macro_rules! labels {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is called what the documents call it")]
        $vis enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Returns the name that labels and logs use.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl $crate::metrics::Label for $name {
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

pub(crate) use labels;

labels! {
    /// The ending of a get, as `holdfast_gets_total` counts it.
    pub GetEnd {
        Success => "success",
        Timeout => "timeout",
        Retry => "retry",
        Busy => "busy",
        Gone => "gone",
        Invalid => "invalid",
        Unavailable => "unavailable",
        /// The client left before there was an answer.
        Left => "left",
    }
}

labels! {
    /// The ending of an event stream, as `holdfast_streams_ended_total` counts it.
    pub StreamEnd {
        /// A final status was written.
        Final => "final",
        Gone => "gone",
        Retry => "retry",
        Busy => "busy",
        Unavailable => "unavailable",
        /// It had lasted for `--stream-life`.
        Life => "life",
        /// The client left, or was cut off.
        Left => "left",
        Invalid => "invalid",
        /// The browser reconnected after an end for good, and was answered 204.
        Over => "over",
    }
}

labels! {
    /// A way on which a page hears a status, as `holdfast_statuses_total` and
    /// `holdfast_wake_seconds` count it.
    pub Wire {
        /// A script that calls a function.
        Jsonp => "jsonp",
        /// A script that assigns to a variable.
        Assignment => "assignment",
        Json => "json",
        Events => "events",
        Socket => "socket",
        /// A script of a template (`--wire`).
        Template => "template",
    }
}

labels! {
    /// The ending of a WebSocket, as `holdfast_sockets_ended_total` counts it.
    pub SocketEnd {
        /// The page closed it.
        Closed => "closed",
        /// It watched nothing.
        Empty => "empty",
        Retry => "retry",
        Busy => "busy",
        /// The page broke a rule of the protocol.
        Wrong => "wrong",
        /// The client left, or was cut off.
        Left => "left",
        /// The request was none for a WebSocket, or came from a foreign page.
        Invalid => "invalid",
    }
}

labels! {
    /// The ending of a set, as `holdfast_sets_total` counts it.
    pub SetEnd {
        Success => "success",
        Conflict => "conflict",
        TooLate => "too_late",
        Busy => "busy",
        Invalid => "invalid",
        Unavailable => "unavailable",
    }
}

labels! {
    /// A listener of the node.
    pub Side {
        Public => "public",
        Internal => "internal",
    }
}

labels! {
    /// The result of sending an update to another node, as `holdfast_forwards_total` counts it.
    pub Forward {
        Delivered => "delivered",
        /// Another node answered at the address of the node.
        Replaced => "replaced",
        /// The node did not confirm it.
        Silent => "silent",
        /// Not sent: its deadline passed before its turn came.
        Late => "late",
        /// Not sent: the node had failed to confirm another update shortly before.
        Skipped => "skipped",
        /// Not sent: too much is queued for the node, or there are too many nodes.
        Full => "full",
    }
}

labels! {
    /// A call of a store, as `holdfast_store_calls_total` counts it.
    pub Verb {
        Open => "open",
        Put => "put",
        Read => "look",
        Forget => "forget",
        PutAgain => "put_again",
        GiveBack => "give_back",
        Attend => "attend",
    }
}

labels! {
    /// The result of a call of a store.
    pub CallEnd {
        Ok => "ok",
        Conflict => "conflict",
        TooLate => "too_late",
        Full => "full",
        Unavailable => "unavailable",
        Unknown => "unknown",
    }
}

labels! {
    /// A queue, as `holdfast_queue_length` shows it.
    pub Queue {
        /// Updates that wait to be sent to other nodes.
        Peers => "peers",
        /// Keys with an update that could not be sent to another node.
        Missed => "missed",
        /// Updates that are kept to be put again if Redis loses them.
        Confirmed => "confirmed",
    }
}

labels! {
    /// A limit of the program, as `holdfast_limit_hits_total` counts it.
    pub Limit {
        Waiters => "waiters",
        WaitersPerKey => "waiters_per_key",
        /// Waiters of one client's address.
        WaitersPerAddress => "waiters_per_address",
        /// Gets a second of one client's address.
        GetsPerAddress => "gets_per_address",
        /// Clients' addresses without a waiter whose gets are counted.
        Addresses => "addresses",
        /// Keys of one WebSocket.
        KeysPerSocket => "keys_per_socket",
        /// Keys beyond the first of each WebSocket, of all together.
        SocketKeys => "socket_keys",
        Connections => "connections",
        InternalConnections => "internal_connections",
        /// The system has no descriptor, or no memory, for another connection.
        OpenFiles => "open_files",
        Statuses => "statuses",
        StatusBytes => "status_bytes",
        /// Keys with a waiter whose `last` is ahead of the clock.
        Floors => "floors",
        HeadBytes => "head_bytes",
        BodyBytes => "body_bytes",
        /// All bodies together that are being received.
        InboundBytes => "inbound_bytes",
        ValueBytes => "value_bytes",
        Batch => "batch",
        /// Leases that this node has in Redis.
        Leases => "leases",
        RedisInFlight => "redis_in_flight",
        /// Redis's own `maxmemory`.
        RedisMemory => "redis_memory",
        PeerQueue => "peer_queue",
        PeerQueueBytes => "peer_queue_bytes",
        /// Keys with an update that could not be sent to one node.
        MissedKeysPerPeer => "missed_keys_per_peer",
        /// Keys with an update that could not be sent, of all nodes together.
        MissedKeys => "missed_keys",
        /// Other nodes that this node sends updates to.
        Peers => "peers",
        /// Updates that are kept to be put again if Redis loses them.
        Confirmed => "confirmed",
        /// The work that the demo may cause on its node in a second.
        Demo => "demo",
    }
}

labels! {
    /// A kind of TLS handshake, as `holdfast_tls_handshakes_total` counts it.
    pub Handshake {
        /// The client was shown the certificate.
        Full => "full",
        /// The client had a ticket of an earlier connection.
        Resumed => "resumed",
    }
}

labels! {
    /// The reason why the node ended a connection before its client did, as
    /// `holdfast_dropped_total` counts it.
    pub DropReason {
        /// The client did not complete the handshake of TLS in time.
        HandshakeTimeout => "handshake_timeout",
        HeadTimeout => "head_timeout",
        BodyTimeout => "body_timeout",
        WriteTimeout => "write_timeout",
        IdleTimeout => "idle_timeout",
        /// The connection is not of a trusted proxy (`--trusted-proxy`).
        UntrustedProxy => "untrusted_proxy",
        /// A trusted proxy sent no header of the PROXY protocol, a wrong one, or none in time.
        BadProxyHeader => "bad_proxy_header",
        /// The client sent something that is no TLS, or asked for something in TLS that the node does
        /// not have.
        BadTls => "bad_tls",
        /// The client sent something that is no HTTP, or a request that a server must not guess
        /// at.
        BadHead => "bad_head",
        /// The client sent more than is allowed, or more than there was room for.
        TooLong => "too_long",
        /// The client sent too many frames of HTTP/2 that ask for work and want no answer, such as
        /// requests that it took back at once.
        Flood => "flood",
    }
}

impl Label for KeyRejection {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn as_str(self) -> &'static str {
        self.as_str()
    }
}

impl Label for Cause {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn as_str(self) -> &'static str {
        self.as_str()
    }
}
