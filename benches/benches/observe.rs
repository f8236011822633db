//! `cargo bench -p orchestra-benches --bench observe`

use criterion::{Criterion, criterion_group, criterion_main};
use orchestra_benches::observe::Metrics;

fn record(criterion: &mut Criterion) {
    let metrics = Metrics::new().expect("valid metrics");
    let mut group = criterion.benchmark_group("observe");
    group.bench_function("counter", |bencher| bencher.iter(|| metrics.count()));
    group.bench_function("family", |bencher| {
        bencher.iter(|| metrics.count_labelled())
    });
    let mut value = 0.001;
    group.bench_function("histogram", |bencher| {
        bencher.iter(|| metrics.observe(&mut value));
    });
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);
