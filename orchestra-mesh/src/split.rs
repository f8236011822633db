//! Weighted choice among destinations.
//!
//! One draw per request decides, and every attempt of the request stays with the choice. With a sticky
//! header the draw is a hash of salt and value, so a user always lands in the same band; because bands
//! are laid out in the order of the list, raising the first weight at the cost of a later one only adds
//! users to the first.

use http::{HeaderMap, HeaderName};
use orchestra_core::ServiceName;

use crate::Error;
use crate::hash::hash;

/// The greatest weight, that of the Gateway API.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// Shares of traffic.
///
/// ```
/// use http::HeaderMap;
/// use orchestra_core::ServiceName;
/// use orchestra_mesh::split::Split;
///
/// let (stable, canary) = (ServiceName::new("cart")?, ServiceName::new("cart-next")?);
/// let split = Split::new([(canary.clone(), 1), (stable.clone(), 9)])?;
/// assert_eq!(split.choose(&HeaderMap::new(), 0), &canary);
/// assert_eq!(split.choose(&HeaderMap::new(), u64::MAX), &stable);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Destinations of non-zero weight with the end of their band; the last end is the total.
    bands: Vec<(u64, ServiceName)>,
    last: ServiceName,
    sticky: Option<Sticky>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sticky {
    header: HeaderName,
    salt: Box<str>,
}

impl Split {
    /// Everything to one destination.
    pub fn only(destination: ServiceName) -> Self {
        Self {
            bands: vec![(1, destination.clone())],
            last: destination,
            sticky: None,
        }
    }

    /// Shares in proportion to weights of 0 (never) to [`MAX_WEIGHT`]; one at least is not zero.
    pub fn new(weights: impl IntoIterator<Item = (ServiceName, u32)>) -> Result<Self, Error> {
        let mut bands = Vec::new();
        let mut total = 0;
        for (destination, weight) in weights {
            if weight > MAX_WEIGHT {
                return Err(Error::config(format!(
                    "weight {weight} of {destination} exceeds {MAX_WEIGHT}"
                )));
            }
            if weight > 0 {
                total += u64::from(weight);
                bands.push((total, destination));
            }
        }
        let last = bands.last().map(|(_, last)| last.clone());
        let last = last.ok_or_else(|| Error::config("a split needs a weight above zero"))?;
        Ok(Self {
            bands,
            last,
            sticky: None,
        })
    }

    /// Requests with the same value of `header` go to the same destination; `salt` names the group, and
    /// groups of different salts are independent. Without the header, the request's draw decides.
    #[must_use]
    pub fn sticky(mut self, header: HeaderName, salt: impl Into<Box<str>>) -> Self {
        let salt = salt.into();
        self.sticky = Some(Sticky { header, salt });
        self
    }

    /// The destination of a request with these headers and this uniform draw.
    pub fn choose(&self, headers: &HeaderMap, draw: u64) -> &ServiceName {
        let key = |sticky: &Sticky| {
            let value = headers.get(&sticky.header)?;
            Some(hash(sticky.salt.as_bytes(), value.as_bytes()))
        };
        let draw = self.sticky.as_ref().and_then(key).unwrap_or(draw);
        let total = self.bands.last().map_or(1, |(end, _)| *end);
        let point = (u128::from(draw) * u128::from(total)) >> 64;
        let found = self.bands.iter().find(|(end, _)| point < u128::from(*end));
        found.map_or(&self.last, |(_, destination)| destination)
    }

    /// The destinations that can be chosen.
    pub fn destinations(&self) -> impl Iterator<Item = &ServiceName> {
        self.bands.iter().map(|(_, destination)| destination)
    }
}
