//! Mean and standard deviation, as Envoy and gRPC take them.

/// The mean, and the value that lies `factor` standard deviations below it.
///
/// The deviation is that of a population: divided by the number of values, not by one less.
pub(super) fn mean_and_threshold(
    values: impl Iterator<Item = f64> + Clone,
    factor: f64,
) -> Option<(f64, f64)> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values.clone() {
        sum += value;
        count += 1;
    }
    if count == 0 {
        return None;
    }
    let mean = sum / f64::from(count);
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    let deviation = (squares / f64::from(count)).sqrt();
    Some((mean, mean - factor * deviation))
}

#[cfg(test)]
mod tests {
    use super::mean_and_threshold;

    #[test]
    fn threshold_is_that_of_envoys_worked_example() {
        let rates = [50.0, 100.0, 100.0, 100.0, 100.0];
        let found = mean_and_threshold(rates.into_iter(), 1.9);
        assert_eq!(found, Some((90.0, 52.0)));
        assert_eq!(mean_and_threshold(std::iter::empty(), 1.9), None);
    }
}
