//! Medians, and histograms of latencies.

use hdrhistogram::Histogram;

/// Returns an empty histogram of nanoseconds. It keeps three significant digits: no figure is
/// shown with more.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("a number of digits that it can keep")
}

/// Returns the middle value, or the mean of the two in the middle. Returns `None` if there are
/// none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len() / 2;
    let upper = *sorted.get(at)?;
    Some(if sorted.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(sorted[at - 1], upper)
    })
}
