//! The configuration objects of the design, with the names and units that they have there.

#[cfg(feature = "saga")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "saga", feature = "serde"))))]
pub use saga::SagaConfig;

#[cfg(feature = "saga")]
mod saga {
    use std::time::Duration;

    use orchestra_core::Backoff;
    use orchestra_saga::{Config, Retry};
    use serde::Deserialize;

    use crate::error::{Error, ErrorKind, Result};

    /// `SagaConfig`: milliseconds and counts. What is absent is as in [`Config::default`], whose values are
    /// those of the design; zero is a value; a name that is not known is an error of reading.
    ///
    /// ```
    /// use orchestra::design::SagaConfig;
    /// use orchestra::saga::Config;
    ///
    /// let text = r#"{
    ///     "execution": {
    ///         "timeout": 300000, "stepTimeout": 30000, "maxRetries": 3, "retryBackoff": "exponential" },
    ///     "compensation": {
    ///         "enabled": true, "compensationTimeout": 60000, "parallelCompensation": true,
    ///         "compensationRetries": 2 },
    ///     "persistence": { "enabled": true, "snapshotInterval": 5, "eventSourcing": true }
    /// }"#;
    /// let design: SagaConfig = serde_json::from_str(text)?;
    /// assert_eq!(design.read()?, Config::default());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct SagaConfig {
        execution: Execution,
        compensation: Compensation,
        persistence: Persistence,
    }

    #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Execution {
        timeout: Option<u64>,
        step_timeout: Option<u64>,
        max_retries: Option<u32>,
        retry_backoff: Option<Growth>,
    }

    #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Compensation {
        enabled: Option<bool>,
        #[serde(rename = "compensationTimeout")]
        timeout: Option<u64>,
        #[serde(rename = "parallelCompensation")]
        parallel: Option<bool>,
        #[serde(rename = "compensationRetries")]
        retries: Option<u32>,
    }

    #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Persistence {
        enabled: Option<bool>,
        snapshot_interval: Option<u32>,
        event_sourcing: Option<bool>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Growth {
        Exponential,
        Linear,
        Fixed,
        Decorrelated,
    }

    impl Growth {
        fn retry(self, retry: Retry) -> Retry {
            const FIRST: Duration = Duration::from_millis(100);
            let backoff = match self {
                // As it is unless told otherwise.
                Self::Exponential => return retry,
                Self::Linear => Backoff::linear(FIRST),
                Self::Fixed => Backoff::fixed(FIRST),
                Self::Decorrelated => Backoff::decorrelated(FIRST),
            };
            Retry::new(retry.max_retries(), backoff)
        }
    }

    impl SagaConfig {
        /// The knobs of `orchestra-saga`.
        ///
        /// Fails for `eventSourcing: false`: what a saga knows is the sum of its events, and there is nothing
        /// else to keep. [`retention`](orchestra_saga::executor::Builder::retention) bounds how long they
        /// are kept.
        pub fn read(&self) -> Result<Config> {
            let mut config = Config::default();
            let ms = Duration::from_millis;
            let (to, from) = (&mut config.execution, &self.execution);
            to.timeout = from.timeout.map(ms).or(to.timeout);
            to.step_timeout = from.step_timeout.map_or(to.step_timeout, ms);
            if let Some(retries) = from.max_retries {
                to.retry = to.retry.with_retries(retries);
            }
            if let Some(growth) = from.retry_backoff {
                to.retry = growth.retry(to.retry);
            }
            let (to, from) = (&mut config.compensation, &self.compensation);
            to.is_enabled = from.enabled.unwrap_or(to.is_enabled);
            to.timeout = from.timeout.map_or(to.timeout, ms);
            to.is_parallel = from.parallel.unwrap_or(to.is_parallel);
            if let Some(retries) = from.retries {
                to.retry = to.retry.with_retries(retries);
            }
            let (to, from) = (&mut config.persistence, &self.persistence);
            to.is_enabled = from.enabled.unwrap_or(to.is_enabled);
            to.snapshot_every = from.snapshot_interval.unwrap_or(to.snapshot_every);
            if from.event_sourcing == Some(false) {
                let message =
                    "persistence.eventSourcing cannot be false: a saga is the sum of its events";
                return Err(Error::new(ErrorKind::Config, message));
            }
            Ok(config)
        }
    }
}
