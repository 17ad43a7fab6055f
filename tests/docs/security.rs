//! Checks that the tests that SECURITY.md names exist, and that all dependencies come from
//! crates.io.

use crate::docs::named_tests::check_tests_exist;
use crate::docs::readme::{code_spans, settings_table, table_of};
use holdfast_testkit::project_file;

#[test]
fn each_attack_and_fault_names_tests_that_exist() {
    let rows = table_of(
        "SECURITY.md",
        &["attacker or fault", "means", "answer", "test"],
    );
    assert!(rows.len() >= 40, "{}", rows.len());
    for row in &rows {
        assert!(row[..3].iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    check_tests_exist("SECURITY.md", rows.iter().map(|row| &row[3]));
}

#[test]
fn every_limit_of_the_readme_has_a_name_and_the_settings_among_them_are_all_there() {
    let rows = table_of(
        "docs/limits.md",
        &["what", "limit", "default", "beyond it", "shown by"],
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
    let told = settings_table();
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
        [
            "holdfast",
            "holdfast-benches",
            "holdfast-protocol",
            "holdfast-testkit"
        ]
    );
}
