//! SECURITY.md and the supply chain: what is said to be tested is, and what is built in comes from where it should.

use std::path::{Path, PathBuf};

use crate::readme::{code_spans, table_of};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The file in which a test stands, and what it is called there. Named as `module::name`, as cargo prints it, or, of those in a
/// browser, as `file.test.mjs: title`.
fn place(named: &str) -> (PathBuf, String) {
    let root = Path::new(ROOT);
    if let Some((file, title)) = named.split_once(": ") {
        return (root.join("tests/browser").join(file), title.to_owned());
    }
    let (module, name) = named.rsplit_once("::").unwrap_or_else(|| panic!("no test: {named}"));
    let (dir, module) = match module.strip_suffix("::tests") {
        Some(module) => ("src", module),
        None => ("tests/integration", module),
    };
    (root.join(dir).join(module.replace("::", "/")).with_extension("rs"), name.to_owned())
}

/// Whether a source has a test of this name.
fn has_test(file: &Path, name: &str) -> bool {
    let Ok(source) = std::fs::read_to_string(file) else { return false };
    if file.extension().is_some_and(|extension| extension == "mjs") {
        return ['"', '`'].iter().any(|quote| source.contains(&format!("test({quote}{name}{quote},")));
    }
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.trim_start_matches("async ");
        line.strip_prefix("fn ").and_then(|line| line.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let is_test = |at: usize| {
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        attributes.clone().any(|line| line.contains("test")) && !attributes.clone().any(|line| line.contains("ignore"))
    };
    (0..lines.len()).any(|at| is_it(lines[at]) && is_test(at))
}

#[test]
fn each_attack_and_fault_names_tests_that_exist() {
    let rows = table_of("SECURITY.md", &["attacker or fault", "means", "answer", "test"]);
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
    assert!(missing.is_empty(), "named in SECURITY.md, and in no source: {missing:#?}");
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    for (named, is_one) in [
        ("security::what_is_no_test_is_not_taken_for_one", true),
        ("security::what_is_no_test_is_not_taken_for", false),
        ("security::has_test", false),
        ("server::tests::a_handler_that_panics_ends_its_request_only", true),
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
    let rows = table_of("README.md", &["what", "limit", "default", "beyond it", "told by"]);
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
            // Redis's own, named by ours beside it.
            if name == "maxmemory" {
                continue;
            }
            // A constant, by its module.
            let (module, constant) = name.rsplit_once("::").unwrap_or_else(|| panic!("no name: {name}"));
            let source = format!("{ROOT}/src/{}.rs", module.replace("::", "/"));
            let source = std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert!(source.contains(&format!("const {constant}: ")), "{name} is not there");
        }
    }
    let told = table_of("README.md", &["flag", "environment variable", "default", "meaning"]);
    let bounds = |flag: &&str| flag.starts_with("--max-") || flag.ends_with("-timeout") || flag.ends_with("-in-flight");
    let flags: Vec<_> = told.iter().flat_map(|row| code_spans(&row[0])).filter(bounds).collect();
    let missing: Vec<_> = flags.iter().filter(|flag| !settings.contains(flag)).collect();
    assert!(flags.len() >= 15 && missing.is_empty(), "not among the limits: {missing:?}");
}

#[test]
fn every_dependency_is_of_crates_io_and_has_a_checksum() {
    let lock = std::fs::read_to_string(format!("{ROOT}/Cargo.lock")).unwrap();
    let packages: Vec<_> = lock.split("[[package]]\n").skip(1).collect();
    assert!(packages.len() > 100, "{}", packages.len());
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let foreign = packages.iter().filter(|package| {
        let is_of_crates_io =
            field(package, "source").as_deref() == Some("registry+https://github.com/rust-lang/crates.io-index");
        !is_of_crates_io || field(package, "checksum").is_none_or(|checksum| checksum.len() != 64)
    });
    let foreign: Vec<_> = foreign.filter_map(|package| field(package, "name")).collect();
    assert_eq!(foreign, [env!("CARGO_PKG_NAME")]);
}
