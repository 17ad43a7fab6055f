//! When a waiter's key was opened for it, and whether it has to be opened again.

/// The epoch of the store in which a waiter's key was opened for it, and whether the waiter may
/// have missed an update since. To save memory, both are in one number: four times the epoch, plus
/// the flags [`MISSED`] and [`BEGUN`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenState(u64);

/// The flag of a waiter that may have missed an update, as long as nobody has begun to open its key
/// again.
const MISSED: u64 = 1;
/// The flag of a waiter whose key is being opened again for a missed update.
const BEGUN: u64 = 2;

impl OpenState {
    /// Returns the epoch; 0 if the key was not opened yet.
    pub(super) const fn epoch(self) -> u64 {
        self.0 >> 2
    }

    /// Returns whether the key has to be opened in this epoch.
    pub(super) const fn is_due(self, epoch: u64) -> bool {
        self.epoch() < epoch || self.0 & (MISSED | BEGUN) != 0
    }

    /// Notes that the waiter's get opened the key. A missed update stays noted, because it may be
    /// newer than what that open saw.
    pub(super) fn open(&mut self, epoch: u64) {
        self.0 = (self.epoch().max(epoch.min(u64::MAX >> 2)) << 2) | (self.0 & (MISSED | BEGUN));
    }

    /// Notes that the key was opened again. An update that was missed after that open began stays
    /// noted.
    pub(super) fn open_again(&mut self, epoch: u64) {
        self.open(epoch);
        self.0 &= !BEGUN;
    }

    /// Notes that the waiter may have missed an update, even if its key is just being opened. Does
    /// nothing for the waiter of the health check, which counts as opened in every epoch and ends
    /// within a second or two.
    pub(super) fn miss(&mut self) {
        if self.epoch() < u64::MAX >> 2 {
            self.0 |= MISSED;
        }
    }

    /// Notes that the key is about to be opened again.
    pub(super) fn begin(&mut self) {
        if self.0 & MISSED != 0 {
            self.0 ^= MISSED;
            self.0 |= BEGUN;
        }
    }
}
