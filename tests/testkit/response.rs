//! One HTTP/1 answer as it came, and what tests read from it.

use serde_json::Value;

/// An answer. Nothing in it is normalised.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    /// The names and values as written, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The status line and the headers with their line ends, without the empty line.
    pub head: Vec<u8>,
}

impl Response {
    /// Parses an answer as `curl -i` prints it: the body goes on to the end.
    ///
    /// # Panics
    /// If it has no whole head.
    pub(crate) fn whole(mut bytes: Vec<u8>) -> Self {
        let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let head_end =
            head_end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(&bytes)));
        let body = bytes.split_off(head_end + 4);
        bytes.truncate(head_end + 2);
        Self {
            body,
            ..Self::parse(bytes)
        }
    }

    /// Parses a head, without the empty line at its end.
    ///
    /// # Panics
    /// If it is not an HTTP answer.
    pub(crate) fn parse(head: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.split_terminator("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let mut parts = status_line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default();
        assert!(
            version.starts_with("HTTP/1.") || version == "HTTP/2",
            "no HTTP answer: {text:?}"
        );
        let status = parts
            .next()
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status: {text:?}"));
        let reason = parts.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| {
                line.split_once(':')
                    .unwrap_or_else(|| panic!("no header: {line:?}"))
            })
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Self {
            status,
            reason,
            headers,
            body: Vec::new(),
            head,
        }
    }

    /// Returns the value of the header `name`, in any case.
    ///
    /// # Panics
    /// If it came more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let first = values.next();
        assert!(
            values.next().is_none(),
            "{name} came twice: {:?}",
            self.headers
        );
        first.map(|(_, value)| value.as_str())
    }

    /// Returns the header names in lower case, in order.
    pub fn header_names(&self) -> Vec<String> {
        self.headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect()
    }

    /// Returns the body, which must be UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the text of the answer's object, taken out of a call, an assignment or plain
    /// JSON.
    pub fn object_text(&self) -> &str {
        let text = self.text();
        if !text.starts_with("/**/") {
            return text;
        }
        let start = text
            .find('{')
            .unwrap_or_else(|| panic!("no object in {text}"));
        let end = text
            .rfind('}')
            .unwrap_or_else(|| panic!("no object in {text}"));
        &text[start..=end]
    }

    /// Returns the answer's object, taken out of a call, an assignment or plain JSON.
    pub fn object(&self) -> Value {
        serde_json::from_str(self.object_text()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns `code` of the answer's object.
    pub fn code(&self) -> i64 {
        self.object()["code"]
            .as_i64()
            .unwrap_or_else(|| panic!("no code: {self:?}"))
    }

    /// Returns `version` of the answer's object.
    pub fn version(&self) -> u64 {
        self.object()["version"]
            .as_u64()
            .unwrap_or_else(|| panic!("no version: {self:?}"))
    }

    /// Returns the whole answer as it came.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.head[..], b"\r\n", &self.body[..]].concat()
    }
}
