//! The question of `holdfast health`: whether the node of this machine is ready.

use std::time::Duration;

use hyper::StatusCode;

use crate::cluster::peers::Peer;
use crate::demo::of_this_machine;
use crate::http::auth::Tokens;
use crate::net::listener::Address;
use crate::runtime::renewable::Renewable;

/// The longest time that the node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the node that has this internal listener whether it is ready.
///
/// # Errors
/// If it is not, or does not answer. The error is a text for people.
///
/// # Cancel safety
/// If it is dropped, nothing is asked any more.
pub async fn is_ready(internal: &Address) -> Result<(), String> {
    let address = match internal {
        Address::Tcp(address) => Address::Tcp(of_this_machine(address)),
        Address::Unix(path) => Address::Unix(path.clone()),
    };
    // Health needs no token, and answers whoever asks.
    let node = Peer {
        id: String::new(),
        address,
        tokens: Renewable::new(Tokens::default()),
    };
    let (status, answer) = node
        .get("/health/ready", ANSWER_TIMEOUT)
        .await
        .map_err(|error| format!("no answer from {internal} (--internal): {error}"))?;
    if status == StatusCode::OK {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&answer);
    Err(format!(
        "not ready: {internal} (--internal) answers {status}: {answer}"
    ))
}
