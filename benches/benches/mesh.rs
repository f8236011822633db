//! `cargo bench -p orchestra-benches --bench mesh`

use criterion::{Criterion, criterion_group, criterion_main};
use orchestra_benches::mesh::{breaker, call};

fn acquire_and_release(criterion: &mut Criterion) {
    let breaker = breaker();
    criterion.bench_function("mesh/breaker_acquire_release", |bencher| {
        bencher.iter(|| call(&breaker));
    });
}

criterion_group!(benches, acquire_and_release);
criterion_main!(benches);
