//! Checks that each promise of docs/contract.md names the tests that show it.

use std::collections::BTreeMap;

use crate::docs::named_tests::check_tests_exist;
use crate::docs::readme::table_of;
use holdfast_testkit::project_file;

/// Returns the promises: the text between `**` that begins each item of the list under "What it
/// promises", by its number.
fn promises() -> BTreeMap<u32, String> {
    let text = project_file("docs/contract.md");
    let (_, section) = text
        .split_once("\n## What it promises\n")
        .expect("the promises");
    let section = section.split("\n## ").next().unwrap_or_default();
    let promise = |line: &str| {
        let (number, rest) = line.split_once(". **")?;
        let (name, _) = rest.split_once(".**")?;
        Some((number.parse().ok()?, name.to_owned()))
    };
    section.lines().filter_map(promise).collect()
}

#[test]
fn each_promise_names_tests_that_exist() {
    let rows = table_of("docs/contract.md", &["promise", "what is shown", "tests"]);
    let mut shown: BTreeMap<u32, String> = BTreeMap::new();
    for row in &rows {
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let (number, name) = row[0].split_once(". ").expect("a number and a name");
        shown.insert(number.parse().expect("a number"), name.to_owned());
    }
    let promises = promises();
    assert!(promises.len() >= 6, "{promises:?}");
    assert_eq!(shown, promises, "the promises of the table and of the list");
    check_tests_exist("docs/contract.md", rows.iter().map(|row| &row[2]));
}
