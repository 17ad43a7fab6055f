//! One HTTP/1 answer as it came, and what tests read from it.

use httparse::{EMPTY_HEADER, Status};
use serde_json::Value;

/// The most headers of an answer. More than any program here sends.
const MAX_HEADERS: usize = 64;

/// An answer. Nothing in it is normalised.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The reason behind the status code.
    pub reason: String,
    /// The names and values as written, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The status line and the headers with their line ends, without the empty line.
    pub head: Vec<u8>,
}

impl Response {
    /// Parses an answer as `curl -i` prints it: the body goes on to the end.
    ///
    /// # Panics
    /// If it has no whole head.
    pub fn whole(bytes: &[u8]) -> Self {
        // Only the status line of HTTP/2 differs: it has no reason.
        let as_http_1 = bytes
            .strip_prefix(b"HTTP/2 ")
            .map(|rest| [b"HTTP/1.1 ", rest].concat());
        let bytes = as_http_1.as_deref().unwrap_or(bytes);
        let (mut response, start) = Self::parse_head(bytes).unwrap_or_else(|| panic!("no head"));
        response.body = bytes[start..].to_vec();
        response
    }

    /// Parses the head at the beginning of `bytes`. Returns the answer without its body, and
    /// where the body begins, or `None` if the head is not complete.
    ///
    /// # Panics
    /// If it is not an HTTP answer.
    pub fn parse_head(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let end = match parsed.parse(bytes) {
            Ok(Status::Complete(end)) => end,
            Ok(Status::Partial) => return None,
            Err(error) => panic!("no HTTP answer: {error}: {:?}", text(bytes)),
        };
        let head = bytes[..end - 2].to_vec();
        // The parser also takes lines that end in a line feed alone.
        let lines = head.split_inclusive(|&byte| byte == b'\n');
        assert!(
            bytes[..end].ends_with(b"\r\n\r\n") && { lines }.all(|line| line.ends_with(b"\r\n")),
            "a line end: {:?}",
            text(&head)
        );
        let headers = parsed.headers.iter();
        let response = Self {
            status: parsed.code.expect("a complete head"),
            reason: parsed.reason.unwrap_or_default().to_owned(),
            headers: headers
                .map(|header| (header.name.to_owned(), text(header.value)))
                .collect(),
            body: Vec::new(),
            head,
        };
        Some((response, end))
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
