//! `cargo bench -p orchestra-benches --bench discovery`

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use orchestra_benches::discovery::{Caller, resolver};

fn pick_and_settle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discovery/p2c_pick_settle");
    for instances in [10, 1_000, 10_000, 100_000] {
        let mut caller = Caller::new(&resolver(instances));
        let id = BenchmarkId::from_parameter(instances);
        group.bench_function(id, |bencher| bencher.iter(|| caller.call()));
    }
    group.finish();
}

criterion_group!(benches, pick_and_settle);
criterion_main!(benches);
