//! The settings of Redis, which are one value for the store.

use std::sync::Arc;

use super::declarations::{
    MAX_LEASES, REDIS, REDIS_CA, REDIS_CERT, REDIS_FILE, REDIS_IN_FLIGHT, REDIS_KEY, REDIS_PREFIX,
    REDIS_TIMEOUT,
};
use super::reader::SettingReader;
use super::redis_files::{RedisFiles, parse_url};
use super::setting::Declared;
use crate::store::redis::{RedisCertificates, RedisOptions, Target, TargetFiles};

const SHOWN_PASSWORD: &str = "a password on the command line is read by every user of the \
     machine; write the URL into HOLDFAST_REDIS, or into a file that is named instead";

/// Reads the settings of Redis. Returns `None` if no Redis is named, or if there is a mistake in
/// the way it is named.
pub(super) fn read(reader: &mut SettingReader, max_waiters: usize) -> Option<RedisOptions> {
    let target = target(reader);
    let paths = RedisFiles::of(reader);
    let certificates = certificates(reader, &paths, target.as_ref());
    let target = target.map(|target| target.with_certificates(Arc::new(certificates)));
    let max_leases = reader.optional(&MAX_LEASES).unwrap_or(max_waiters);
    let prefix = reader.value(&REDIS_PREFIX);
    let timeout = reader.value(&REDIS_TIMEOUT);
    let in_flight = reader.value(&REDIS_IN_FLIGHT);
    let target = target?;
    let start = target.clone();
    let files = paths.is_any();
    let files = files.then(|| TargetFiles::new(move || paths.renew(&start)));
    Some(RedisOptions {
        target,
        files,
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
    match parse_url(&path) {
        Ok(target) => Some(target),
        Err(mistake) => {
            let name = reader.name(&REDIS_FILE);
            reader.note(format!("{name} {mistake}"));
            None
        }
    }
}

/// Reads the certificates for TLS with Redis.
fn certificates(
    reader: &mut SettingReader,
    files: &RedisFiles,
    target: Option<&Target>,
) -> RedisCertificates {
    let all: [&dyn Declared; 3] = [&REDIS_CA, &REDIS_CERT, &REDIS_KEY];
    let given = |reader: &SettingReader, setting| reader.text(setting).is_some();
    for (one, other) in [(&REDIS_CERT, &REDIS_KEY), (&REDIS_KEY, &REDIS_CERT)] {
        if given(reader, one) && !given(reader, other) {
            let other = other.about.flag;
            let mistake = format!("needs --{other} too: the two files belong together");
            reader.refuse_together(&[one], &mistake);
        }
    }
    if target.is_some_and(|target| !target.has_tls())
        && let Some(setting) = all.into_iter().find(|setting| given(reader, *setting))
    {
        let mistake = "it is for TLS, and the URL of Redis has none: write rediss in place of redis; a unix socket has no TLS";
        reader.refuse_together(&[setting], mistake);
    }
    let read = files.read_certificates();
    for mistake in &read.mistakes {
        let setting = all.into_iter().find(|one| one.about().flag == mistake.flag);
        let file = mistake.file.to_string_lossy();
        reader.refuse(setting.unwrap_or(&REDIS_CA), &file, &mistake.text);
    }
    if let (Some(pair), Some(paths)) = (&read.pair, &files.pair) {
        let date = httpdate::fmt_http_date;
        let (certificate, key) = (paths.certificate.display(), paths.key.display());
        let cert =
            |text| format!("--redis-cert {certificate}: {text}: Redis may refuse this certificate");
        let expired = pair
            .expired
            .map(|time| cert(format!("expired on {}", date(time))));
        let begins = pair
            .begins
            .map(|time| cert(format!("valid only from {}", date(time))));
        let open = pair.is_open.then(|| {
            format!(
                "--redis-key {key}: every user of the machine can read this private key (chmod 600)"
            )
        });
        for warning in [expired, begins, open].into_iter().flatten() {
            reader.warn(warning);
        }
    }
    read.into_certificates()
}
