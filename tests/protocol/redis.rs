//! Redis: the hash of one key, the scripts that change it, the clock and the process.

use crate::{MAX_NODES, MAX_SETS, NodeId, SetId, Time, VERSIONS_PER_TICK, Version};

/// The ends of the leases of all nodes. 0 means no lease.
pub type Leases = [Time; MAX_NODES];

/// A status or a deletion: the protocol treats both alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// The version that it was given.
    pub version: Version,
    /// The set that wrote it.
    pub set: SetId,
}

/// The hash of the key in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyHash {
    /// `v`, `x`, `d`, `f`: the status.
    pub status: Option<Status>,
    /// `o`: the floor, which is the greatest `last` of a get.
    pub floor: Version,
    /// `p`: the end of the floor.
    pub floor_end: Time,
    /// `w`: the version that each known number got. 0 means that the number is not known.
    pub numbers: [Version; MAX_SETS],
    /// `<node>`: the end of each lease.
    pub leases: Leases,
}

/// The Redis process that is master now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redis {
    /// The run id of the process.
    pub process: u8,
    /// Its clock minus the clock that all nodes share.
    pub offset: i8,
    /// The key's hash.
    pub hash: KeyHash,
}

/// A set as a node sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Write {
    /// The number of the set.
    pub set: SetId,
    /// The latest time at which it may run, by the clock of the server that it is sent to.
    pub until: Time,
    /// The greatest time of the store that the node knows of.
    pub memory: Time,
}

/// The answer to a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteAnswer {
    /// The set has this version, now or since an earlier run. These leases are to be told.
    Stored(Version, Leases),
    /// Nothing was done, because `until` is over.
    Late,
}

impl KeyHash {
    /// Returns the hash of a replica that missed the last set and all opens.
    pub fn without_last_set(mut self) -> Self {
        if let Some(last) = self.status {
            self.numbers[last.set] = 0;
        }
        let sets = self
            .numbers
            .into_iter()
            .enumerate()
            .filter(|&(_, version)| version > 0);
        let newest = sets.max_by_key(|&(_, version)| version);
        Self {
            status: newest.map(|(set, version)| Status { version, set }),
            numbers: self.numbers,
            ..Self::default()
        }
    }
}

impl Redis {
    /// Returns the time by Redis's clock.
    pub fn now(&self, tick: Time) -> Time {
        tick.saturating_add_signed(self.offset)
    }

    /// Runs the script of a set. `knows_numbers` is off only to show what the numbers prevent.
    pub fn write(&mut self, write: Write, now: Time, knows_numbers: bool) -> WriteAnswer {
        let known = self.hash.numbers[write.set];
        if knows_numbers && known > 0 {
            return WriteAnswer::Stored(known, self.live_leases(now));
        }
        if now > write.until {
            return WriteAnswer::Late;
        }
        let stored = self.hash.status.map_or(0, |status| status.version);
        let floor = if self.hash.floor_end >= now {
            self.hash.floor
        } else {
            0
        };
        let time = now.max(write.memory) * VERSIONS_PER_TICK;
        let version = time.max(stored + 1).max(floor + 1);
        self.store(Status {
            version,
            set: write.set,
        });
        WriteAnswer::Stored(version, self.live_leases(now))
    }

    /// Runs the script of a set that is put again: with its old version, unless something newer
    /// is there. Returns the leases to be told, or `None` if another set with this version or a
    /// newer one is there.
    pub fn put_again(&mut self, status: Status, now: Time) -> Option<Leases> {
        let is_known = self.hash.numbers[status.set] > 0;
        let is_newer = self
            .hash
            .status
            .is_none_or(|stored| stored.version < status.version);
        if !is_known && !is_newer {
            return None;
        }
        if !is_known {
            self.store(status);
        }
        Some(self.live_leases(now))
    }

    /// Runs the script of a get: gives the node a lease and keeps the floor. Returns the
    /// lease's end and the stored version. `moves_end` is off only to show what moving the end
    /// prevents.
    pub fn open(
        &mut self,
        node: NodeId,
        last: Version,
        now: Time,
        lease: Time,
        moves_end: bool,
    ) -> (Time, Version) {
        let seen = self.hash.leases[node];
        let end = (now + lease).max(if moves_end { seen + 1 } else { seen });
        self.hash.leases[node] = end;
        if last > 0 {
            let floor = if self.hash.floor_end >= now {
                self.hash.floor
            } else {
                0
            };
            self.hash.floor = floor.max(last);
            self.hash.floor_end = self.hash.floor_end.max(end);
        }
        (end, self.hash.status.map_or(0, |status| status.version))
    }

    /// Runs the script that gives a lease back, unless the lease has another end than the node
    /// saw. The floor goes with the last lease.
    pub fn give_back(&mut self, node: NodeId, end: Time, now: Time) {
        if self.hash.leases[node] != end {
            return;
        }
        self.hash.leases[node] = 0;
        if self.live_leases(now) == Leases::default() {
            self.hash.floor = 0;
            self.hash.floor_end = 0;
        }
    }

    /// Continues as another process that holds `hash`, with a clock shifted by `shift`.
    pub fn replace(&mut self, hash: KeyHash, shift: i8) {
        self.process += 1;
        self.offset += shift;
        self.hash = hash;
    }

    /// Removes leases and a floor that have ended. Scripts ignore them anyway, so nothing
    /// depends on the time of their removal.
    pub fn remove_ended(&mut self, now: Time) {
        self.hash.leases = self.live_leases(now);
        if self.hash.floor_end < now {
            self.hash.floor = 0;
            self.hash.floor_end = 0;
        }
    }

    fn store(&mut self, status: Status) {
        self.hash.numbers[status.set] = status.version;
        self.hash.status = Some(status);
    }

    fn live_leases(&self, now: Time) -> Leases {
        self.hash.leases.map(|end| if end > now { end } else { 0 })
    }
}
