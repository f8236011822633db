use orchestra_discovery::outlier::Change;
use orchestra_discovery::{Event, Health, RemovalReason};
use orchestra_observe::{Counter, Error, Family, Gauge, Registry};

use super::{Listener, Telemetry, cache};

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    registrations: Family<Counter, 1>,
    removals: Family<Counter, 2>,
    members: Family<Gauge, 1>,
    failures: Family<Counter, 1>,
    picks: Family<Counter, 2>,
    bypasses: Family<Counter, 1>,
    outliers: Family<Counter, 2>,
    panic: Family<Gauge, 1>,
    health: Family<Counter, 2>,
    flaps: Family<Counter, 1>,
    forbidden: Family<Counter, 1>,
    cache: cache::Metrics,
}

impl Metrics {
    pub(super) fn register(metrics: &Registry) -> Result<Self, Error> {
        Ok(Self {
            registrations: metrics.counters(
                "orchestra_registry_registrations_total",
                "Instances that were registered.",
                ["service"],
            )?,
            removals: metrics.counters(
                "orchestra_registry_removals_total",
                "Instances that went, by reason.",
                ["service", "reason"],
            )?,
            members: metrics.gauges(
                "orchestra_discovery_members",
                "Instances that a resolver knows.",
                ["service"],
            )?,
            failures: metrics.counters(
                "orchestra_discovery_source_failures_total",
                "Times that a source did not answer.",
                ["service"],
            )?,
            picks: metrics.counters(
                "orchestra_discovery_picks_total",
                "Picks by what they found, if the resolver tells of picks.",
                ["service", "result"],
            )?,
            bypasses: metrics.counters(
                "orchestra_discovery_gate_bypasses_total",
                "Calls that went past a gate since every gate refused.",
                ["service"],
            )?,
            outliers: metrics.counters(
                "orchestra_discovery_outliers_total",
                "What was decided about outliers.",
                ["service", "change"],
            )?,
            panic: metrics.gauges(
                "orchestra_discovery_panic",
                "1 while too few instances are fit, so that calls go to the others too.",
                ["service"],
            )?,
            health: metrics.counters(
                "orchestra_discovery_health_changes_total",
                "Instances whose health checks came to a new verdict.",
                ["service", "health"],
            )?,
            flaps: metrics.counters(
                "orchestra_discovery_flaps_total",
                "Instances that were held back since they kept coming and going.",
                ["service"],
            )?,
            forbidden: metrics.counters(
                "orchestra_discovery_probes_forbidden_total",
                "Probes that would have led where none may go.",
                ["service"],
            )?,
            cache: cache::Metrics::register(metrics)?,
        })
    }

    /// What a registry did.
    fn registry(&self, event: &Event) {
        match event {
            Event::Registered(instance) => {
                self.registrations.with([instance.service.as_str()]).inc();
            }
            Event::Removed(removal) => {
                let reason = match removal.reason {
                    RemovalReason::Deregistered => "deregistered",
                    RemovalReason::Expired => "expired",
                    _ => "replaced",
                };
                self.removals.with([removal.service.as_str(), reason]).inc();
            }
            _ => {}
        }
    }

    /// What a resolver, and who feeds it, did.
    fn resolver(&self, event: &Event) {
        match event {
            Event::MembersChanged {
                service, members, ..
            } => self.members.with([service.as_str()]).set(*members as f64),
            Event::SourceFailed { service, .. } => self.failures.with([service.as_str()]).inc(),
            Event::Picked { service, trial, .. } => {
                let result = if *trial { "trial" } else { "picked" };
                self.picks.with([service.as_str(), result]).inc();
            }
            Event::NotPicked(none) => self.picks.with([none.service.as_str(), "none"]).inc(),
            Event::GateBypassed { service, .. } => self.bypasses.with([service.as_str()]).inc(),
            Event::Outlier {
                service, change, ..
            } => {
                let change = match change {
                    Change::Ejected { .. } => "ejected",
                    Change::Restored => "restored",
                    _ => "withheld",
                };
                self.outliers.with([service.as_str(), change]).inc();
            }
            Event::Panic { service, entered } => {
                let panic = self.panic.with([service.as_str()]);
                panic.set(f64::from(u8::from(*entered)));
            }
            _ => {}
        }
    }

    /// What health checks found.
    fn checks(&self, event: &Event) {
        match event {
            Event::HealthChanged {
                service, health, ..
            } => {
                let health = match health {
                    Health::Healthy => "healthy",
                    Health::Degraded => "degraded",
                    Health::Unhealthy => "unhealthy",
                    _ => "unchecked",
                };
                self.health.with([service.as_str(), health]).inc();
            }
            Event::FlapSuppressed { service, .. } => self.flaps.with([service.as_str()]).inc(),
            Event::ProbeForbidden { service, .. } => {
                self.forbidden.with([service.as_str()]).inc();
            }
            _ => {}
        }
    }
}

impl Listener<Event> for Telemetry {
    fn on_event(&self, event: &Event) {
        let metrics = &self.discovery;
        metrics.registry(event);
        metrics.resolver(event);
        metrics.checks(event);
        metrics.cache.count(event);
    }
}
