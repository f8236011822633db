//! The configuration objects of the design.

use std::time::Duration;

use orchestra::design::SagaConfig;
use orchestra::saga::{Call, Config, Definition, Start, Status};
use orchestra::{ErrorKind, Orchestra};

fn read(text: &str) -> orchestra::Result<Config> {
    serde_json::from_str::<SagaConfig>(text).unwrap().read()
}

#[test]
fn every_knob_of_a_saga_is_mapped_and_zero_is_a_value() {
    assert_eq!(read("{}").unwrap(), Config::default());
    let text = r#"{
        "execution": { "timeout": 0, "stepTimeout": 250, "maxRetries": 0, "retryBackoff": "fixed" },
        "compensation": {
            "enabled": true, "compensationTimeout": 0, "parallelCompensation": false,
            "compensationRetries": 7 },
        "persistence": { "enabled": false, "snapshotInterval": 0, "eventSourcing": true }
    }"#;
    let config = read(text).unwrap();
    assert_eq!(config.execution.timeout, Some(Duration::ZERO));
    assert_eq!(config.execution.step_timeout, Duration::from_millis(250));
    assert_eq!(config.execution.retry.max_retries(), 0);
    assert!(config.compensation.is_enabled && !config.compensation.is_parallel);
    assert_eq!(config.compensation.timeout, Duration::ZERO);
    assert_eq!(config.compensation.retry.max_retries(), 7);
    assert!(!config.persistence.is_enabled);
    assert_eq!(config.persistence.snapshot_every, 0);
}

#[test]
fn delays_grow_as_the_design_names_it() {
    // The delays of the first three retries in tenths of a second, without jitter at the greatest draw.
    for (growth, expected) in [
        ("exponential", [1, 2, 4]),
        ("linear", [1, 2, 3]),
        ("fixed", [1, 1, 1]),
    ] {
        let text = format!(r#"{{ "execution": {{ "retryBackoff": "{growth}" }} }}"#);
        let retry = read(&text).unwrap().execution.retry;
        let delay = |tries| retry.next(tries, Duration::ZERO, None, u64::MAX).unwrap();
        let delays = [1, 2, 3].map(|tries| (delay(tries).as_millis() + 50) / 100);
        assert_eq!(delays, expected, "{growth}");
    }
    let text = r#"{ "execution": { "retryBackoff": "quadratic" } }"#;
    assert!(serde_json::from_str::<SagaConfig>(text).is_err());
}

#[test]
fn what_cannot_be_honoured_is_an_error_that_names_it() {
    let error = read(r#"{ "persistence": { "eventSourcing": false } }"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("persistence.eventSourcing"));
    let text = r#"{ "execution": { "stepTimeOut": 1 } }"#;
    let error = serde_json::from_str::<SagaConfig>(text).unwrap_err();
    assert!(error.to_string().contains("stepTimeOut"));
}

#[tokio::test(start_paused = true)]
async fn without_persistence_no_store_is_needed() {
    let mut d = Definition::builder("ping", "1");
    d.step("ask", (), |_: Call, (): ()| async { Ok(7) })
        .read_only();
    let config = read(r#"{ "persistence": { "enabled": false } }"#).unwrap();
    let builder = Orchestra::builder().definition(d.build().unwrap());
    let orchestra = builder.saga_config(config).build().await.unwrap();
    let sagas = orchestra.sagas().expect("there are sagas");
    let view = sagas.run(Start::of("ping")).await.unwrap();
    assert_eq!(view.status, Status::Completed);
    orchestra.shutdown(Duration::from_secs(1)).await.unwrap();
}
