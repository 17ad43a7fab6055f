//! Checks that the tests that SECURITY.md names exist, and that all dependencies come from
//! crates.io.

use std::path::{Path, PathBuf};

use crate::docs::readme::{code_spans, table_of};
use crate::support::project_file;

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
    let (dir, module) = match module.strip_suffix("::tests") {
        Some(module) => ("src", module),
        None => ("tests", module),
    };
    (
        root.join(dir)
            .join(module.replace("::", "/"))
            .with_extension("rs"),
        name.to_owned(),
    )
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

#[test]
fn each_attack_and_fault_names_tests_that_exist() {
    let rows = table_of(
        "SECURITY.md",
        &["attacker or fault", "means", "answer", "test"],
    );
    assert!(rows.len() >= 40, "{}", rows.len());
    let mut missing = Vec::new();
    for row in &rows {
        assert!(row[..3].iter().all(|cell| !cell.is_empty()), "{row:?}");
        let named = code_spans(&row[3]);
        assert!(!named.is_empty(), "no test: {row:?}");
        let is_missing = |named: &&str| {
            let (file, name) = place(named);
            !has_test(&file, &name)
        };
        missing.extend(named.into_iter().filter(is_missing));
    }
    assert!(
        missing.is_empty(),
        "named in SECURITY.md, and in no source: {missing:#?}"
    );
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    for (named, is_one) in [
        ("docs::security::what_is_no_test_is_not_taken_for_one", true),
        ("docs::security::what_is_no_test_is_not_taken_for", false),
        ("docs::security::has_test", false),
        (
            "net::server::tests::a_handler_that_panics_ends_its_request_only",
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

#[test]
fn every_limit_of_the_readme_has_a_name_and_the_settings_among_them_are_all_there() {
    let rows = table_of(
        "docs/limits.md",
        &["what", "limit", "default", "beyond it", "told by"],
    );
    let mut settings = Vec::new();
    for row in &rows {
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let names = code_spans(&row[1]);
        assert!(!names.is_empty(), "no name: {row:?}");
        for name in names {
            if name.starts_with("--") {
                settings.push(name);
                continue;
            }
            // `maxmemory` is a setting of Redis, not of holdfast.
            if name == "maxmemory" {
                continue;
            }
            // The name is a constant, with its module.
            let (module, constant) = name
                .rsplit_once("::")
                .unwrap_or_else(|| panic!("no name: {name}"));
            let source = project_file(format!("src/{}.rs", module.replace("::", "/")));
            assert!(
                source.contains(&format!("const {constant}: ")),
                "{name} is not there"
            );
        }
    }
    let told = table_of(
        "docs/settings.md",
        &[
            "flag",
            "environment variable",
            "default",
            "unit",
            "range",
            "meaning",
        ],
    );
    let bounds = |flag: &&str| {
        flag.starts_with("--max-") || flag.ends_with("-timeout") || flag.ends_with("-in-flight")
    };
    let flags: Vec<_> = told
        .iter()
        .flat_map(|row| code_spans(&row[0]))
        .filter(bounds)
        .collect();
    let missing: Vec<_> = flags
        .iter()
        .filter(|flag| !settings.contains(flag))
        .collect();
    assert!(
        flags.len() >= 15 && missing.is_empty(),
        "not among the limits: {missing:?}"
    );
}

#[test]
fn every_dependency_is_of_crates_io_and_has_a_checksum() {
    let lock = project_file("Cargo.lock");
    let packages: Vec<_> = lock.split("[[package]]\n").skip(1).collect();
    assert!(packages.len() > 100, "{}", packages.len());
    let field = |package: &str, name: &str| {
        let line = package
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let foreign = packages.iter().filter(|package| {
        let is_of_crates_io = field(package, "source").as_deref()
            == Some("registry+https://github.com/rust-lang/crates.io-index");
        !is_of_crates_io || field(package, "checksum").is_none_or(|checksum| checksum.len() != 64)
    });
    let foreign: Vec<_> = foreign
        .filter_map(|package| field(package, "name"))
        .collect();
    // The members of the workspace are our own.
    assert_eq!(
        foreign,
        ["holdfast", "holdfast-benches", "holdfast-protocol"]
    );
}
