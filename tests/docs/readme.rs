//! Checks the documents against the program: their tables of settings, codes, metrics and routes are
//! right and complete.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast::http::response::code;

use crate::contract::library::library;
use crate::operate::metrics::families;
use holdfast_testkit::{Node, Nodes, Redis, Response, Scratch, project_file, tls};

const SETTINGS: &str = "docs/settings.md";
const WRITE_SETTINGS: &str = "This writes the table: HOLDFAST_BLESS=1 cargo test --test integration docs::readme::the_settings";

/// The rows of a table, each with its cells.
pub(crate) type Table = Vec<Vec<String>>;

/// Returns the one table of the documents that has this header.
///
/// # Panics
/// If there is none, if there are several, or if a row has another number of cells.
fn table(header: &[&str]) -> Table {
    let file = match header[0] {
        "what" => "docs/limits.md",
        "metric" => "docs/operating.md",
        _ => "docs/contract.md",
    };
    table_of(file, header)
}

/// Returns the rows of the table of settings.
pub(crate) fn settings_table() -> Table {
    let header = [
        "flag",
        "environment variable",
        "default",
        "unit",
        "range",
        "meaning",
    ];
    table_of(SETTINGS, &header)
}

/// Returns the one table with this header in any file of the project, as [`table`] does.
pub(crate) fn table_of(file: &str, header: &[&str]) -> Table {
    let text = project_file(file);
    let lines: Vec<_> = text.lines().collect();
    let is_header = |at: &usize| lines[*at].starts_with('|') && cells(lines[*at]) == header;
    let found: Vec<_> = (0..lines.len()).filter(is_header).collect();
    assert_eq!(
        found.len(),
        1,
        "tables with the header {header:?}, by line: {found:?}"
    );
    let rule = cells(lines[found[0] + 1]);
    assert!(
        rule.iter()
            .all(|cell| cell.chars().all(|c| c == '-') && cell.len() >= 3),
        "{rule:?}"
    );
    let rows = lines[found[0] + 2..]
        .iter()
        .take_while(|line| line.starts_with('|'))
        .map(|line| cells(line));
    let rows: Table = rows.collect();
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row.len() == header.len()),
        "{header:?}: {rows:#?}"
    );
    rows
}

/// Returns the cells of a line `| a | b |`.
fn cells(line: &str) -> Vec<String> {
    let inner = line
        .strip_prefix('|')
        .and_then(|line| line.trim_end().strip_suffix('|'));
    inner
        .unwrap_or_else(|| panic!("no row: {line}"))
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

/// Returns the texts between backticks, in order.
pub(crate) fn code_spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Returns the text of a cell that is exactly one code span.
fn code_of(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?
        .strip_suffix('`')
        .filter(|code| !code.contains('`'))
}

/// `HOLDFAST_BLESS=1` writes the table that the program has into the document.
#[test]
fn the_settings_are_those_of_the_program() {
    let document = project_file(SETTINGS);
    let start = document.find("| flag |").expect("a table");
    let rows = document[start..]
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('|'));
    let end = start + rows.map(str::len).sum::<usize>();
    let table = holdfast::config::table();
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SETTINGS);
        let written = [&document[..start], &table, &document[end..]].concat();
        std::fs::write(path, written).expect("a written file");
        return;
    }
    for (there, declared) in document[start..end].lines().zip(table.lines()) {
        assert_eq!(
            there, declared,
            "{SETTINGS} and its settings. {WRITE_SETTINGS}"
        );
    }
    assert_eq!(
        document[start..end].lines().count(),
        table.lines().count(),
        "the rows of {SETTINGS}. {WRITE_SETTINGS}"
    );
}

/// Returns an answer for each code that a get of a single node can have.
async fn answers() -> BTreeMap<i32, Response> {
    let node = Node::start(&[
        "--max-waiters-per-key",
        "1",
        "--drain-quiet",
        "1m",
        "--drain-grace",
        "2m",
    ])
    .await;
    let (v, deleted) = (node.set_ok("v", "1").await, node.set_ok("d", "1").await);
    node.delete_ok("d").await;
    let mut held = node.hold("key=h").await;
    let mut answers = BTreeMap::new();
    for (code, query) in [
        (code::SUCCESS, "key=v".to_owned()),
        (code::TIMEOUT, format!("key=v&last={v}&wait=0")),
        (code::BUSY, "key=h".to_owned()),
        (code::GONE, format!("key=d&last={deleted}")),
        (code::INVALID, "key=".to_owned()),
    ] {
        answers.insert(code, node.get(&format!("/status/get?{query}")).await);
    }
    node.signal("TERM").await;
    answers.insert(code::RETRY, held.answer().await);
    node.quiet().await;
    answers
}

#[tokio::test]
async fn the_codes_are_those_of_the_program_with_their_messages_and_http_statuses() {
    let answers = answers().await;
    let rows = table(&["code", "message", "when", "HTTP status when JSON"]);
    let codes: Vec<i32> = rows
        .iter()
        .map(|row| row[0].parse().expect("a code"))
        .collect();
    assert_eq!(codes, [0, -1, -2, -3, -4, -5, -6]);
    for (code, row) in codes.into_iter().zip(&rows) {
        let message = code_of(&row[1]).unwrap_or_else(|| panic!("no message: {row:?}"));
        if code != code::INVALID {
            assert_eq!(message, code::message(code), "{code}");
        }
        // -6 needs a store that fails, and the embedded store does not fail.
        let Some(answer) = answers.get(&code) else {
            continue;
        };
        assert_eq!(answer.code(), i64::from(code), "{answer:?}");
        if code != code::INVALID {
            assert_eq!(answer.object()["message"], message, "{answer:?}");
        }
        assert_eq!(
            answer.status.to_string(),
            row[3].split_whitespace().next().unwrap(),
            "{code}: {answer:?}"
        );
    }
    assert_eq!(answers.len(), 6);
    // -7 answers only sets.
    let rows = table(&["HTTP", "answer", "meaning"]);
    let conflict = rows
        .iter()
        .find(|row| row[0] == "409")
        .expect("a row for 409");
    let told = format!(
        r#""code":{},"message":"{}""#,
        code::CONFLICT,
        code::message(code::CONFLICT)
    );
    assert!(conflict[1].contains(&told), "{conflict:?}");
}

#[tokio::test]
async fn the_library_is_as_long_as_stated() {
    let node = Node::start(&[]).await;
    let length = async |file, accepts| {
        let response = library(&node, file, accepts).await;
        assert_eq!(
            response.header("content-length"),
            Some(&*response.body.len().to_string())
        );
        format!("{:.1} KB", response.body.len() as f64 / 1000.0)
    };
    let lengths = async |file| (length(file, "gzip").await, length(file, "identity").await);
    let (gzip, plain) = lengths("/holdfast.js").await;
    let (small_gzip, small_plain) = lengths("/holdfast-script.js").await;
    for (document, stated) in [
        (
            "docs/page.md",
            format!("a script of {gzip} ({plain} if the browser does not accept gzip)"),
        ),
        (
            "docs/page.md",
            format!("which has {small_gzip} ({small_plain})"),
        ),
        ("docs/page.md", format!("They have {small_gzip} in")),
        (
            "CHANGELOG.md",
            format!("a library of {gzip} in gzip for pages"),
        ),
        (
            "CHANGELOG.md",
            format!("are the {small_gzip} of scripts alone"),
        ),
    ] {
        assert!(
            project_file(document).contains(&stated),
            "{document} does not say: {stated}"
        );
    }
}

/// Returns the labels that README.md names for limits. It names a metric or the log for a limit
/// that has no label.
fn limits() -> BTreeSet<String> {
    let rows = table(&["what", "limit", "default", "beyond it", "shown by"]);
    let told = rows.iter().flat_map(|row| code_spans(&row[4]));
    let is_label = |name: &&str| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && !name.starts_with("holdfast_")
    };
    told.filter(is_label).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_metrics_are_those_of_the_program_with_their_types_labels_and_values() {
    let redis = Redis::start(&[]).await;
    let of = async |node: &Node| families(node.internal("GET", "/metrics", &[], b"").await.text());
    let args = tls::flags().await;
    let mut alone = of(&Node::start(&args).await).await;
    let mut there = of(&Nodes::start(1, &redis.url(), &args).await[0]).await;
    for row in table(&["metric", "type", "meaning"]) {
        let metric = code_of(&row[0]).unwrap_or_else(|| panic!("no metric: {row:?}"));
        let (name, label) = metric
            .trim_end_matches('}')
            .split_once('{')
            .unwrap_or((metric, ""));
        let families = (alone.remove(name), there.remove(name));
        let has = (families.0.is_some(), families.1.is_some());
        let only = (
            row[2].starts_with("embedded store only: "),
            row[2].starts_with("with `--redis` only: "),
        );
        assert_eq!(has, (!only.1, !only.0), "{name}: where it is");
        let family = families
            .0
            .or(families.1)
            .unwrap_or_else(|| panic!("{name}: not in /metrics, or told twice"));
        let labels: Vec<_> = family
            .samples
            .iter()
            .flat_map(|sample| &sample.labels)
            .collect();
        let names: BTreeSet<_> = labels
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| *name != "le")
            .collect();
        let told: BTreeSet<_> = label.split(',').filter(|label| !label.is_empty()).collect();
        assert_eq!(
            (row[1].as_str(), told),
            (family.kind.as_str(), names),
            "{name}"
        );
        let is_listed = |label: &str| !["le", "name", "version"].contains(&label);
        let values = labels
            .iter()
            .filter(|(label, _)| is_listed(label))
            .map(|(_, value)| value.clone());
        let is_value = |span: &&str| !span.starts_with("--") && !span.starts_with('/');
        let told = match label {
            "limit" => limits(),
            _ => code_spans(&row[2])
                .into_iter()
                .filter(is_value)
                .map(str::to_owned)
                .collect(),
        };
        assert_eq!(
            told,
            values.collect(),
            "{name}: the values of its labels, as told and as they are"
        );
    }
    assert!(
        alone.is_empty() && there.is_empty(),
        "not in the documents: {alone:#?} {there:#?}"
    );
}

/// Returns the routes in a cell such as "`GET` and `DELETE /keys/{key}`" or
/// "`GET /health/live`".
fn routes(cell: &str) -> Vec<(String, String)> {
    let (mut routes, mut methods) = (Vec::new(), Vec::new());
    for span in code_spans(cell)
        .into_iter()
        .filter(|span| !span.starts_with("--"))
    {
        match span.split_once(' ') {
            None => methods.push(span),
            Some((method, path)) => {
                methods.push(method);
                routes.extend(
                    methods
                        .drain(..)
                        .map(|method| (method.to_owned(), path.to_owned())),
                );
            }
        }
    }
    assert!(methods.is_empty() && !routes.is_empty(), "{cell}");
    routes
}

#[tokio::test]
async fn the_routes_are_those_of_the_program_each_on_its_listener_alone() {
    let scratch = Scratch::new();
    let secrets = scratch.file("secrets", &"x".repeat(32));
    let node = Node::start(&["--demo", "--key-secret-file", &secrets]).await;
    let rows = table(&["listener", "for", "default address", "routes"]);
    let told: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (row[0].as_str(), routes(&row[3])))
        .collect();
    let expected = [("public", 3), ("internal", 8)];
    assert_eq!(
        told.keys().copied().collect::<Vec<_>>(),
        ["internal", "public"]
    );
    for (listener, least) in expected {
        assert!(told[listener].len() >= least, "{told:#?}");
        for (method, path) in &told[listener] {
            node.set_ok("k", "1").await;
            let target = path.replace("{key}", "k");
            let public = node.public(method, &target, &[]).await.status;
            let internal = node.internal(method, &target, &[], b"").await.status;
            let (own, other) = if listener == "public" {
                (public, internal)
            } else {
                (internal, public)
            };
            assert!(
                ![404, 405].contains(&own),
                "{method} {path} of {listener}: {own}"
            );
            assert_eq!(other, 404, "{method} {path} is a route of {listener} alone");
        }
    }
}
