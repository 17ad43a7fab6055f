//! The files of Redis: the URL, the authorities to trust and the client certificate. They are read at
//! the start, and again while the node runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::declarations::{REDIS_CA, REDIS_CERT, REDIS_FILE, REDIS_KEY};
use super::file;
use super::reader::SettingReader;
use crate::net::tls::client::{ClientPair, read_authorities};
use crate::net::tls::pair::{CertificateFiles, Mistake};
use crate::runtime::regular_file::{NOT_REGULAR, may_wait};
use crate::store::redis::{RedisCertificates, Target};

/// The paths of the files, of those that the settings name.
#[derive(Clone, Debug, Default)]
pub(super) struct RedisFiles {
    pub(super) url: Option<String>,
    pub(super) authorities: Option<PathBuf>,
    pub(super) pair: Option<CertificateFiles>,
}

impl RedisFiles {
    /// Returns the files that the settings name.
    pub(super) fn of(reader: &SettingReader) -> Self {
        let path = |text: Option<&str>| text.map(PathBuf::from);
        let pair = path(reader.text(&REDIS_CERT)).zip(path(reader.text(&REDIS_KEY)));
        Self {
            url: reader.text(&REDIS_FILE).map(str::to_owned),
            authorities: path(reader.text(&REDIS_CA)),
            pair: pair.map(|(certificate, key)| CertificateFiles { certificate, key }),
        }
    }

    /// Returns whether there is a file with certificates.
    pub(super) fn has_certificates(&self) -> bool {
        self.authorities.is_some() || self.pair.is_some()
    }

    /// Returns whether there is any file.
    pub(super) fn is_any(&self) -> bool {
        self.url.is_some() || self.has_certificates()
    }

    /// Returns the paths of all files, each with its flag.
    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let url = self.url.as_ref().map(Path::new);
        let pair = self.pair.as_ref();
        let all = [
            (REDIS_FILE.about.flag, url),
            (REDIS_CA.about.flag, self.authorities.as_deref()),
            (
                REDIS_CERT.about.flag,
                pair.map(|pair| pair.certificate.as_path()),
            ),
            (REDIS_KEY.about.flag, pair.map(|pair| pair.key.as_path())),
        ];
        all.into_iter()
            .filter_map(|(flag, path)| Some((flag, path?)))
    }

    /// Returns the mistakes of files that are no regular files. A pipe would be waited for without
    /// end, and has nothing new.
    fn odd(&self) -> Vec<String> {
        let odd = self.paths().filter(|(_, path)| may_wait(path));
        odd.map(|(flag, path)| told(flag, path, NOT_REGULAR))
            .collect()
    }

    /// Reads the files again. `start` is the Redis of the start, which stands for a URL that is in no
    /// file.
    ///
    /// # Errors
    /// Returns the mistakes, each a text for people without a password.
    pub(super) fn read_again(&self, start: &Target) -> Result<Target, Vec<String>> {
        let mut mistakes = self.odd();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let target = match self.url.as_deref().map(parse_url) {
            Some(Ok(target)) => target,
            Some(Err(mistake)) => {
                mistakes.push(format!("--{} {mistake}", REDIS_FILE.about.flag));
                start.clone()
            }
            None => start.clone(),
        };
        let read = self.read_certificates();
        // A certificate that was there at the start may be one that Redis does not ask for.
        let new_pair = read.pair.as_ref().filter(|pair| {
            let files = [&pair.certificate, &pair.key];
            !start
                .client_pair()
                .is_some_and(|start| start.iter().eq(files))
        });
        if let Some(expired) = new_pair.and_then(|pair| pair.expired)
            && let Some(files) = &self.pair
        {
            let text = format!("expired on {}", httpdate::fmt_http_date(expired));
            mistakes.push(told(REDIS_CERT.about.flag, &files.certificate, &text));
        }
        let refused = read.mistakes.iter();
        mistakes.extend(refused.map(|mistake| told(mistake.flag, &mistake.file, &mistake.text)));
        if mistakes.is_empty() {
            Ok(target.with_certificates(Arc::new(read.into_certificates())))
        } else {
            Err(mistakes)
        }
    }

    /// Reads the files again for a connection. Returns `None` if one of them is no regular file.
    pub(super) fn renew(&self, start: &Target) -> Result<Option<Target>, String> {
        if !self.odd().is_empty() {
            return Ok(None);
        }
        let read = self.read_again(start);
        read.map(Some).map_err(|mistakes| mistakes.join("; "))
    }

    /// Reads the certificates.
    pub(super) fn read_certificates(&self) -> ReadCertificates {
        let mut read = ReadCertificates::default();
        if let Some(path) = &self.authorities {
            match read_authorities(path) {
                Ok(authorities) => read.authorities = Some(authorities),
                Err(text) => read.mistakes.push(FileMistake {
                    flag: REDIS_CA.about.flag,
                    file: path.clone(),
                    text,
                }),
            }
        }
        if let Some(files) = &self.pair {
            match ClientPair::read(files) {
                Ok(pair) => read.pair = Some(pair),
                Err(mistakes) => read.mistakes.extend(mistakes.into_iter().map(of_pair)),
            }
        }
        read
    }
}

/// The certificates of the files, and the mistakes in them.
#[derive(Default)]
pub(super) struct ReadCertificates {
    authorities: Option<Vec<u8>>,
    pub(super) pair: Option<ClientPair>,
    pub(super) mistakes: Vec<FileMistake>,
}

impl ReadCertificates {
    pub(super) fn into_certificates(self) -> RedisCertificates {
        RedisCertificates {
            authorities: self.authorities,
            client: self.pair.map(|pair| [pair.certificate, pair.key]),
        }
    }
}

/// A mistake in a file, and the flag that names the file.
pub(super) struct FileMistake {
    pub(super) flag: &'static str,
    pub(super) file: PathBuf,
    pub(super) text: String,
}

fn of_pair(mistake: Mistake) -> FileMistake {
    let setting = if mistake.is_key {
        &REDIS_KEY
    } else {
        &REDIS_CERT
    };
    FileMistake {
        flag: setting.about.flag,
        file: mistake.file,
        text: mistake.text,
    }
}

fn told(flag: &str, path: &Path, mistake: &str) -> String {
    format!("--{flag} '{}': {mistake}", path.display())
}

/// Reads the URL in a file. The mistake names the file.
pub(super) fn parse_url(path: &str) -> Result<Target, String> {
    let text = file::read(path).map_err(|mistake| format!("'{path}': {mistake}"))?;
    Target::parse(text.trim()).map_err(|error| format!("'{path}': {error}"))
}
