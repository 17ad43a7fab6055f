//! Checks the names that a page wants called or assigned.

use holdfast::page::script::{Callback, Variable};

use super::grammar::{is_callback, is_variable};

/// Checks that a name is accepted if it is in the grammar, and only then.
pub fn check(input: &[u8]) {
    let Ok(name) = str::from_utf8(input) else {
        return;
    };
    assert_eq!(Callback::parse(name).is_some(), is_callback(name));
    assert_eq!(Variable::parse(name).is_some(), is_variable(name));
}
