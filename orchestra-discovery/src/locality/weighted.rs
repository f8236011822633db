//! Localities by weight.

/// Fractions of a weight that are kept.
const SCALE: u128 = 1 << 16;

/// One locality and the weight it was given.
///
/// ```
/// use orchestra_discovery::locality::{LocalityWeights, WeightedLocality};
///
/// let well = WeightedLocality { weight: 3, available: 4, total: 4 };
/// let gone = WeightedLocality { weight: 9, available: 0, total: 4 };
/// assert_eq!(LocalityWeights::new(140, &[gone, well]).choose(0), Some(1));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct WeightedLocality {
    /// Its share of the calls relative to the others while it is available; 0 takes none.
    pub weight: u32,
    /// Its instances that can take calls.
    pub available: u32,
    /// All its instances but those that are not to be counted.
    pub total: u32,
}

/// Localities chosen in proportion to their weights, less what is not available of them.
///
/// ```text
/// effective weight = weight * min(1, overprovisioning / 100 * available / total)
/// ```
///
/// as in Envoy's locality weighted load balancing. A locality of which anything is available keeps some
/// chance; one without weight or without an available instance has none.
///
/// ```
/// use orchestra_discovery::locality::{LocalityWeights, WeightedLocality};
///
/// let near = WeightedLocality { weight: 1, available: 0, total: 5 };
/// let far = WeightedLocality { weight: 2, available: 1, total: 1 };
/// let weights = LocalityWeights::new(140, &[near, far]);
/// assert_eq!(weights.choose(0), Some(1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityWeights {
    cumulative: Box<[u64]>,
}

impl LocalityWeights {
    /// The table for these localities, with the overprovisioning factor in percent; linear in their number.
    pub fn new(overprovisioning: u32, localities: &[WeightedLocality]) -> Self {
        let mut upto: u64 = 0;
        let sums = localities.iter().map(|locality| {
            upto = upto.saturating_add(effective(overprovisioning, locality));
            upto
        });
        Self {
            cumulative: sums.collect(),
        }
    }

    /// The index of the locality a call goes to, by a uniform draw; `None` if no locality has both weight
    /// and an available instance. No allocation; logarithmic in the localities.
    pub fn choose(&self, draw: u64) -> Option<usize> {
        let total = *self.cumulative.last().filter(|total| **total > 0)?;
        let target = u64::try_from((u128::from(draw) * u128::from(total)) >> 64).ok()?;
        Some(self.cumulative.partition_point(|&upto| upto <= target))
    }
}

fn effective(overprovisioning: u32, locality: &WeightedLocality) -> u64 {
    if locality.weight == 0 || locality.available == 0 || overprovisioning == 0 {
        return 0;
    }
    let whole = 100 * u128::from(locality.total.max(1));
    let available = u128::from(overprovisioning) * u128::from(locality.available);
    let scaled = u128::from(locality.weight) * SCALE * available.min(whole) / whole;
    u64::try_from(scaled).unwrap_or(u64::MAX).max(1)
}
