//! Makes the checks of `make fuzz` on its corpora in `fixtures/fuzz/` and on mutations of them.
//! The mutations are the same in each run, and far fewer than a fuzzer tries. But each test run
//! makes them, with its own toolchain and in the time that it has.

#[allow(unreachable_pub, reason = "it is a library elsewhere")]
#[path = "../../fuzz/src/lib.rs"]
pub(crate) mod checks;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use holdfast_testkit::long;

/// The number of mutations of one corpus.
const MUTATIONS: u32 = 3_000;
/// The greatest number of changes that make one mutation.
const MAX_CHANGES: usize = 4;

#[test]
fn fields_and_parameters_are_read_as_readme_says() {
    replay("query", checks::query::check);
}

#[test]
fn keys_are_those_of_readme() {
    replay("key", checks::key::check);
}

#[test]
fn names_to_call_and_assign_are_those_of_readme() {
    replay("callback", checks::callback::check);
}

#[test]
fn a_script_is_one_call_or_assignment_with_an_equal_value() {
    replay("script", checks::script::check);
}

#[test]
fn bodies_of_sets_are_read_as_readme_says() {
    replay("set_body", checks::set_body::check);
}

#[test]
fn messages_of_sockets_are_read_as_the_contract_says() {
    replay("socket_message", checks::socket_message::check);
}

#[test]
fn frames_of_sockets_are_read_as_the_standard_says() {
    replay("socket_frames", checks::socket_frames::check);
}

#[test]
fn a_stream_of_tls_gives_what_went_in_however_its_socket_cuts_and_delays() {
    // Each input is a handshake, which takes a hundred times as long as the other checks.
    replay_some("tls_stream", checks::tls_stream::check, MUTATIONS / 30);
}

#[test]
fn bodies_from_other_nodes_are_read_as_readme_says() {
    replay("channel_body", checks::channel_body::check);
}

#[test]
fn answers_of_other_nodes_are_counts_or_nothing() {
    replay("peer_answer", checks::peer_answer::check);
}

#[test]
fn what_redis_answers_is_a_status_of_ours_or_refused() {
    replay("redis_reply", checks::redis_reply::check);
}

#[test]
fn headers_of_proxies_are_read_to_their_end_and_not_beyond() {
    replay("proxy_header", checks::proxy_header::check);
}

#[test]
fn a_template_makes_only_the_assignments_and_calls_that_stand_in_it() {
    replay("wire", checks::wire::check);
}

#[test]
fn each_target_has_a_corpus_and_a_test() {
    let sorted = |folder: &str, suffix: &str| {
        let names = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort_unstable();
        names
            .into_iter()
            .map(|name| name.strip_suffix(suffix).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let targets = sorted("fuzz/fuzz_targets", ".rs");
    assert_eq!(sorted("fixtures/fuzz", ""), targets);
    for target in targets {
        assert!(
            include_str!("fuzz.rs").contains(&format!(r#"("{target}", checks::{target}::check"#)),
            "{target}"
        );
    }
}

/// Checks each input of a corpus, then mutations of the inputs.
fn replay(target: &str, check: fn(&[u8])) {
    replay_some(target, check, MUTATIONS);
}

/// Checks a corpus like [`replay`], with this many mutations, or a hundred times as many in the long
/// form.
fn replay_some(target: &str, check: fn(&[u8]), mutations: u32) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        holds(check, input, name);
    }
    let mut chance = StdRng::seed_from_u64(6);
    for _ in 0..if long() { 100 * mutations } else { mutations } {
        let (name, input) = corpus.choose(&mut chance).unwrap();
        let mut input = input.clone();
        for _ in 0..chance.random_range(1..=MAX_CHANGES) {
            mutate(&mut input, &corpus, &mut chance);
        }
        holds(check, &input, name);
    }
}

/// Checks one input. A failure shows the input so that it can be written into the corpus:
/// `printf '...' > fixtures/fuzz/<target>/<what it shows>`.
fn holds(check: fn(&[u8]), input: &[u8], name: &str) {
    assert!(
        catch_unwind(|| check(input)).is_ok(),
        "of {name}: '{}'",
        input.escape_ascii()
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the inputs of a target, in the order of their files' names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(root().join("fixtures/fuzz").join(target))
        .expect("a corpus")
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        });
    let mut corpus: Vec<_> = files.collect();
    assert!(!corpus.is_empty(), "{target}");
    corpus.sort_unstable();
    corpus
}

/// Makes one change: a byte changes or is added, or a part is removed, is repeated, or comes
/// from another input.
fn mutate(input: &mut Vec<u8>, corpus: &[(String, Vec<u8>)], chance: &mut StdRng) {
    let at = chance.random_range(0..=input.len());
    let end = chance.random_range(at..=input.len().min(at + 16));
    match chance.random_range(0..5) {
        0 if at < input.len() => input[at] ^= 1 << chance.random_range(0..8),
        0 | 1 => input.insert(at, chance.random()),
        2 => drop(input.drain(at..end)),
        3 => drop(input.splice(at..at, input[at..end].to_vec())),
        _ => {
            let (_, other) = corpus.choose(chance).unwrap();
            let from = chance.random_range(0..=other.len());
            let to = chance.random_range(from..=other.len().min(from + 32));
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
    }
}
