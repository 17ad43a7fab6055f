//! Medians and quantiles.

/// Returns the smallest number that is not below `share` of all numbers, or 0 if there are
/// none. The numbers must be sorted.
pub(crate) fn quantile(sorted: &[u64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .map_or(0.0, |&value| value as f64)
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
