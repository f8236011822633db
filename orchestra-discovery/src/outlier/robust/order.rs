//! Order statistics.

/// Makes the MAD of normal values their standard deviation.
const NORMAL: f64 = 1.4826;

/// The lower median; `None` of nothing. The values change places.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// The median, and the robust deviation: the scaled median of distances from it. The values are lost.
pub(super) fn median_and_deviation(values: &mut [f64]) -> Option<(f64, f64)> {
    let center = median(values)?;
    for value in &mut *values {
        *value = (*value - center).abs();
    }
    Some((center, NORMAL * median(values)?))
}

#[cfg(test)]
mod tests {
    use super::{median, median_and_deviation};

    #[test]
    fn deviation_is_not_moved_by_two_fifths_of_outliers() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.0));
        let mut values = [1.0, 2.0, 3.0, 900.0, 1000.0];
        assert_eq!(median_and_deviation(&mut values), Some((3.0, 2.0 * 1.4826)));
    }
}
