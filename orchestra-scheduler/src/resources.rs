//! Amounts of CPU, memory, storage and network, with arithmetic that never wraps.

use std::fmt;

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", self.0, $unit)
            }
        }
    };
}

amount! {
    /// Thousandths of a CPU.
    Millicores, "m"
}
amount! {
    /// Bytes of memory or storage.
    Bytes, "B"
}
amount! {
    /// Network bandwidth.
    BitsPerSecond, "bit/s"
}

impl Bytes {
    /// Mebibytes, saturating.
    pub const fn mib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// Gibibytes, saturating.
    pub const fn gib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }
}

impl BitsPerSecond {
    /// Megabits per second, saturating.
    pub const fn mbit(count: u64) -> Self {
        Self(count.saturating_mul(1_000_000))
    }
}

/// One kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Processor time.
    Cpu,
    /// Main memory.
    Memory,
    /// Disk space.
    Storage,
    /// Network bandwidth.
    Network,
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Storage, Self::Network];
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Storage => "storage",
            Self::Network => "network",
        })
    }
}

/// What a replica asks for, or what a node has; zero by default.
///
/// ```
/// use orchestra_scheduler::{Bytes, Resources};
///
/// let node = Resources::new().cpu(4_000).memory(Bytes::gib(8));
/// let replica = Resources::new().cpu(500).memory(Bytes::mib(256));
/// assert!(replica.fits_in(&node));
/// assert_eq!(node.checked_sub(&replica).map(|left| left.cpu.0), Some(3_500));
/// assert_eq!(replica.checked_sub(&node), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Resources {
    /// Processor time.
    pub cpu: Millicores,
    /// Main memory.
    pub memory: Bytes,
    /// Disk space.
    pub storage: Bytes,
    /// Network bandwidth.
    pub network: BitsPerSecond,
}

impl Resources {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            cpu: Millicores(0),
            memory: Bytes(0),
            storage: Bytes(0),
            network: BitsPerSecond(0),
        }
    }

    /// With this many thousandths of a CPU.
    #[must_use]
    pub const fn cpu(mut self, millicores: u64) -> Self {
        self.cpu = Millicores(millicores);
        self
    }

    /// With this much memory.
    #[must_use]
    pub const fn memory(mut self, memory: Bytes) -> Self {
        self.memory = memory;
        self
    }

    /// With this much disk space.
    #[must_use]
    pub const fn storage(mut self, storage: Bytes) -> Self {
        self.storage = storage;
        self
    }

    /// With this much network bandwidth.
    #[must_use]
    pub const fn network(mut self, network: BitsPerSecond) -> Self {
        self.network = network;
        self
    }

    /// The amount in one dimension, in that dimension's unit.
    pub const fn amount(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Cpu => self.cpu.0,
            Dimension::Memory => self.memory.0,
            Dimension::Storage => self.storage.0,
            Dimension::Network => self.network.0,
        }
    }

    fn zip(self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            cpu: Millicores(f(self.cpu.0, other.cpu.0)),
            memory: Bytes(f(self.memory.0, other.memory.0)),
            storage: Bytes(f(self.storage.0, other.storage.0)),
            network: BitsPerSecond(f(self.network.0, other.network.0)),
        }
    }

    /// The sum, each dimension at most `u64::MAX`.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// The difference, each dimension at least zero.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// The sum, unless a dimension overflows.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let fits = |dimension| {
            self.amount(dimension)
                .checked_add(other.amount(dimension))
                .is_some()
        };
        Dimension::ALL
            .into_iter()
            .all(fits)
            .then(|| self.saturating_add(other))
    }

    /// The difference, unless `other` is larger in some dimension.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        other.fits_in(self).then(|| self.saturating_sub(other))
    }

    /// The first dimension in which this exceeds `room`.
    pub fn shortage_in(&self, room: &Self) -> Option<Dimension> {
        Dimension::ALL
            .into_iter()
            .find(|&dimension| self.amount(dimension) > room.amount(dimension))
    }

    /// Whether this exceeds `room` in no dimension.
    pub fn fits_in(&self, room: &Self) -> bool {
        self.shortage_in(room).is_none()
    }
}

/// What a container may use at most.
///
/// A request is what the scheduler sets aside; a limit is what the runtime enforces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Limits {
    /// The container is slowed down to this much CPU.
    pub cpu: Option<Millicores>,
    /// The container is killed when it uses more memory than this.
    pub memory: Option<Bytes>,
}

impl Limits {
    /// No limit.
    pub const fn new() -> Self {
        Self {
            cpu: None,
            memory: None,
        }
    }

    /// At most this many thousandths of a CPU.
    #[must_use]
    pub const fn cpu(mut self, millicores: u64) -> Self {
        self.cpu = Some(Millicores(millicores));
        self
    }

    /// At most this much memory.
    #[must_use]
    pub const fn memory(mut self, memory: Bytes) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Whether nothing is limited.
    pub const fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none()
    }
}
