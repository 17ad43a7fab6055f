//! The number of one write, by which a store recognizes it. Pure.
//!
//! A write whose answer was lost may reach the store twice, and a backend may repeat a set that
//! it gave an `id`. The store keeps the numbers of the last writes of each key, and carries out
//! none of them twice.

use ring::digest::{SHA256, digest};

/// The number of writes that a store remembers for each key.
pub const REMEMBERED_WRITES: usize = 8;

/// The number of one set, deletion or resend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteNumber {
    number: u64,
    is_of_id: bool,
}

impl WriteNumber {
    /// Returns a number that no other write has. 64 random bits are enough, because only eight
    /// writes of one key are compared with each other.
    #[must_use]
    pub fn random() -> Self {
        Self {
            number: rand::random(),
            is_of_id: false,
        }
    }

    /// Returns the number of every set that was given this `id`. It is the same on every node.
    #[must_use]
    pub fn of_id(id: &str) -> Self {
        let hash = digest(&SHA256, id.as_bytes());
        let (first, _) = hash
            .as_ref()
            .split_first_chunk()
            .expect("SHA-256 has 32 bytes");
        Self {
            number: u64::from_be_bytes(*first),
            is_of_id: true,
        }
    }

    /// Returns whether the request gave an `id`. Only then can another request have the same
    /// number.
    #[must_use]
    pub const fn is_of_id(self) -> bool {
        self.is_of_id
    }

    /// Returns the number that another node sent.
    #[must_use]
    pub const fn of_node(number: u64) -> Self {
        Self {
            number,
            is_of_id: false,
        }
    }

    /// Returns the number as nodes send it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.number
    }

    /// Returns the number as stores keep it.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.number.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_same_number_everywhere_and_forever() {
        // The output of `printf order-17 | sha256sum` begins with these digits. Nodes of all
        // versions must agree on it.
        assert_eq!(
            WriteNumber::of_id("order-17").to_bytes(),
            0x72a9_0ea3_da8b_5dd0_u64.to_be_bytes()
        );
    }
}
