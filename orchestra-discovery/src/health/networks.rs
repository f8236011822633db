//! Which addresses probes may go to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// An IPv4 or IPv6 network in CIDR notation (RFC 4632, RFC 4291); an address alone is a network of one.
///
/// ```
/// use orchestra_discovery::health::Network;
///
/// let private: Network = "10.0.0.0/8".parse()?;
/// assert!(private.contains("10.1.2.3".parse()?) && !private.contains("11.0.0.1".parse()?));
/// assert!("10.0.0.1/8".parse::<Network>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// Fails if the prefix is longer than the address, or the base has bits set beyond it.
    pub fn new(base: IpAddr, prefix: u8) -> Result<Self> {
        let invalid = |what: &str| {
            let message = format!("network {base}/{prefix}: {what}");
            Err(Error::new(ErrorKind::Invalid, message))
        };
        let width = if base.is_ipv4() { 32 } else { 128 };
        if prefix > width {
            return invalid("the prefix is longer than the address");
        }
        let network = Self { base, prefix };
        if bits(base) & !network.mask() != 0 {
            return invalid("the address has bits set beyond the prefix");
        }
        Ok(network)
    }

    /// Whether the address lies in it. An IPv4 address never lies in an IPv6 network, nor the reverse.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.base.is_ipv4() == address.is_ipv4() && bits(address) & self.mask() == bits(self.base)
    }

    /// The bits of the prefix; addresses are compared left-aligned, so that both families have one width.
    fn mask(&self) -> u128 {
        let hidden = u32::from(self.prefix);
        u128::MAX.checked_shr(hidden).map_or(u128::MAX, |low| !low)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            let shown: String = text.chars().take(64).collect();
            Error::new(ErrorKind::Invalid, format!("{shown:?} is not a network"))
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().ok().ok_or_else(invalid)?;
        let prefix = match prefix {
            // `u8` would also take a sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().ok_or_else(invalid)?
            }
            Some(_) => return Err(invalid()),
            None if base.is_ipv4() => 32,
            None => 128,
        };
        Self::new(base, prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
    Network {
        base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        prefix,
    }
}

const fn v6(bits: u128, prefix: u8) -> Network {
    Network {
        base: IpAddr::V6(Ipv6Addr::from_bits(bits)),
        prefix,
    }
}

/// Addresses that no instance can have: unspecified, multicast, reserved and broadcast.
const NEVER: [Network; 5] = [
    v4(0, 0, 0, 0, 8),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    v6(0, 128),
    v6(0xff00 << 112, 8),
];

/// Link-local addresses, and others at which clouds hand credentials to whoever asks from inside.
const SPECIAL: [Network; 5] = [
    v4(169, 254, 0, 0, 16),
    v4(100, 100, 100, 200, 32),
    v4(168, 63, 129, 16, 32),
    v6(0xfe80 << 112, 10),
    v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0254, 128),
];

/// The networks that probes may go to; all unicast addresses by default.
///
/// Unspecified, multicast, reserved and broadcast addresses are never among them. Link-local addresses and the
/// metadata services of clouds are only if a network is listed that lies within them: `0.0.0.0/0` does not
/// open `169.254.169.254`, and `169.254.0.0/16` does. An IPv4 address written as IPv6 (mapped, or translated by
/// RFC 6052) is judged as what it is.
///
/// ```
/// use orchestra_discovery::health::Networks;
///
/// let networks: Networks = "10.0.0.0/8, fd00::/8".parse()?;
/// assert!(networks.contain("10.0.0.7".parse()?) && networks.contain("::ffff:10.0.0.7".parse()?));
/// assert!(!networks.contain("127.0.0.1".parse()?));
/// assert!(!Networks::default().contain("::ffff:169.254.169.254".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Default for Networks {
    /// All of IPv4 and IPv6, with the exceptions above.
    fn default() -> Self {
        Self(vec![v4(0, 0, 0, 0, 0), v6(0, 0)])
    }
}

impl Networks {
    /// These alone; none admits nothing.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Whether a probe may go to this address.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = plain(address);
        let closest = |among: &[Network]| {
            let around = among.iter().filter(|network| network.contains(address));
            around.map(|network| network.prefix).max()
        };
        let Some(allowed) = closest(&self.0) else {
            return false;
        };
        closest(&NEVER).is_none() && closest(&SPECIAL).is_none_or(|special| allowed >= special)
    }
}

impl FromStr for Networks {
    type Err = Error;

    /// Networks with commas between them.
    fn from_str(text: &str) -> Result<Self> {
        let networks = text.split(',').map(|network| network.trim().parse());
        networks.collect::<Result<_>>().map(Self)
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does.
fn plain(address: IpAddr) -> IpAddr {
    const TRANSLATED: Network = v6(0x0064_ff9b << 96, 96);
    match address.to_canonical() {
        IpAddr::V6(v6) if TRANSLATED.contains(address) => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_default_has_all_but_what_no_instance_or_a_cloud_has() {
        let networks = Networks::default();
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "8.8.8.8",
            "::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(networks.contain(ip(inside)), "{inside}");
        }
        for outside in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
        ] {
            assert!(!networks.contain(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn the_closer_network_decides_and_some_are_never_opened() {
        let all: Networks = "0.0.0.0/0".parse().unwrap();
        assert!(!all.contain(ip("169.254.169.254")));
        let within: Networks = "169.254.0.0/16".parse().unwrap();
        assert!(within.contain(ip("169.254.169.254")) && !within.contain(ip("10.0.0.1")));
        let multicast: Networks = "224.0.0.1, 0.0.0.0".parse().unwrap();
        assert!(!multicast.contain(ip("224.0.0.1")) && !multicast.contain(ip("0.0.0.0")));
        assert!(!Networks::new([]).contain(ip("127.0.0.1")));
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/256",
            "10.0.0.1/8",
            "::1/64",
            "host/8",
            "10.0.0/8",
            "10.0.0.0/8/8",
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        }
        assert!("10.0.0.0/8,".parse::<Networks>().is_err());
    }

    proptest! {
        #[test]
        fn a_network_holds_what_shares_its_first_bits(base: u32, other: u32, prefix in 0..=32_u8) {
            let shift = 32 - u32::from(prefix);
            let cut = |bits: u32| u64::from(bits) >> shift;
            let low = u32::try_from(cut(base) << shift).unwrap();
            let network = Network::new(Ipv4Addr::from_bits(low).into(), prefix).unwrap();
            let expected = cut(base) == cut(other);
            prop_assert_eq!(network.contains(Ipv4Addr::from_bits(other).into()), expected);
            prop_assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
            let mapped = Ipv4Addr::from_bits(other).to_ipv6_mapped();
            prop_assert!(!network.contains(mapped.into()));
            let networks = Networks::new([network]);
            let plain = networks.contain(Ipv4Addr::from_bits(other).into());
            prop_assert_eq!(networks.contain(mapped.into()), plain);
        }
    }
}
