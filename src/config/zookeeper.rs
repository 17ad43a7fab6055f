//! The settings of ZooKeeper: their declarations, and their one value for the store.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::declarations::MAX_STATUSES;
use super::reader::SettingReader;
use super::setting::Preset::{Unset, Value};
use super::setting::{Setting, StoreKind};
use super::value_kind::{Content, Number, Text, Time};
use crate::store::zookeeper::{Account, Target, ZooKeeperOptions};

const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(60);
const SESSIONS: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(60);

pub(super) const ZOOKEEPER: Setting<Target> = Setting::new(
    "zookeeper",
    &Text {
        unit: "servers",
        range: "`host1:2181,host2:2181,host3:2181/path`",
        parse: |text| Target::parse(text).map_err(|error| error.to_string()),
    },
    Unset,
    "Servers of the ZooKeeper that several nodes share, and the path below which they keep all. Not with `--redis`",
)
.notes("See [Redis or ZooKeeper](cluster.md#redis-or-zookeeper)");

pub(super) const ZOOKEEPER_FILE: Setting<Target> = Setting::new(
    "zookeeper-file",
    &Content(|text| Target::parse(text).map_err(|error| error.to_string())),
    Unset,
    "File that contains what `--zookeeper` names",
);

pub(super) const ZOOKEEPER_TIMEOUT: Setting<Duration> = Setting::new(
    "zookeeper-timeout",
    &Time(TIMEOUTS),
    Value("1s"),
    "Longest time that an operation of ZooKeeper may take",
)
.only_with(&[StoreKind::ZooKeeper])
.notes("A server must accept a connection within the same time");

pub(super) const ZOOKEEPER_SESSION: Setting<Duration> = Setting::new(
    "zookeeper-session",
    &Time(SESSIONS),
    Value("6s"),
    "Time without a sign of life after which ZooKeeper takes this node off the list of nodes",
)
.only_with(&[StoreKind::ZooKeeper])
.notes(
    "The servers allow from 2 to 20 times their `tickTime`, and use the nearest time that they \
     allow. While a node that has ended is on the list, each set waits for it for up to \
     `--peer-timeout`",
);

pub(super) const ZOOKEEPER_IN_FLIGHT: Setting<usize> = Setting::new(
    "zookeeper-in-flight",
    &Number {
        unit: "count",
        range: 1..=1 << 20,
    },
    Value("1024"),
    "Largest number of sets, deletions and backends' reads in ZooKeeper under way",
)
.only_with(&[StoreKind::ZooKeeper])
.notes("A quarter is for sets and deletions, an eighth for reads by backends, an eighth for recovery. Gets are read up to 64 at once, and need no share");

pub(super) const ZOOKEEPER_AUTH_FILE: Setting<Account> = Setting::new(
    "zookeeper-auth-file",
    &Content(|text| Account::parse(text).map_err(|error| error.to_string())),
    Unset,
    "File that contains `user:password` for ZooKeeper's scheme `digest`",
)
.only_with(&[StoreKind::ZooKeeper])
.notes("The znodes are then made for this account alone");

/// Reads the settings of ZooKeeper. Returns `None` if none is named, or if there is a mistake in the
/// way it is named.
pub(super) fn read(reader: &mut SettingReader) -> Option<ZooKeeperOptions> {
    let of_flag = reader.optional(&ZOOKEEPER);
    let of_file = reader.optional(&ZOOKEEPER_FILE);
    if of_flag.is_some() && of_file.is_some() {
        reader.note("--zookeeper: given beside --zookeeper-file; give one of them".to_owned());
    }
    let (account, timeout) = (
        reader.optional(&ZOOKEEPER_AUTH_FILE),
        reader.value(&ZOOKEEPER_TIMEOUT),
    );
    let (session, in_flight) = (
        reader.value(&ZOOKEEPER_SESSION),
        reader.value(&ZOOKEEPER_IN_FLIGHT),
    );
    Some(ZooKeeperOptions {
        target: of_flag.or(of_file)?,
        account,
        timeout,
        session,
        in_flight,
        max_statuses: reader.value(&MAX_STATUSES),
    })
}

/// The largest value that ZooKeeper takes with what surrounds it. By default a server closes the
/// connection of a client that sends more than 1,048,575 bytes.
pub(super) const MAX_VALUE_BYTES: usize = 1_000_000;
