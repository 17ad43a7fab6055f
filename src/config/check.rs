//! The rules for settings that are each valid, but may not go together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::Settings;
use super::declarations::{
    ADVERTISE, ALL, DRAIN_GRACE, DRAIN_QUIET, HOLD, HSTS, HTTP2, INTERNAL, INTERNAL_TOKEN_FILE,
    INTERNAL_WITHOUT_TOKEN, MAX_BODY_BYTES, MAX_HANDSHAKES, MAX_INBOUND_BYTES, MAX_VALUE_BYTES,
    PUBLIC, PUBLIC_TLS, TLS_CERT, TLS_KEY, TRUSTED_PROXY, WIRE,
};
use super::reader::SettingReader;
use super::setting::Declared;
use super::zookeeper::{self, ZOOKEEPER};
use crate::net::exposure;
use crate::net::listener::Address;
use crate::net::passed::Place;

/// The longest hold that proxies with default settings do not cut off. nginx and many load
/// balancers wait 60 s.
const LONG_HOLD: Duration = Duration::from_secs(55);

/// The mistake about an internal listener that has a public address and asks for no token, printed
/// after its flag. Everyone who reached it could set every status.
pub(crate) const EXPOSED: &str = "this address may be public, and no token is set: give \
     --internal-token-file, or an address of this machine or of a private network; if something \
     else keeps strangers away, give --internal-without-token";

/// Notes the mistakes of settings that do not go together.
pub(super) fn together(settings: &Settings, reader: &mut SettingReader) {
    let max_body_bytes = settings.max_body_bytes;
    if settings.max_value_bytes > max_body_bytes {
        let mistake = format!("more than --max-body-bytes {max_body_bytes}");
        reader.refuse_together(&[&MAX_VALUE_BYTES, &MAX_BODY_BYTES], &mistake);
    }
    if max_body_bytes > settings.max_inbound_bytes {
        let mistake = format!("less than --max-body-bytes {max_body_bytes}");
        reader.refuse_together(&[&MAX_INBOUND_BYTES, &MAX_BODY_BYTES], &mistake);
    }
    if settings.drain_quiet > settings.drain_grace {
        let grace = reader.text(&DRAIN_GRACE).unwrap_or_default();
        let mistake = format!("longer than --drain-grace {grace}");
        reader.refuse_together(&[&DRAIN_QUIET, &DRAIN_GRACE], &mistake);
    }
    if settings.redis.is_some() && settings.zookeeper.is_some() {
        reader.note("--zookeeper: given beside --redis; give one of them".to_owned());
    }
    let max_value = zookeeper::MAX_VALUE_BYTES;
    if settings.zookeeper.is_some() && settings.max_value_bytes > max_value {
        let mistake = format!("more than {max_value}, the most that ZooKeeper takes");
        reader.refuse_together(&[&MAX_VALUE_BYTES, &ZOOKEEPER], &mistake);
    }
    let has_files = !reader.texts(&TLS_CERT).is_empty() || !reader.texts(&TLS_KEY).is_empty();
    if settings.tls.is_some() && !has_files && !settings.demo {
        reader.note(
            "--public-tls: needs --tls-cert and --tls-key; only --demo makes a certificate of its own"
                .to_owned(),
        );
    }
    let internal = Place::Address(settings.internal.clone());
    let mut taken = vec![(&settings.public, "--public")];
    if settings.public == internal && !is_any_port(&internal) {
        reader.refuse_together(&[&INTERNAL, &PUBLIC], "the same address as --public");
    } else {
        taken.push((&internal, "--internal"));
    }
    for address in settings.tls.iter().flat_map(|tls| &tls.addresses) {
        match taken.iter().find(|(other, _)| *other == address) {
            Some((_, flag)) if !is_any_port(address) => {
                let mistake = format!("the same address as {flag}");
                reader.refuse(&PUBLIC_TLS, &address.to_string(), &mistake);
            }
            _ => taken.push((address, "another --public-tls")),
        }
    }
    let is_unix = matches!(settings.internal, Address::Unix(_));
    if is_unix && settings.redis.is_some() && settings.advertise.is_none() {
        let mistake =
            "other nodes do not reach a unix socket: give --advertise http://host:port too";
        reader.refuse_together(&[&INTERNAL, &ADVERTISE], mistake);
    }
    let mut paths = BTreeSet::new();
    for (_, wire) in &settings.wires {
        if !paths.insert(wire.path()) {
            let mistake = format!("two templates have the path {}", wire.path());
            reader.refuse_together(&[&WIRE], &mistake);
        }
    }
    // Only an address is checked here. A name is resolved and checked at the start.
    let is_public = matches!(&settings.internal, Address::Tcp(address)
        if address.parse().is_ok_and(|address: SocketAddr| exposure::is_public(address.ip())));
    let asks_token = settings.internal_tokens.first().is_some();
    if is_public && !asks_token && !settings.internal_without_token {
        reader.refuse_together(
            &[&INTERNAL, &INTERNAL_TOKEN_FILE, &INTERNAL_WITHOUT_TOKEN],
            EXPOSED,
        );
    }
}

/// Returns whether the system chooses the port, so that two such addresses are not the same.
fn is_any_port(place: &Place) -> bool {
    matches!(place, Place::Address(Address::Tcp(address)) if address.ends_with(":0"))
}

/// Returns warnings about settings that are allowed, but that an operator should know about.
pub(super) fn warnings(settings: &Settings, reader: &SettingReader) -> Vec<String> {
    let mut warnings = reader.warnings().to_vec();
    if settings.hold > LONG_HOLD {
        let hold = reader.text(&HOLD).unwrap_or_default();
        warnings.push(format!(
            "--hold {hold} is longer than many proxies wait for an answer (60s): make sure that each of yours waits longer"
        ));
    }
    if settings.demo && settings.redis.is_some() && settings.key_secrets.is_none() {
        warnings.push(
            "--demo with --redis but without --key-secret-file: only the node that made a QR code accepts its key"
                .to_owned(),
        );
    }
    if settings.tls.is_none() {
        for setting in [
            &TLS_CERT as &dyn Declared,
            &TLS_KEY,
            &HTTP2,
            &MAX_HANDSHAKES,
            &HSTS,
        ] {
            if reader.is_given(setting) {
                let flag = setting.about().flag;
                warnings.push(format!("--{flag} has no effect without --public-tls"));
            }
        }
    }
    if settings.clients.trusted_proxies.is_none() && reader.is_given(&TRUSTED_PROXY) {
        warnings.push("--trusted-proxy has no effect without --proxy-protocol".to_owned());
    }
    let store = settings.store();
    for setting in ALL.iter().filter(|setting| reader.is_given(**setting)) {
        let (flag, stores) = (setting.about().flag, setting.about().stores);
        if stores.contains(&store) {
            continue;
        }
        warnings.push(match store.flag() {
            Some(present) => format!("--{flag} has no effect with {present}"),
            None => {
                let needed: Vec<_> = stores.iter().filter_map(|store| store.flag()).collect();
                format!("--{flag} has no effect without {}", needed.join(" or "))
            }
        });
    }
    warnings
}
