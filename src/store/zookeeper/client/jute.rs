//! Jute, ZooKeeper's encoding: integers are big-endian, and texts, buffers and lists have their
//! length in front of them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The length of a text or buffer that is null.
const NULL: i32 = -1;

/// Appends values to bytes.
pub(super) trait Encode {
    fn put_flag(&mut self, flag: bool);
    fn put_buffer(&mut self, buffer: &[u8]);
    fn put_text(&mut self, text: &str) {
        self.put_buffer(text.as_bytes());
    }
    fn put_length(&mut self, length: usize);
}

impl Encode for BytesMut {
    fn put_flag(&mut self, flag: bool) {
        self.put_u8(u8::from(flag));
    }

    fn put_buffer(&mut self, buffer: &[u8]) {
        self.put_length(buffer.len());
        self.put_slice(buffer);
    }

    fn put_length(&mut self, length: usize) {
        self.put_i32(i32::try_from(length).expect("requests are far below 2 GiB"));
    }
}

/// Takes values from the front of bytes. Each returns `None` if the bytes end before it, or if it is
/// not one.
pub(super) trait Decode {
    fn int(&mut self) -> Option<i32>;
    fn long(&mut self) -> Option<i64>;
    fn flag(&mut self) -> Option<bool>;
    /// A buffer; a null one counts as empty.
    fn buffer(&mut self) -> Option<Bytes>;
    fn text(&mut self) -> Option<String>;
    fn texts(&mut self) -> Option<Vec<String>>;
}

impl Decode for Bytes {
    fn int(&mut self) -> Option<i32> {
        self.try_get_i32().ok()
    }

    fn long(&mut self) -> Option<i64> {
        self.try_get_i64().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        self.try_get_u8().ok().map(|flag| flag != 0)
    }

    fn buffer(&mut self) -> Option<Bytes> {
        let length = match self.int()? {
            NULL => 0,
            length => usize::try_from(length).ok()?,
        };
        (length <= self.len()).then(|| self.split_to(length))
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.buffer()?.into()).ok()
    }

    fn texts(&mut self) -> Option<Vec<String>> {
        let count = self.int()?.max(0);
        (0..count).map(|_| self.text()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_read_as_it_was_written() {
        let mut bytes = BytesMut::new();
        bytes.put_flag(true);
        bytes.put_text("/ä");
        bytes.put_i32(NULL);
        bytes.put_length(2);
        bytes.put_text("a");
        bytes.put_text("");
        let mut bytes = bytes.freeze();
        assert_eq!(bytes.flag(), Some(true));
        assert_eq!(bytes.text().as_deref(), Some("/ä"));
        assert_eq!(bytes.buffer(), Some(Bytes::new()));
        assert_eq!(bytes.texts(), Some(vec!["a".to_owned(), String::new()]));
        assert_eq!(bytes.int(), None);
    }

    #[test]
    fn a_length_that_is_too_great_is_no_value() {
        let of = |bytes: &'static [u8]| Bytes::from_static(bytes);
        assert_eq!(of(&[0, 0, 0, 2, b'a']).text(), None);
        assert_eq!(of(&[0x80, 0, 0, 0, b'a']).buffer(), None);
        assert_eq!(of(&[0x7f, 0xff, 0xff, 0xff]).texts(), None);
        assert_eq!(of(&[0, 0, 0, 1, 0xff]).text(), None);
    }
}
