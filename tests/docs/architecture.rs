//! Checks how the modules of `src/` import each other. `lib.rs` lists the layers, lowest first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_dir;
use std::path::{Path, PathBuf};

use holdfast_testkit::project_file;

use crate::docs::readme::{code_spans, table_of};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The imports of each module, both as paths of one or two segments: `store`, or `model::key`
/// if the folder has no code of its own.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Returns the files below a folder that end in `.rs`, without files of unit tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            paths.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            paths.push(path);
        }
    }
    paths
}

/// Returns the layers of `lib.rs`, lowest first. A layer is a group of `mod` lines between
/// empty lines.
fn layers() -> Vec<Vec<String>> {
    let lib = project_file("src/lib.rs");
    let (_, list) = lib
        .split_once("// The layers, lowest first.")
        .expect("the list of layers");
    let name = |line: &str| Some(line.split_once("mod ")?.1.strip_suffix(';')?.to_owned());
    list.split("\n\n")
        .map(|layer| layer.lines().filter_map(name).collect::<Vec<_>>())
        .filter(|names| !names.is_empty())
        .collect()
}

/// Returns the code of a file, without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = project_file(path);
    let text = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the paths that follow `crate::`, the first two segments of each.
fn imported(code: &str) -> impl Iterator<Item = String> {
    let is_path = |char: &char| {
        char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '_' | ':')
    };
    code.split("crate::").skip(1).map(move |path| {
        let segments: String = path.chars().take_while(is_path).collect();
        let parts: Vec<_> = segments
            .split("::")
            .filter(|part| !part.is_empty())
            .take(2)
            .collect();
        assert!(
            !parts.is_empty(),
            "imports stand alone, not in braces behind `crate::`: {}",
            &path[..path.len().min(40)]
        );
        parts.join("::")
    })
}

/// Returns all imports between modules. `folders` are the modules without code of their own.
fn imports(folders: &BTreeSet<String>) -> Imports {
    let module = |path: &str| {
        let mut parts = path.split("::");
        let first = parts.next().expect("a name").to_owned();
        match parts.next().filter(|_| folders.contains(&first)) {
            Some(second) => format!("{first}::{second}"),
            None => first,
        }
    };
    let mut imports = Imports::new();
    for path in sources(Path::new(ROOT)) {
        let name = path
            .strip_prefix(ROOT)
            .expect("below it")
            .with_extension("");
        let name = name.to_str().expect("UTF-8").replace('/', "::");
        if matches!(name.as_str(), "lib" | "main") {
            continue;
        }
        let own = module(&name);
        let of_it: BTreeSet<_> = imported(&code(&path))
            .map(|path| module(&path))
            .filter(|path| *path != own)
            .collect();
        imports.entry(own).or_default().extend(of_it);
    }
    imports
}

/// Returns the modules that have a folder and whose own file has only `mod` lines.
fn folders(layers: &[Vec<String>]) -> BTreeSet<String> {
    let has_no_code = |name: &&String| {
        let root = Path::new(ROOT);
        let is_mod = |line: &str| line.is_empty() || (line.contains("mod ") && line.ends_with(';'));
        root.join(name).is_dir() && code(&root.join(format!("{name}.rs"))).lines().all(is_mod)
    };
    layers
        .iter()
        .flatten()
        .filter(has_no_code)
        .cloned()
        .collect()
}

#[test]
fn modules_import_only_from_their_own_layer_and_those_before_it() {
    let layers = layers();
    let level = |path: &str| {
        let first = path.split("::").next().expect("a name");
        layers
            .iter()
            .position(|layer| layer.iter().any(|name| name == first))
            .unwrap_or_else(|| panic!("{first} is in no layer"))
    };
    let imports = imports(&folders(&layers));
    assert!(
        imports.len() > 30 && imports.values().map(BTreeSet::len).sum::<usize>() > 100,
        "{imports:?}"
    );
    for (module, imported) in &imports {
        for other in imported {
            assert!(
                level(other) <= level(module),
                "{module} imports {other}, which is of a later layer"
            );
        }
    }
}

#[test]
fn no_module_imports_itself_by_way_of_others() {
    let mut imports = imports(&folders(&layers()));
    // A module that imports none of the rest, or that none of the rest imports, is in no
    // circle.
    let is_free = |imports: &Imports, (name, of_it): (&String, &BTreeSet<String>)| {
        of_it.is_empty() || !imports.values().any(|of_other| of_other.contains(name))
    };
    while let Some(free) = imports
        .iter()
        .find(|one| is_free(&imports, *one))
        .map(|(name, _)| name.clone())
    {
        imports.remove(&free);
        for of_it in imports.values_mut() {
            of_it.remove(&free);
        }
    }
    assert!(
        imports.is_empty(),
        "there is a circle among these: {imports:#?}"
    );
}

#[test]
fn each_file_that_starts_a_task_or_a_thread_is_in_the_table_of_tasks() {
    let starts = [
        "tokio::spawn(",
        "runtime.spawn(",
        "thread::Builder",
        ".block_on(",
    ];
    let starts_one = |path: &PathBuf| starts.iter().any(|start| code(path).contains(start));
    let files = sources(Path::new(ROOT)).into_iter().filter(starts_one);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let started: BTreeSet<_> = files
        .map(|path| path.strip_prefix(root).unwrap().display().to_string())
        .collect();
    let columns = ["task", "how many", "started in", "waits for"];
    let rows = table_of("docs/architecture.md", &columns);
    let named: BTreeSet<_> = rows
        .iter()
        .map(|row| code_spans(&row[2])[0].to_owned())
        .collect();
    assert_eq!(started, named);
}
