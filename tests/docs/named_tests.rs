//! Checks that the tests that documents name exist.

use std::path::{Path, PathBuf};

use crate::docs::readme::code_spans;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the file of a test and the test's name in it. A Rust test is named `module::name`,
/// as cargo prints it. A browser test is named `file.test.mjs: title`.
fn place(named: &str) -> (PathBuf, String) {
    let root = Path::new(ROOT);
    if let Some((file, title)) = named.split_once(": ") {
        return (root.join("tests/browser").join(file), title.to_owned());
    }
    let (module, name) = named
        .rsplit_once("::")
        .unwrap_or_else(|| panic!("no test: {named}"));
    let path = |dir: &str, module: &str| {
        let file = module.replace("::", "/");
        root.join(dir).join(file).with_extension("rs")
    };
    let file = match module.strip_suffix("::tests") {
        // Unit tests are in a file of their own, or at the end of what they test.
        Some(tested) => Some(path("src", module))
            .filter(|own| own.is_file())
            .unwrap_or_else(|| path("src", tested)),
        None => path("tests", module),
    };
    (file, name.to_owned())
}

/// Returns whether a source has a test of this name.
fn has_test(file: &Path, name: &str) -> bool {
    let Ok(source) = std::fs::read_to_string(file) else {
        return false;
    };
    if file.extension().is_some_and(|extension| extension == "mjs") {
        return ['"', '`']
            .iter()
            .any(|quote| source.contains(&format!("test({quote}{name}{quote},")));
    }
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.trim_start_matches("async ");
        line.strip_prefix("fn ")
            .and_then(|line| line.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let is_test = |at: usize| {
        let attributes = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#["));
        attributes.clone().any(|line| line.contains("test"))
            && !attributes.clone().any(|line| line.contains("ignore"))
    };
    (0..lines.len()).any(|at| is_it(lines[at]) && is_test(at))
}

/// Checks that each cell of a table of `document` names tests, and that all of them exist.
///
/// # Panics
/// With the names that are in no source.
pub(super) fn check_tests_exist<'a>(document: &str, cells: impl Iterator<Item = &'a String>) {
    let mut missing = Vec::new();
    for cell in cells {
        let named = code_spans(cell);
        assert!(!named.is_empty(), "{document} names no test: {cell:?}");
        missing.extend(named.into_iter().filter(|named| {
            let (file, name) = place(named);
            !has_test(&file, &name)
        }));
    }
    assert!(
        missing.is_empty(),
        "named in {document}, and in no source: {missing:#?}"
    );
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    for (named, is_one) in [
        (
            "docs::named_tests::what_is_no_test_is_not_taken_for_one",
            true,
        ),
        ("docs::named_tests::what_is_no_test_is_not_taken_for", false),
        ("docs::named_tests::has_test", false),
        (
            "net::server::tests::a_handler_that_panics_ends_its_request_only",
            true,
        ),
        (
            "waiters::tests::all_that_a_delivery_took_out_and_does_not_give_learn_of_its_panic",
            true,
        ),
        ("server::a_handler_that_panics_ends_its_request_only", false),
        ("scripts.test.mjs: hostile_callback_runs_nothing", true),
        ("scripts.test.mjs: hostile_callback_runs", false),
        ("nowhere.test.mjs: hostile_callback_runs_nothing", false),
    ] {
        let (file, name) = place(named);
        assert_eq!(has_test(&file, &name), is_one, "{named}");
    }
}
