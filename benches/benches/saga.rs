//! `cargo bench -p orchestra-benches --bench saga`

use criterion::{Criterion, criterion_group, criterion_main};
use orchestra_benches::saga::{executor, run};
use orchestra_benches::tasks::two_workers;

fn three_steps_in_memory(criterion: &mut Criterion) {
    let runtime = two_workers();
    let executor = runtime.block_on(executor()).expect("a valid definition");
    criterion.bench_function("saga/3_steps_memory", |bencher| {
        bencher.iter(|| {
            runtime
                .block_on(run(&executor))
                .expect("the store does not fail")
        });
    });
    runtime.block_on(executor.shutdown());
}

criterion_group!(benches, three_steps_in_memory);
criterion_main!(benches);
