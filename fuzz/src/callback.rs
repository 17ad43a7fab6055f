//! Names that a page wants called or assigned.

use holdfast::script::{Callback, Variable};

use super::grammar::{is_callback, is_variable};

/// A name is accepted if it is in the grammar, and only then.
pub fn check(input: &[u8]) {
    let Ok(name) = str::from_utf8(input) else { return };
    assert_eq!(Callback::parse(name).is_some(), is_callback(name));
    assert_eq!(Variable::parse(name).is_some(), is_variable(name));
}
