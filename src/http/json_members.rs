//! The members of a request's body, which is a flat JSON object or a form. Each member is taken
//! by its name. An unknown or doubled member is a mistake, because a typo would otherwise lose
//! what was meant. The caller decides what a member means. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::http::query::{Given, Plus, fields};
use crate::model::mistake::{Fault, Mistake};

/// The names of the members that a body may have.
pub(crate) type Names<const N: usize> = &'static [&'static str; N];

/// Returns the position of `name` in `names`.
fn place<const N: usize>(names: Names<N>, name: &str) -> Option<usize> {
    names.iter().position(|known| *known == name)
}

/// An object as it was read. Its JSON grammar is checked, its values are not yet.
pub(crate) struct Members<'a, const N: usize> {
    values: [Option<&'a RawValue>; N],
    /// The first unknown or doubled member.
    mistake: Option<Mistake>,
}

impl<'a, const N: usize> Members<'a, N> {
    /// Returns the members' values, in the order of their names.
    ///
    /// # Errors
    /// Returns the mistake of the first unknown or doubled member.
    pub(crate) fn values(self) -> Result<[Option<&'a RawValue>; N], Mistake> {
        self.mistake.map_or(Ok(self.values), Err)
    }
}

/// A reader of an object with members of these names.
pub(crate) struct MembersOf<const N: usize>(pub(crate) Names<N>);

impl<'de, const N: usize> DeserializeSeed<'de> for MembersOf<N> {
    type Value = Members<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for MembersOf<N> {
    type Value = Members<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut object = Members {
            values: [None; N],
            mistake: None,
        };
        while let Some(member) = members.next_key_seed(NameOf(self.0))? {
            match member {
                Ok(place) => {
                    if object.values[place]
                        .replace(members.next_value()?)
                        .is_some()
                    {
                        object
                            .mistake
                            .get_or_insert(Mistake::new(self.0[place], Fault::GivenTwice));
                    }
                }
                Err(unknown) => {
                    object.mistake.get_or_insert(unknown);
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(object)
    }
}

/// A reader of a member's name. It returns the name's position, or a mistake if the name is
/// unknown.
struct NameOf<const N: usize>(Names<N>);

impl<'de, const N: usize> DeserializeSeed<'de> for NameOf<N> {
    type Value = Result<usize, Mistake>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for NameOf<N> {
    type Value = Result<usize, Mistake>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(place(self.0, name).ok_or_else(|| Mistake::unknown_member(name)))
    }
}

/// A form as it was read.
pub(crate) struct FormMembers<'a, const N: usize> {
    body: &'a [u8],
    values: [Given<'a>; N],
    /// The first unknown member.
    mistake: Option<Mistake>,
}

impl<'a, const N: usize> FormMembers<'a, N> {
    /// Reads a form with members of these names.
    pub(crate) fn parse(body: &'a [u8], names: Names<N>) -> Self {
        let mut form = Self {
            body,
            values: [const { Given::Missing }; N],
            mistake: None,
        };
        for (name, value) in fields(body, Plus::Space) {
            let name = name.unwrap_or_default();
            match place(names, &name) {
                Some(place) => form.values[place].add(value),
                None => drop(
                    form.mistake
                        .get_or_insert_with(|| Mistake::unknown_member(&name)),
                ),
            }
        }
        form
    }

    /// Returns the form, unless the body is something else that was only sent as one: it has no
    /// member that is known, and none that looks like one. `curl -d` calls everything a form.
    ///
    /// # Errors
    /// Fails with [`Fault::NotAForm`], which says what the form would be made `with`.
    pub(crate) fn unless_no_form(self, with: &'static str) -> Result<Self, Mistake> {
        let is_empty = self.values.iter().all(|value| *value == Given::Missing);
        let is_like_a_member =
            |mistake: &Mistake| self.body.contains(&b'=') && mistake.name() != Mistake::UNNAMED;
        match &self.mistake {
            Some(mistake) if is_empty && !is_like_a_member(mistake) => {
                Err(Mistake::new("body", Fault::NotAForm(with)))
            }
            _ => Ok(self),
        }
    }

    /// Returns the members' values, in the order of their names.
    ///
    /// # Errors
    /// Returns the mistake of the first unknown member.
    pub(crate) fn values(self) -> Result<[Given<'a>; N], Mistake> {
        self.mistake.map_or(Ok(self.values), Err)
    }
}

/// Returns whether a content type is that of a form.
pub(crate) fn is_form(content_type: Option<&[u8]>) -> bool {
    let essence = content_type.and_then(|full| full.split(|&byte| byte == b';').next());
    essence.is_some_and(|essence| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    })
}

/// Reads a whole body as JSON.
///
/// # Errors
/// Fails with [`Fault::NotJson`] if the body is not JSON, and with `otherwise` if it is JSON of
/// another kind.
pub(crate) fn read_json<'de, S>(
    body: &'de [u8],
    seed: S,
    otherwise: Fault,
) -> Result<S::Value, Mistake>
where
    S: DeserializeSeed<'de>,
{
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = seed
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value));
    read.map_err(|error| {
        let not_json = Fault::NotJson {
            line: error.line(),
            column: error.column(),
        };
        Mistake::new("body", if error.is_data() { otherwise } else { not_json })
    })
}

/// Returns the text of a member that is a string.
///
/// # Errors
/// Fails with [`Fault::NotAString`] if it is not a string, and with `lone_surrogate` if it has
/// half of a surrogate pair.
pub(crate) fn string(raw: &RawValue, lone_surrogate: Fault) -> Result<Cow<'_, str>, Fault> {
    if !raw.get().starts_with('"') {
        return Err(Fault::NotAString);
    }
    // The grammar is checked already, so only half of a surrogate pair can be wrong.
    serde_json::from_str(raw.get()).map_err(|_| lone_surrogate)
}
