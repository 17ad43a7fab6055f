//! Answers as scripts: the names that may be called or assigned, and the rendering of JSON as
//! safe JavaScript. Pure.
//!
//! An endpoint that reflects a name into a script is a way into every page that allows this host
//! in its `script-src`. So bad names are refused, not cleaned, and a script begins with `/**/`,
//! so that its first bytes are ours (CVE-2014-4671, "Rosetta Flash").

mod rendering;

pub(super) use rendering::push_as_script;

/// The longest callback.
pub const MAX_CALLBACK_BYTES: usize = 128;
/// The longest variable of an assignment.
pub const MAX_VARIABLE_BYTES: usize = 64;
/// The most digits of an index, and the most indexes of a segment.
const MAX_INDEX_DIGITS: usize = 5;
const MAX_INDEXES: usize = 4;

/// The words that cannot begin an expression that names a function, in sloppy code, in strict
/// code and in modules.
const RESERVED: [&str; 46] = [
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "import",
    "in",
    "instanceof",
    "new",
    "null",
    "return",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "with",
    "await",
    "let",
    "static",
    "yield",
    "implements",
    "interface",
    "package",
    "private",
    "protected",
    "public",
];

/// The form in which a page wants its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A call of a function.
    Jsonp(Callback),
    /// An assignment to a global variable.
    Assignment(Variable),
    /// Plain JSON, for `fetch`.
    Json,
}

impl Form {
    /// Writes `json` into `out` in this form.
    pub fn render(&self, json: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Jsonp(callback) => callback.push_call(out, |out| push_as_script(json, out)),
            Self::Assignment(variable) => {
                out.extend_from_slice(b"/**/");
                variable.push_assignment(json, out);
            }
            Self::Json => out.extend_from_slice(json),
        }
    }
}

/// The function that a page wants called: `cb`, `a.b.cb`, `a[0].cb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback(Box<str>);

impl Callback {
    /// Reads a name of segments joined by dots, each an ASCII identifier with at most four
    /// indexes. Returns `None` for any other text.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut segments = name.split('.').map(segment);
        let first = segments.next().flatten()?;
        let good = name.len() <= MAX_CALLBACK_BYTES
            && !RESERVED.contains(&first)
            && segments.all(|s| s.is_some());
        good.then(|| Self(name.into()))
    }

    /// Returns the global that a dotted name begins with. A late script must look for it first,
    /// because `typeof a.b` throws if `a` no longer exists.
    fn root(&self) -> Option<&str> {
        let (first, _) = self.0.split_once('.')?;
        Some(first.split_once('[').map_or(first, |(root, _)| root))
    }

    /// Writes a call of the function, if it is there. `arguments` writes what stands in the
    /// brackets.
    pub(super) fn push_call(&self, out: &mut Vec<u8>, arguments: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(b"/**/");
        if let Some(root) = self.root() {
            out.extend_from_slice(b"typeof ");
            out.extend_from_slice(root.as_bytes());
            out.extend_from_slice(b"!==\"undefined\"&&");
        }
        out.extend_from_slice(b"typeof ");
        out.extend_from_slice(self.0.as_bytes());
        out.extend_from_slice(b"===\"function\"&&");
        out.extend_from_slice(self.0.as_bytes());
        out.push(b'(');
        arguments(out);
        out.extend_from_slice(b");");
    }
}

/// The beginning that a name must have to be called or assigned: see `--callback-prefix`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(Option<Box<str>>);

impl Prefix {
    /// Returns the prefix, or `None` if no name that may be called begins with `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // One of these completes each beginning of a name: nothing, a segment, an index, or the
        // end of an index.
        let is_beginning = ["", "a", "0]", "]"]
            .iter()
            .any(|rest| Callback::parse(&format!("{text}{rest}")).is_some());
        (!text.is_empty() && is_beginning).then(|| Self(Some(text.into())))
    }

    /// Returns whether a name begins with this prefix.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|prefix| name.starts_with(&**prefix))
    }
}

/// The global variable that a page wants assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable(Box<str>);

impl Variable {
    /// Reads an ASCII identifier that is no reserved word. Refuses `location` too, because
    /// assigning that leaves the page. Returns `None` for any other text.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let good = name.len() <= MAX_VARIABLE_BYTES
            && is_identifier(name)
            && !RESERVED.contains(&name)
            && name != "location";
        good.then(|| Self(name.into()))
    }

    /// Returns the name, without `window.`.
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// Writes an assignment of this JSON.
    pub(super) fn push_assignment(&self, json: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"window.");
        out.extend_from_slice(self.0.as_bytes());
        out.push(b'=');
        push_as_script(json, out);
        out.push(b';');
    }
}

/// Returns the identifier of one segment of a callback, if only indexes follow it.
fn segment(text: &str) -> Option<&str> {
    let (name, indexes) = text.split_at(text.find('[').unwrap_or(text.len()));
    let is_index = |index: &str| {
        index.strip_suffix(']').is_some_and(|digits| {
            (1..=MAX_INDEX_DIGITS).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let good = is_identifier(name)
        && (indexes.is_empty()
            || (indexes[1..].split('[').count() <= MAX_INDEXES
                && indexes[1..].split('[').all(is_index)));
    good.then_some(name)
}

fn is_identifier(text: &str) -> bool {
    text.bytes()
        .next()
        .is_some_and(|first| !first.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jsonp(name: &str, json: &str) -> String {
        rendered(&Form::Jsonp(Callback::parse(name).expect(name)), json)
    }

    fn rendered(form: &Form, json: &str) -> String {
        let mut out = Vec::new();
        form.render(json.as_bytes(), &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_callback_is_called_if_it_is_there() {
        assert_eq!(jsonp("cb", "1"), r#"/**/typeof cb==="function"&&cb(1);"#);
        assert_eq!(
            jsonp("___eio[0]", "1"),
            r#"/**/typeof ___eio[0]==="function"&&___eio[0](1);"#
        );
        assert_eq!(
            jsonp("a[1][2].b.c[3]", "1"),
            r#"/**/typeof a!=="undefined"&&typeof a[1][2].b.c[3]==="function"&&a[1][2].b.c[3](1);"#
        );
        let variable = Variable::parse("answer").expect("good");
        assert_eq!(
            rendered(&Form::Assignment(variable), "{}"),
            "/**/window.answer={};"
        );
        assert_eq!(
            rendered(&Form::Json, "{\"__proto__\":1}"),
            "{\"__proto__\":1}"
        );
    }

    #[test]
    fn names_that_are_no_callbacks_are_refused() {
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "1a",
            "a-b",
            "a b",
            "alert(1)",
            "a;b",
            "a[",
            "a[]",
            "a[x]",
            "a[123456]",
            "a[0",
            "a]0[",
            "a[0]b",
            "[0]",
            "a[0][0][0][0][0]",
            "this",
            "this.a",
            "class",
            "new[0]",
            "é",
            "a\n",
            "*/",
            "\\u0061",
            &"a".repeat(129),
        ] {
            assert_eq!(Callback::parse(bad), None, "{bad}");
        }
        for good in [
            "a",
            "$",
            "_",
            "a.this",
            "a[0][1][22][33333].b",
            "window.cb",
            "thisone",
            &"a".repeat(128),
        ] {
            assert!(Callback::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a.b", "a[0]", "location", "var", "1", &"a".repeat(65)] {
            assert_eq!(Variable::parse(bad), None, "{bad}");
        }
        assert!(Variable::parse(&"a".repeat(64)).is_some());
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_name_that_may_be_called() {
        for good in [
            "a",
            "cb_",
            "jQuery",
            "app.",
            "app.cb",
            "a[",
            "a[1",
            "a[0]",
            "a[0].",
            "$",
            "this_",
            "this",
            &"a".repeat(128),
        ] {
            assert!(Prefix::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..",
            "1",
            "a-",
            "a b",
            "a[x",
            "a]",
            "this.",
            "class[",
            "é",
            "alert(",
            &"a".repeat(129),
        ] {
            assert_eq!(Prefix::parse(bad), None, "{bad}");
        }
        let prefix = Prefix::parse("app.").expect("good");
        assert!(
            prefix.allows("app.cb")
                && !prefix.allows("app")
                && !prefix.allows("xapp.cb")
                && !prefix.allows("App.cb")
        );
        assert!(Prefix::default().allows("anything"));
    }

    #[test]
    fn a_member_named_proto_stays_a_member() {
        let cases = [
            (r#"{"__proto__":1}"#, r#"{["__proto__"]:1}"#),
            (
                r#"{"a":{"__proto__" : [],"__proto__":{}}}"#,
                r#"{"a":{["__proto__"] : [],["__proto__"]:{}}}"#,
            ),
            (r#"{"\u005f_proto_\u005F":1}"#, r#"{["__proto__"]:1}"#),
            (
                r#"["__proto__","\"__proto__\":"]"#,
                r#"["__proto__","\"__proto__\":"]"#,
            ),
            (
                r#"{"__proto__x":1,"x__proto__":"__proto__"}"#,
                r#"{"__proto__x":1,"x__proto__":"__proto__"}"#,
            ),
        ];
        for (json, script) in cases {
            assert_eq!(
                jsonp("f", json),
                format!(r#"/**/typeof f==="function"&&f({script});"#)
            );
        }
    }

    #[test]
    fn line_ends_of_javascript_are_escaped() {
        let json = "{\"\u{2028}\":\"a\u{2029}\u{2028}\",\"b\":\"\u{2027}\"}";
        assert_eq!(
            jsonp("f", json),
            format!(
                r#"/**/typeof f==="function"&&f({});"#,
                json.replace('\u{2028}', "\\u2028")
                    .replace('\u{2029}', "\\u2029")
            )
        );
    }
}
