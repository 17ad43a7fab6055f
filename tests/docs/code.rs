//! The blocks of code in the documents. Tests use them as they are written there.

use holdfast_testkit::project_file;

/// A block of code.
#[derive(Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) language: String,
    /// The lines, each with its line feed.
    pub(crate) code: String,
}

/// Returns the blocks of a document, in order.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    blocks_in(&project_file(document))
}

/// Returns the code of the blocks in one language below a heading (`## HEADING`, or one level
/// deeper) of a document, up to the next heading.
///
/// # Panics
/// If there is no such heading.
pub(crate) fn code_below(document: &str, heading: &str, language: &str) -> Vec<String> {
    let text = project_file(document).replace("\n### ", "\n## ");
    let section = text.split("\n## ").find_map(|section| {
        let (title, rest) = section.split_once('\n')?;
        (title == heading).then_some(rest)
    });
    let section = section.unwrap_or_else(|| panic!("{document} has no {heading:?}"));
    blocks_in(section)
        .into_iter()
        .filter(|block| block.language == language)
        .map(|block| block.code)
        .collect()
}

fn blocks_in(text: &str) -> Vec<Block> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks
        .map(|block| {
            let (language, code) = block.split_once('\n').unwrap_or((block, ""));
            Block {
                language: language.to_owned(),
                code: format!("{code}\n"),
            }
        })
        .collect()
}
