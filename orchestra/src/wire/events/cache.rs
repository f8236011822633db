use orchestra_discovery::Event;
use orchestra_discovery::cache::Freshness;
use orchestra_discovery::preserve::End;
use orchestra_observe::{Counter, Error, Family, Registry};

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    lookups: Family<Counter, 2>,
    stale: Family<Counter, 2>,
    failures: Family<Counter, 2>,
    unconfirmed: Family<Counter, 2>,
    negative: Family<Counter, 1>,
    preservations: Family<Counter, 2>,
    file: Family<Counter, 1>,
}

impl Metrics {
    pub(super) fn register(metrics: &Registry) -> Result<Self, Error> {
        Ok(Self {
            lookups: metrics.counters(
                "orchestra_cache_lookups_total",
                "Times that the cache was asked for a service, by how good its answer was.",
                ["service", "result"],
            )?,
            stale: metrics.counters(
                "orchestra_cache_stale_total",
                "Times that what the cache serves came to be less than fresh.",
                ["service", "freshness"],
            )?,
            failures: metrics.counters(
                "orchestra_cache_source_failures_total",
                "Times that a source of the cache did not answer.",
                ["service", "source"],
            )?,
            unconfirmed: metrics.counters(
                "orchestra_cache_unconfirmed_total",
                "Empty answers that were not believed at once.",
                ["service", "source"],
            )?,
            negative: metrics.counters(
                "orchestra_cache_negative_total",
                "Times that the cache learned that a service has no instances.",
                ["service"],
            )?,
            preservations: metrics.counters(
                "orchestra_cache_preservations_total",
                "Times that many leases lapsed together and were held, and how that ended.",
                ["source", "event"],
            )?,
            file: metrics.counters(
                "orchestra_cache_file_total",
                "What became of the file of the cache.",
                ["event"],
            )?,
        })
    }

    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::CacheHit { service, freshness } => {
                let labels = [service.as_str(), word(*freshness)];
                self.lookups.with(labels).inc();
            }
            Event::CacheMiss { service } => self.lookups.with([service.as_str(), "miss"]).inc(),
            Event::StaleServed {
                service, freshness, ..
            } => {
                let labels = [service.as_str(), word(*freshness)];
                self.stale.with(labels).inc();
            }
            Event::UpstreamFailed {
                service, source, ..
            } => self.failures.with([service.as_str(), source]).inc(),
            Event::EmptyUnconfirmed { service, source } => {
                self.unconfirmed.with([service.as_str(), source]).inc();
            }
            Event::NegativeCached { service, .. } => self.negative.with([service.as_str()]).inc(),
            Event::PreservationEntered { source, .. } => {
                self.preservations.with([source, "entered"]).inc();
            }
            Event::PreservationLeft { source, end, .. } => {
                let end = match end {
                    End::Recovered => "recovered",
                    End::Confirmed => "confirmed",
                    _ => "timed_out",
                };
                self.preservations.with([source, end]).inc();
            }
            Event::DiskLoaded { .. } => self.file.with(["loaded"]).inc(),
            Event::DiskIgnored { .. } => self.file.with(["ignored"]).inc(),
            Event::DiskFailed { .. } => self.file.with(["failed"]).inc(),
            _ => {}
        }
    }
}

fn word(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh => "fresh",
        Freshness::StaleWhileRevalidate => "stale_while_revalidate",
        Freshness::StaleIfError => "stale_if_error",
        Freshness::LastGood => "last_good",
        _ => "expired",
    }
}
