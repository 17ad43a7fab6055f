//! What the packages have beside the program: the man page, the completions, and the files that
//! Cargo.toml names. `make test-deb` installs the packages.

use std::path::Path;

use holdfast_testkit::{Launch, project_file};
use serde_json::Value;
use tokio::process::Command;

use crate::docs::readme::{code_spans, settings_table};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a subcommand that only prints, and returns its text.
async fn printed(args: &[&str]) -> String {
    let ended = Launch::new(args).run().await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stderr, "");
    ended.stdout
}

#[tokio::test]
async fn the_completions_of_each_shell_name_each_flag_and_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]).await;
        let table = settings_table();
        let flags = table.iter().map(|row| row[0].trim_matches(['`', '-']));
        for name in flags.chain(["health", "completions", "man"]) {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[tokio::test]
async fn bash_completes_flags_and_the_names_of_files() {
    let script = printed(&["completions", "bash"]).await;
    let complete = async |words: &str, word: &str, before: &str| {
        let rest = format!(
            "\nCOMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _holdfast holdfast '{word}' '{before}'; echo \"${{COMPREPLY[@]}}\"\n"
        );
        let mut bash = Command::new("bash");
        let bash = bash.args(["-c", &format!("{script}{rest}")]);
        let output = bash.current_dir(ROOT).output().await.expect("bash");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let flag = complete("holdfast --drain-n", "--drain-n", "holdfast").await;
    assert_eq!(flag, "--drain-notice\n");
    let file = complete("holdfast --wire Cargo.t", "Cargo.t", "--wire").await;
    assert_eq!(file, "Cargo.toml\n");
}

#[tokio::test]
async fn a_shell_that_is_not_known_is_a_mistake_that_names_those_that_are() {
    for (args, named) in [
        (&["completions", "tcsh"][..], "bash"),
        (&["completions"], "<SHELL>"),
    ] {
        let ended = Launch::new(args).run().await;
        assert_eq!(ended.status.code(), Some(64), "{ended:?}");
        assert!(ended.stderr.contains(named), "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test]
async fn the_man_page_has_each_setting_with_its_variable() {
    let page = printed(&["man"]).await.replace("\\-", "-");
    assert!(page.starts_with(".TH holdfast 1 "), "{page}");
    for row in settings_table() {
        for name in row[..2].iter().filter(|cell| cell.as_str() != "none") {
            let name = code_spans(name)[0];
            assert!(page.contains(&format!("\\fB{name}\\fR")), "{name}");
        }
    }
    for section in ["OPTIONS", "EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES"] {
        assert!(page.contains(section), "{section}");
    }
}

/// Returns `package.metadata.deb` of Cargo.toml.
async fn package() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    let cargo = cargo.args(["metadata", "--no-deps", "--format-version=1", "--offline"]);
    let output = cargo.current_dir(ROOT).output().await.expect("cargo");
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = all["packages"].as_array().expect("packages");
    let holdfast = packages.iter().find(|one| one["name"] == "holdfast");
    holdfast.expect("holdfast")["metadata"]["deb"].clone()
}

/// Returns whether there is a file of this path, whose last part may have a `*`.
fn exists(path: &str) -> bool {
    let path = Path::new(ROOT).join(path);
    let name = path.file_name().expect("a name").to_str().expect("UTF-8");
    let Some((start, end)) = name.split_once('*') else {
        return path.is_file();
    };
    let directory = std::fs::read_dir(path.parent().expect("a directory")).expect("a directory");
    let names = directory.map(|entry| entry.expect("an entry").file_name());
    let is_one = |name: String| name.starts_with(start) && name.ends_with(end);
    names
        .map(|name| name.into_string())
        .any(|name| name.is_ok_and(is_one))
}

#[tokio::test]
async fn the_files_of_the_debian_package_are_there() {
    let package = package().await;
    let assets = package["assets"].as_array().expect("assets");
    let sources = assets
        .iter()
        .map(|asset| asset[0].as_str().expect("a path"));
    let (made, kept): (Vec<_>, Vec<_>) = sources.partition(|path| path.starts_with("target/"));
    assert!(kept.len() > 15, "{kept:?}");
    for path in kept {
        assert!(exists(path), "{path}");
    }
    let script = project_file("deploy/deb");
    for name in [
        "holdfast.1",
        "holdfast.bash",
        "holdfast.zsh",
        "holdfast.fish",
        "third-party.txt",
    ] {
        assert!(
            made.contains(&&*format!("target/packages/{name}")),
            "{name}"
        );
    }
    assert!(script.contains("\npackages=target/packages\n"), "{script}");
}

#[test]
fn the_package_has_the_version_of_the_program() {
    let changelog = project_file("deploy/debian/changelog");
    let newest = concat!("holdfast (", env!("CARGO_PKG_VERSION"), "-");
    assert!(changelog.starts_with(newest), "{changelog}");
}

#[test]
fn the_file_of_settings_sets_nothing_and_names_settings_with_their_defaults() {
    let file = project_file("deploy/holdfast.env");
    let table = settings_table();
    let mut named = 0;
    for line in file.lines().filter(|line| !line.is_empty()) {
        let comment = line.strip_prefix('#').expect(line);
        let Some((variable, value)) = comment
            .split_once('=')
            .filter(|_| !comment.starts_with(' '))
        else {
            continue;
        };
        let row = table.iter().find(|row| row[1] == format!("`{variable}`"));
        let default = &row.unwrap_or_else(|| panic!("no setting: {line}"))[2];
        // A setting without a fixed default has an example.
        if let [default] = code_spans(default)[..] {
            assert_eq!(value, default, "{variable}");
        }
        named += 1;
    }
    assert!(named > 10, "{named}");
}
