//! Where something runs, and how near two places are.

use std::fmt;
use std::sync::Arc;

/// Region, zone and subzone, each optional and meaningful only below the one before it.
///
/// ```
/// use orchestra_core::{Locality, Proximity};
///
/// let here = Locality::new("eu-west").zone("a");
/// let there = Locality::new("eu-west").zone("b");
/// assert_eq!(here.proximity(&there), Proximity::Region);
/// assert_eq!(here.to_string(), "eu-west/a");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    region: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    subzone: Option<Arc<str>>,
}

/// How near two localities are; the nearer, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Proximity {
    /// Different regions, or at least one of them unknown.
    Remote,
    /// The same region.
    Region,
    /// The same zone of the same region.
    Zone,
    /// The same subzone of the same zone.
    Subzone,
}

impl Locality {
    /// A region.
    pub fn new(region: &str) -> Self {
        Self {
            region: part(region),
            zone: None,
            subzone: None,
        }
    }

    /// The same region, this zone of it.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = part(zone);
        self
    }

    /// The same zone, this subzone of it.
    #[must_use]
    pub fn subzone(mut self, subzone: &str) -> Self {
        self.subzone = part(subzone);
        self
    }

    /// Region, zone and subzone as far as known.
    pub fn parts(&self) -> [Option<&str>; 3] {
        [
            self.region.as_deref(),
            self.zone.as_deref(),
            self.subzone.as_deref(),
        ]
    }

    /// How near `other` is. An unknown part is near to nothing, itself included.
    pub fn proximity(&self, other: &Self) -> Proximity {
        let same = |a: &Option<Arc<str>>, b: &Option<Arc<str>>| a.is_some() && a == b;
        if !same(&self.region, &other.region) {
            Proximity::Remote
        } else if !same(&self.zone, &other.zone) {
            Proximity::Region
        } else if !same(&self.subzone, &other.subzone) {
            Proximity::Zone
        } else {
            Proximity::Subzone
        }
    }
}

fn part(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| Arc::from(text))
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.region.as_deref().unwrap_or("unknown"))?;
        let Some(zone) = &self.zone else {
            return Ok(());
        };
        write!(f, "/{zone}")?;
        let Some(subzone) = &self.subzone else {
            return Ok(());
        };
        write!(f, "/{subzone}")
    }
}
