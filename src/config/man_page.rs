//! The man page. Its list of options follows from the settings, and man_page.roff has the rest.

use clap::Command;
use clap_mangen::Man;

/// No date, because the page is as old as the program. `Man` would put the version in its place.
const TITLE: &str = concat!(
    ".TH holdfast 1 \"\" \"holdfast ",
    env!("CARGO_PKG_VERSION"),
    "\"\n"
);
const PAGE: &str = include_str!("man_page.roff");
/// The line of the page that stands for the list of options.
const OPTIONS: &str = ".\\\" OPTIONS\n";

/// Returns the man page of `command`.
pub(super) fn text(command: Command) -> String {
    let (before, after) = PAGE.split_once(OPTIONS).expect("the place of the options");
    let mut options = Vec::new();
    let rendered = Man::new(command).render_options_section(&mut options);
    rendered.expect("memory takes it");
    let options = String::from_utf8_lossy(&options);
    [TITLE, before, &options, after].concat()
}
