//! The files that are read again on SIGHUP: tokens, secrets of keys, and the URL of Redis.

use std::path::Path;

use super::declarations::{INTERNAL_TOKEN_FILE, KEY_SECRET_FILE, REDIS_FILE};
use super::reader::SettingReader;
use super::redis;
use super::setting::Setting;
use crate::http::auth::Tokens;
use crate::model::signing::Secrets;
use crate::runtime::regular_file::{NOT_REGULAR, may_wait};
use crate::store::redis::Target;

/// The paths of the files that were read at the start.
#[derive(Clone, Debug, Default)]
pub struct RereadFiles {
    tokens: Option<String>,
    secrets: Option<String>,
    redis: Option<String>,
}

/// The contents of the files.
#[derive(Debug)]
pub(crate) struct Reread {
    pub(crate) tokens: Option<Tokens>,
    pub(crate) secrets: Option<Secrets>,
    pub(crate) redis: Option<Target>,
}

impl RereadFiles {
    pub(super) fn of(reader: &SettingReader) -> Self {
        let path = |text: Option<&str>| text.map(str::to_owned);
        Self {
            tokens: path(reader.text(&INTERNAL_TOKEN_FILE)),
            secrets: path(reader.text(&KEY_SECRET_FILE)),
            redis: path(reader.text(&REDIS_FILE)),
        }
    }

    /// Returns what the files contain, in words; empty if there are none.
    pub(crate) fn contents(&self) -> Vec<&'static str> {
        let all = [
            (&self.tokens, "tokens"),
            (&self.secrets, "key secrets"),
            (&self.redis, "the account of Redis"),
        ];
        let given = all.into_iter().filter(|(path, _)| path.is_some());
        given.map(|(_, content)| content).collect()
    }

    /// Reads all files again.
    ///
    /// # Errors
    /// Returns the mistakes, each a text for people.
    pub(crate) fn read(&self) -> Result<Reread, Vec<String>> {
        let mut mistakes = Vec::new();
        let read = Reread {
            tokens: content(&INTERNAL_TOKEN_FILE, self.tokens.as_deref(), &mut mistakes),
            secrets: content(&KEY_SECRET_FILE, self.secrets.as_deref(), &mut mistakes),
            redis: one(
                "redis-file",
                self.redis.as_deref(),
                &mut mistakes,
                redis::parse_file,
            ),
        };
        if mistakes.is_empty() {
            Ok(read)
        } else {
            Err(mistakes)
        }
    }
}

fn content<T>(setting: &Setting<T>, path: Option<&str>, mistakes: &mut Vec<String>) -> Option<T> {
    one(setting.about.flag, path, mistakes, |path| {
        let parsed = setting.kind.parse(path);
        parsed.map_err(|mistake| format!("'{path}': {mistake}"))
    })
}

/// Reads one file. A pipe is a mistake, because it would keep the node waiting.
fn one<T>(
    flag: &str,
    path: Option<&str>,
    mistakes: &mut Vec<String>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let path = path?;
    let read = if may_wait(Path::new(path)) {
        Err(format!("'{path}': {NOT_REGULAR}"))
    } else {
        read(path)
    };
    read.map_err(|mistake| mistakes.push(format!("--{flag} {mistake}")))
        .ok()
}
