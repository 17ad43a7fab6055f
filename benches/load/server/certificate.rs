//! A certificate that is valid for two days, made by the `openssl` program.

use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;
use crate::client::NAME;
use crate::process::Scratch;

/// Makes a certificate and its key in `directory` of `scratch`, and returns the paths of both.
/// Their names are those in `nginx/nginx.conf`.
///
/// # Errors
/// If there is no `openssl`.
pub(super) fn make(scratch: &Scratch, directory: &str) -> Outcome<[PathBuf; 2]> {
    let [certificate, key] =
        ["pem", "key"].map(|end| scratch.path(&format!("{directory}/{NAME}.{end}")));
    std::fs::create_dir_all(scratch.path(directory))?;
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    openssl.args([
        "-days",
        "2",
        "-subj",
        &format!("/CN={NAME}"),
        "-addext",
        &format!("subjectAltName=DNS:{NAME}"),
    ]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    let output = openssl
        .output()
        .map_err(|error| format!("openssl: {error}. Install it: apt-get install openssl"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok([certificate, key])
    } else {
        Err(format!("openssl: {said}").into())
    }
}
