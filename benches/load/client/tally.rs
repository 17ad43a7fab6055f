//! The results of the sets of one scenario: counts, and the first mistakes in words.

use std::time::Duration;

use super::{LOST, Response};

/// The number of mistakes that are kept in words. All others are only counted.
const MOST_TOLD: usize = 5;

/// The counts. All but `sets` and `confirmed` must be 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sets: u64,
    pub(crate) confirmed: u64,
    /// Confirmed sets whose page was not answered in time.
    pub(crate) lost: u64,
    /// Wrong answers and receipts, and those that nobody asked for.
    pub(crate) wrong: u64,
    /// Sets without a receipt.
    pub(crate) unconfirmed: u64,
    pub(crate) told: Vec<String>,
}

impl Tally {
    pub(super) fn wrong(&mut self, what: &str) {
        self.wrong += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push(what.to_owned());
        }
    }

    pub(super) fn unasked(&mut self, response: &Response<'_>) {
        self.wrong(&format!(
            "an answer {} that nobody asked for, or that came twice",
            response.status
        ));
    }

    pub(super) fn answered(&mut self, latency: Duration) {
        if latency > LOST {
            self.lost += 1;
        }
    }
}
