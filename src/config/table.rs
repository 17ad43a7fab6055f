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
    let flags = |stores: &mut dyn Iterator<Item = StoreKind>, between: &str| {
        let flags = stores.filter_map(StoreKind::flag);
        let flags: Vec<_> = flags.map(|flag| format!("`{flag}`")).collect();
        flags.join(between)
    };
    if about.stores.contains(&StoreKind::Embedded) {
        let others = &mut ALL_STORES
            .iter()
            .copied()
            .filter(|store| !about.stores.contains(store));
        let flags = flags(others, " or ");
        if !flags.is_empty() {
            meaning += &format!(". Not with {flags}");
        }
    } else {
        let flags = flags(&mut about.stores.iter().copied(), " or ");
        meaning += &format!(". Only with {flags}");
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
