//! The table of docs/settings.md.

use super::declarations::ALL;
use super::setting::{ALL_STORES, Declared, Preset, Shape, StoreKind};

const HEADER: &str = "\
| flag | environment variable | default | unit | range | meaning |
| --- | --- | --- | --- | --- | --- |
";

/// Returns the table of docs/settings.md, in Markdown. Only the test that compares the two uses
/// it.
#[must_use]
pub fn table() -> String {
    let rows = ALL.map(|setting| format!("| {} |\n", cells(setting).join(" | ")));
    format!("{HEADER}{}", rows.concat())
}

fn cells(setting: &dyn Declared) -> [String; 6] {
    let about = setting.about();
    let none = || "none".to_owned();
    let variable = about.variable().map(|name| format!("`{name}`"));
    let takes_value = about.shape != Shape::Bare;
    let default = match about.default {
        Preset::Value(_) if matches!(about.shape, Shape::Switch | Shape::Bare) => "off".to_owned(),
        Preset::Value(text) => format!("`{text}`"),
        Preset::Computed(words) => words.to_owned(),
        Preset::Unset => none(),
    };
    let unit = takes_value.then(|| setting.unit().to_owned());
    let range = takes_value.then(|| setting.range());
    let mut meaning = about.help.to_owned();
    if !about.notes.is_empty() {
        meaning += &format!(". {}", about.notes);
    }
    // With the embedded store no flag names a store, so the others are named.
    let (words, is_named) = if about.stores.contains(&StoreKind::Embedded) {
        ("Not with", false)
    } else {
        ("Only with", true)
    };
    let named = ALL_STORES
        .iter()
        .filter(|store| about.stores.contains(store) == is_named);
    let flags: Vec<_> = named
        .filter_map(|store| Some(format!("`{}`", store.flag()?)))
        .collect();
    if !flags.is_empty() {
        meaning += &format!(". {words} {}", flags.join(" or "));
    }
    [
        format!("`--{}`", about.flag),
        variable.unwrap_or_else(none),
        default,
        unit.unwrap_or_else(none),
        range.unwrap_or_else(none),
        meaning,
    ]
}
