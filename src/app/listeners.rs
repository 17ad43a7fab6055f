//! The listeners of a node, and the check that strangers do not reach the internal one.

use std::io;
use std::net::SocketAddr;

use tracing::{info, warn};

use super::tls::TlsListeners;
use super::{INTERNAL, PUBLIC, StartError};
use crate::config::Settings;
use crate::config::check::EXPOSED;
use crate::net::exposure;
use crate::net::listener::{Address, Listener};
use crate::net::passed::{self, Place};

/// The usual reason why an address is in use.
const IN_USE: &str = "another process listens there, such as the holdfast service. A holdfast that ends keeps its addresses for up \
     to --drain-notice and --drain-grace together";

/// The listeners of a node, each with its address.
pub(super) struct Listeners {
    pub(super) public: (Listener, Address),
    pub(super) tls: Option<TlsListeners>,
    pub(super) internal: (Listener, Address),
}

impl Listeners {
    /// Binds all listeners.
    ///
    /// # Errors
    /// [`StartError`]: an address cannot be used, or exposes the internal listener.
    pub(super) async fn bind(settings: &Settings) -> Result<Self, StartError> {
        let public = bind(PUBLIC, &settings.public).await?;
        let tls = match &settings.tls {
            Some(tls) => Some(TlsListeners::bind(tls).await?),
            None => None,
        };
        let internal = bind(INTERNAL, &Place::Address(settings.internal.clone())).await?;
        for number in passed::unused() {
            warn!(
                "no flag uses the socket fd:{number} that the process was started with: its clients get no answer"
            );
        }
        // Checked after the bind, because a name may have several addresses, and the listener is
        // bound to only one of them. No client is accepted before this check.
        check_exposure(settings, &internal.1.resolve().await.unwrap_or_default())?;
        Ok(Self {
            public,
            tls,
            internal,
        })
    }
}

pub(super) async fn bind(
    name: &'static str,
    place: &Place,
) -> Result<(Listener, Address), StartError> {
    let failed = |error: io::Error| {
        let error = if error.kind() == io::ErrorKind::AddrInUse {
            io::Error::new(error.kind(), format!("{error}; {IN_USE}"))
        } else {
            error
        };
        StartError::Failed(format!("cannot listen on {place} (--{name})"), error)
    };
    let listener = place.listen().await.map_err(failed)?;
    let bound = listener.address().map_err(failed)?;
    info!(listener = name, address = %bound, "listening");
    Ok((listener, bound))
}

/// Refuses an internal listener that others may reach and that asks for no token.
pub(super) fn check_exposure(
    settings: &Settings,
    addresses: &[SocketAddr],
) -> Result<(), StartError> {
    let is_guarded = settings.internal_without_token || settings.internal_tokens.first().is_some();
    if is_guarded
        || !addresses
            .iter()
            .any(|address| exposure::is_public(address.ip()))
    {
        return Ok(());
    }
    let given = settings.internal.to_string();
    Err(StartError::Mistake(format!(
        "--internal '{}': {}",
        given.escape_debug(),
        EXPOSED
    )))
}
