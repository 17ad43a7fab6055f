//! What the program prints for packages: the man page and the completions.

use holdfast_testkit::Launch;
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
