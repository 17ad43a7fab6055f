//! The settings of Redis, which are one value for the store.

use super::declarations::{
    MAX_LEASES, REDIS, REDIS_FILE, REDIS_IN_FLIGHT, REDIS_PREFIX, REDIS_TIMEOUT,
};
use super::file;
use super::reader::SettingReader;
use crate::store::redis::{RedisOptions, Target, TargetFile};

const SHOWN_PASSWORD: &str = "a password on the command line is read by every user of the \
     machine; write the URL into HOLDFAST_REDIS, or into a file that is named instead";

/// Reads the settings of Redis. Returns `None` if no Redis is named, or if there is a mistake in
/// the way it is named.
pub(super) fn read(reader: &mut SettingReader, max_waiters: usize) -> Option<RedisOptions> {
    let target = target(reader);
    let file = reader.optional(&REDIS_FILE).map(again);
    let max_leases = reader.optional(&MAX_LEASES).unwrap_or(max_waiters);
    let prefix = reader.value(&REDIS_PREFIX);
    let timeout = reader.value(&REDIS_TIMEOUT);
    let in_flight = reader.value(&REDIS_IN_FLIGHT);
    Some(RedisOptions {
        target: target?,
        file,
        prefix,
        timeout,
        in_flight,
        max_leases,
    })
}

fn target(reader: &mut SettingReader) -> Option<Target> {
    let mut of_flag = reader.optional(&REDIS);
    if reader.is_argument(&REDIS) && of_flag.as_ref().is_some_and(Target::has_password) {
        reader.note(format!("--redis: {SHOWN_PASSWORD}"));
        of_flag = None;
    }
    let of_file = target_of_file(reader);
    if of_flag.is_some() && of_file.is_some() {
        reader.note("--redis: given beside --redis-file; give one of them".to_owned());
    }
    of_flag.or(of_file)
}

/// Reads the file of `--redis-file`. A mistake does not repeat the URL in it, because there may
/// be a password in it.
fn target_of_file(reader: &mut SettingReader) -> Option<Target> {
    let path = reader.optional(&REDIS_FILE)?;
    match parse_file(&path) {
        Ok(target) => Some(target),
        Err(mistake) => {
            let name = reader.name(&REDIS_FILE);
            reader.note(format!("{name} {mistake}"));
            None
        }
    }
}

/// Reads the URL in a file. The mistake names the file.
pub(super) fn parse_file(path: &str) -> Result<Target, String> {
    let text = file::read(path).map_err(|mistake| format!("'{path}': {mistake}"))?;
    Target::parse(text.trim()).map_err(|error| format!("'{path}': {error}"))
}

/// Returns the file at a path, to be read again and again.
fn again(path: String) -> TargetFile {
    TargetFile::new(move || {
        // A pipe would be waited for without end, and has nothing new.
        match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Ok(None),
            _ => parse_file(&path).map(Some),
        }
    })
}
