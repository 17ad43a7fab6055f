//! A reader of the scripts in answers, which reads them as ES5 does. It accepts only the few
//! forms that README.md names, so whatever it reads is exactly one statement.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::json::Json;

/// The effect of a script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement<'a> {
    /// `typeof NAME GUARD&&` for each guard, in order, then `NAME(ARGUMENTS);`.
    Call {
        guards: Vec<(&'a str, &'a str)>,
        name: &'a str,
        arguments: Vec<Json>,
    },
    /// `window.NAME=VALUE;`.
    Assignment { name: &'a str, value: Json },
}

/// Reads a script that answers through a template: assignments, or one call. Returns `None` if it is
/// anything else.
pub(crate) fn parse_templated(script: &str) -> Option<Vec<Statement<'_>>> {
    if script.starts_with("/**/") {
        return parse(script).map(|call| vec![call]);
    }
    let mut reader = Reader { rest: script };
    let mut statements = Vec::new();
    while !reader.rest.is_empty() {
        match reader.statement()? {
            assignment @ Statement::Assignment { .. } => statements.push(assignment),
            Statement::Call { .. } => return None,
        }
    }
    Some(statements)
}

/// Reads a script to its end. Returns `None` if it is anything else.
pub(crate) fn parse(script: &str) -> Option<Statement<'_>> {
    let mut reader = Reader {
        rest: script.strip_prefix("/**/")?,
    };
    let statement = reader.statement()?;
    reader.rest.is_empty().then_some(statement)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn statement(&mut self) -> Option<Statement<'a>> {
        let mut guards = Vec::new();
        while self.take("typeof ").is_some() {
            let name = self.name()?;
            let guard = ["!==\"undefined\"", "===\"function\""]
                .into_iter()
                .find(|guard| self.take(guard).is_some())?;
            guards.push((name, guard));
            self.take("&&")?;
        }
        let name = self.name()?;
        if self.take("=").is_some() {
            let value = self.value()?;
            self.take(";")?;
            let name = name.strip_prefix("window.").filter(|_| guards.is_empty())?;
            return Some(Statement::Assignment { name, value });
        }
        self.take("(")?;
        let mut arguments = Vec::new();
        while self.take(");").is_none() {
            if !arguments.is_empty() {
                self.take(",")?;
            }
            arguments.push(self.value()?);
        }
        Some(Statement::Call {
            guards,
            name,
            arguments,
        })
    }

    fn name(&mut self) -> Option<&'a str> {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || "_$.[]".contains(c);
        let end = self.rest.find(|c| !of_a_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    /// Reads a literal, with white space around it.
    fn value(&mut self) -> Option<Json> {
        self.space();
        let value = match self.rest.chars().next()? {
            '[' => self.array(),
            '{' => self.object(),
            '"' => self.string().map(Json::Text),
            _ => self.word(),
        };
        self.space();
        value
    }

    fn array(&mut self) -> Option<Json> {
        self.take("[")?;
        self.space();
        let mut elements = Vec::new();
        if self.take("]").is_some() {
            return Some(Json::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            if self.take("]").is_some() {
                return Some(Json::Array(elements));
            }
            self.take(",")?;
        }
    }

    fn object(&mut self) -> Option<Json> {
        self.take("{")?;
        self.space();
        let mut members = Vec::new();
        if self.take("}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            let name = self.member_name()?;
            self.take(":")?;
            members.push((name, self.value()?));
            if self.take("}").is_some() {
                return Some(Json::Object(members));
            }
            self.take(",")?;
        }
    }

    /// Reads a plain or a computed name. A plain `__proto__` is refused: it is no member,
    /// because it sets the prototype.
    fn member_name(&mut self) -> Option<String> {
        self.space();
        let is_computed = self.take("[").is_some();
        let name = self.string()?;
        if is_computed {
            self.take("]")?;
        }
        self.space();
        (is_computed || name != "__proto__").then_some(name)
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut units = Vec::new();
        loop {
            let mut chars = self.rest.chars();
            let read = chars.next()?;
            self.rest = chars.as_str();
            match read {
                '"' => return String::from_utf16(&units).ok(),
                '\\' => units.push(self.escaped()?),
                '\n' | '\r' | '\u{2028}' | '\u{2029}' => return None,
                other => units.extend_from_slice(other.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn escaped(&mut self) -> Option<u16> {
        let mut chars = self.rest.chars();
        let unit = match chars.next()? {
            'b' => 0x08,
            't' => 0x09,
            'n' => 0x0A,
            'f' => 0x0C,
            'r' => 0x0D,
            'u' => {
                let digits = chars
                    .as_str()
                    .get(..4)
                    .filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))?;
                self.rest = &chars.as_str()[4..];
                return u16::from_str_radix(digits, 16).ok();
            }
            quoted @ ('"' | '\\' | '/') => quoted as u16,
            _ => return None,
        };
        self.rest = chars.as_str();
        Some(unit)
    }

    fn word(&mut self) -> Option<Json> {
        static WORD: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"^(null|true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?)$")
                .expect("a good pattern")
        });
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        WORD.is_match(word).then(|| Json::Word(word.to_owned()))
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}
