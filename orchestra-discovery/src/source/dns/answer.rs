//! From records to instances.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use orchestra_core::{Endpoint, InstanceId, ServiceName};

use super::ttl::Ttl;
use crate::instance::{Incarnation, Instance};
use crate::source::derived::derived_id;

/// By how much the weights of a priority are multiplied when they have to be divided.
const PARTS: u32 = 256;

/// Which records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Service(Srv),
}

/// What an SRV record says (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// Absolute; `.` says that the service is not available.
    pub(super) target: String,
}

/// What a server says to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) records: Vec<Record>,
    pub(super) ttl: Ttl,
}

/// An SRV record and the addresses of its target.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) srv: Srv,
    pub(super) addresses: Vec<IpAddr>,
}

/// One instance of weight one for each address, at the configured port.
pub(super) fn at_port(service: &ServiceName, addresses: &[IpAddr], port: u16) -> Vec<Instance> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    let sockets = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
    sockets
        .filter_map(|socket| instance(service, socket))
        .collect()
}

/// One instance for each address of each target.
///
/// The weight of a record is that of its target, so its addresses share it. A weight of zero beside others
/// is a very small share (RFC 2782), since a weight of zero would take the instance out: one part, where the
/// others have 256 for each of their weight. Where all are zero, all are one. A priority that neither mixes
/// zeros with others nor shares a weight has the weights of its records, any other has them times 256.
///
/// An address and port in several records has the least of their priorities and the sum of its weights
/// there. A target without addresses, or with port zero, is no instance.
pub(super) fn at_targets(service: &ServiceName, located: &[Located]) -> Vec<Instance> {
    let mut tiers: BTreeMap<u16, Vec<&Located>> = BTreeMap::new();
    for it in located {
        if it.srv.port != 0 && !it.addresses.is_empty() {
            tiers.entry(it.srv.priority).or_default().push(it);
        }
    }
    let instances = tiers.values().flat_map(|tier| {
        let scale = Scale::of(tier);
        let targets = tier.iter();
        targets.flat_map(move |it| of_target(service, it, scale.weight(it)))
    });
    distinct(instances)
}

/// How the weights of one priority become those of instances.
#[derive(Debug, Clone, Copy)]
struct Scale {
    all_zero: bool,
    parts: u32,
}

impl Scale {
    fn of(tier: &[&Located]) -> Self {
        let zeros = tier.iter().filter(|it| it.srv.weight == 0).count();
        let all_zero = zeros == tier.len();
        let mixed = zeros > 0 && !all_zero;
        let shared = tier.iter().any(|it| it.addresses.len() > 1);
        let parts = if mixed || shared { PARTS } else { 1 };
        Self { all_zero, parts }
    }

    /// The weight of each address.
    fn weight(self, located: &Located) -> u32 {
        let weight = match located.srv.weight {
            0 if self.all_zero => 1,
            weight => u32::from(weight),
        };
        let addresses = u32::try_from(located.addresses.len()).unwrap_or(u32::MAX);
        (weight * self.parts / addresses.max(1)).max(1)
    }
}

fn of_target(
    service: &ServiceName,
    located: &Located,
    weight: u32,
) -> impl Iterator<Item = Instance> {
    let (priority, port) = (u32::from(located.srv.priority), located.srv.port);
    located.addresses.iter().filter_map(move |ip| {
        let mut instance = instance(service, SocketAddr::new(*ip, port))?;
        instance.weight = weight;
        instance.priority = priority;
        Some(instance)
    })
}

/// Each id once; the tiers come from the least to the greatest.
fn distinct(instances: impl Iterator<Item = Instance>) -> Vec<Instance> {
    let mut by_id: BTreeMap<InstanceId, Instance> = BTreeMap::new();
    for instance in instances {
        match by_id.get_mut(&instance.id) {
            None => {
                by_id.insert(instance.id.clone(), instance);
            }
            Some(held) if held.priority == instance.priority => {
                held.weight = held.weight.saturating_add(instance.weight);
            }
            Some(_) => {}
        }
    }
    by_id.into_values().collect()
}

fn instance(service: &ServiceName, socket: SocketAddr) -> Option<Instance> {
    let endpoint = Endpoint::Tcp(socket);
    let id = derived_id(&endpoint)?;
    let incarnation = Incarnation::default();
    Some(Instance::new(service.clone(), id, incarnation, endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(priority: u16, weight: u16, addresses: &[&str]) -> Located {
        Located {
            srv: Srv {
                priority,
                weight,
                port: 80,
                target: "a.example.".to_owned(),
            },
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    /// Id, priority and weight of each.
    fn read(located: &[Located]) -> Vec<(String, u32, u32)> {
        let instances = at_targets(&"payments".parse().unwrap(), located);
        let read = |it: Instance| (it.id.to_string(), it.priority, it.weight);
        instances.into_iter().map(read).collect()
    }

    fn weights(located: &[Located]) -> Vec<u32> {
        read(located)
            .into_iter()
            .map(|(_, _, weight)| weight)
            .collect()
    }

    #[test]
    fn priority_weight_and_port_are_those_of_the_record() {
        let mut second = located(20, 65_535, &["fd00::2"]);
        second.srv.port = 443;
        assert_eq!(
            read(&[located(10, 60, &["10.0.0.1"]), second]),
            [
                ("10.0.0.1:80".to_owned(), 10, 60),
                ("fd00:0:0:0:0:0:0:2:443".to_owned(), 20, 65_535),
            ]
        );
    }

    #[test]
    fn zero_weights_alone_are_equal() {
        let both = [located(1, 0, &["10.0.0.1"]), located(1, 0, &["10.0.0.2"])];
        assert_eq!(weights(&both), [1, 1]);
    }

    #[test]
    fn zero_weight_beside_others_is_one_part_of_256() {
        let both = [located(1, 0, &["10.0.0.1"]), located(1, 1, &["10.0.0.2"])];
        assert_eq!(weights(&both), [1, 256]);
        // Another priority is another matter.
        let both = [located(1, 0, &["10.0.0.1"]), located(2, 7, &["10.0.0.2"])];
        assert_eq!(weights(&both), [1, 7]);
    }

    #[test]
    fn addresses_of_a_target_share_its_weight() {
        let both = [
            located(1, 3, &["10.0.0.1", "10.0.0.2"]),
            located(1, 3, &["10.0.0.3"]),
        ];
        assert_eq!(weights(&both), [384, 384, 768]);
        assert_eq!(
            weights(&[located(1, 0, &["10.0.0.1", "10.0.0.2"])]),
            [128, 128]
        );
    }

    #[test]
    fn address_in_two_records_is_one_instance() {
        let twice = [
            located(2, 50, &["10.0.0.1"]),
            located(1, 5, &["10.0.0.1"]),
            located(1, 6, &["10.0.0.1"]),
        ];
        assert_eq!(read(&twice), [("10.0.0.1:80".to_owned(), 1, 11)]);
    }

    #[test]
    fn target_without_port_or_address_is_none() {
        let mut no_port = located(1, 1, &["10.0.0.1"]);
        no_port.srv.port = 0;
        assert_eq!(read(&[no_port, located(1, 1, &[])]), []);
    }

    #[test]
    fn addresses_are_at_the_configured_port_and_distinct() {
        let ip = IpAddr::from([10, 0, 0, 1]);
        let instances = at_port(&"payments".parse().unwrap(), &[ip, ip], 8080);
        assert_eq!(instances.len(), 1);
        assert_eq!(instances[0].endpoint.to_string(), "10.0.0.1:8080");
    }
}
