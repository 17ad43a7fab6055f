//! The links between the documents: each leads to a file that is there, and to a heading in it.

use std::collections::BTreeSet;
use std::fs::read_dir;
use std::path::PathBuf;

use holdfast_testkit::project_file;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the documents of the project.
fn documents() -> Vec<PathBuf> {
    let folders = ["", "/docs", "/docs/zh-CN"].map(|folder| format!("{ROOT}{folder}"));
    let entries = folders
        .iter()
        .flat_map(|folder| read_dir(folder).expect("a folder"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect()
}

/// Returns the lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Returns the names by which links find the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        kept.map(|char| if char == ' ' { '-' } else { char })
            .collect()
    };
    headings.map(anchor).collect()
}

/// Returns the targets of links and pictures.
fn targets(text: &str) -> Vec<String> {
    let until = |rest: &str, end: char| rest.split(end).next().map(str::to_owned);
    let links = text.split("](").skip(1).filter_map(|rest| until(rest, ')'));
    let pictures = text
        .split("<img src=\"")
        .skip(1)
        .filter_map(|rest| until(rest, '"'));
    links.chain(pictures).collect()
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let (mut broken, mut count) = (Vec::new(), 0);
    for document in documents() {
        let lines: Vec<_> = prose(&project_file(&document)).map(str::to_owned).collect();
        for target in targets(&lines.join("\n")) {
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = match file {
                "" => document.clone(),
                file => document.parent().expect("a folder").join(file),
            };
            let is_there = path.exists()
                && (anchor.is_empty() || anchors(&project_file(&path)).contains(anchor));
            if !is_there {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(count > 100, "{count} links");
    assert!(broken.is_empty(), "{broken:#?}");
}
