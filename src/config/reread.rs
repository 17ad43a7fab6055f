//! The files that are read again on SIGHUP: tokens, secrets of keys, and those of Redis.

use std::path::Path;

use super::declarations::{INTERNAL_TOKEN_FILE, KEY_SECRET_FILE};
use super::reader::SettingReader;
use super::redis_files::RedisFiles;
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
    redis: RedisFiles,
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
            redis: RedisFiles::of(reader),
        }
    }

    /// Returns what the files contain, in words; empty if there are none.
    pub(crate) fn contents(&self) -> Vec<&'static str> {
        let all = [
            (self.tokens.is_some(), "tokens"),
            (self.secrets.is_some(), "key secrets"),
            (self.redis.url.is_some(), "the account of Redis"),
            (self.redis.has_certificates(), "the certificates of Redis"),
        ];
        let given = all.into_iter().filter(|(is_given, _)| *is_given);
        given.map(|(_, content)| content).collect()
    }

    /// Reads all files again. `redis` is the Redis of the start, if there is one.
    ///
    /// # Errors
    /// Returns the mistakes, each a text for people.
    pub(crate) fn read(&self, redis: Option<&Target>) -> Result<Reread, Vec<String>> {
        let mut mistakes = Vec::new();
        let read = Reread {
            tokens: content(&INTERNAL_TOKEN_FILE, self.tokens.as_deref(), &mut mistakes),
            secrets: content(&KEY_SECRET_FILE, self.secrets.as_deref(), &mut mistakes),
            redis: redis.and_then(|start| match self.redis.read_again(start) {
                Ok(target) => Some(target),
                Err(more) => {
                    mistakes.extend(more);
                    None
                }
            }),
        };
        if mistakes.is_empty() {
            Ok(read)
        } else {
            Err(mistakes)
        }
    }
}

/// Reads one file. A pipe is a mistake, because it would keep the node waiting.
fn content<T>(setting: &Setting<T>, path: Option<&str>, mistakes: &mut Vec<String>) -> Option<T> {
    let path = path?;
    let read = if may_wait(Path::new(path)) {
        Err(NOT_REGULAR.to_owned())
    } else {
        setting.kind.parse(path)
    };
    let flag = setting.about.flag;
    read.map_err(|mistake| mistakes.push(format!("--{flag} '{path}': {mistake}")))
        .ok()
}
