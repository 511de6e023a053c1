//! Durable writes a second of the embedded store by itself, with 1, 16 and 64 writers of 1 KiB.

#![allow(clippy::unwrap_used, reason = "this is a benchmark")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use claw_apiserver::store::{self, Change, Draft, Expect, Key, Store, Write};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::{runtime::Runtime, task::JoinSet};

fn draft() -> Draft {
    let head = r#"{"metadata":{"resourceVersion":""#;
    let bytes = format!(r#"{head}"}},"data":"{}"}}"#, "x".repeat(1024)).into_bytes();
    Draft { bytes, revision_at: head.len() }
}

/// Creates `count` records, spread over writers that each wait for their own.
async fn create(store: Arc<dyn Store>, next: Arc<AtomicU64>, writers: u64, count: u64) -> Duration {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (store, next) = (store.clone(), next.clone());
        let mine = count / writers + u64::from(writer < count % writers);
        tasks.spawn(async move {
            for _ in 0..mine {
                let name = next.fetch_add(1, Ordering::Relaxed).to_string();
                let key = Key::object("", "configmaps", "default", &name);
                let write = Write { key, expect: Expect::Absent, change: Change::Put(draft()) };
                store.commit(vec![write]).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    started.elapsed()
}

fn durable_creates(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("durable creates of 1 KiB");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(4));
    for writers in [1, 16, 64] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = store::open_sled(folder.path()).unwrap();
        let next = Arc::new(AtomicU64::new(0));
        group.bench_function(format!("{writers} writers"), |bencher| {
            bencher
                .iter_custom(|count| runtime.block_on(create(store.clone(), next.clone(), writers, count)));
        });
        runtime.block_on(store.close());
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let store = store::memory();
    let next = Arc::new(AtomicU64::new(0));
    runtime.block_on(create(store.clone(), next, 1, 60_000));
    let prefix = Key::collection("", "configmaps", Some("default"));
    let mut group = criterion.benchmark_group("reads among 60,000");
    group.bench_function("get", |bencher| {
        let key = Key::object("", "configmaps", "default", "30000");
        bencher.iter(|| runtime.block_on(store.get(&key)).unwrap().unwrap());
    });
    group.bench_function("page of 500", |bencher| {
        bencher.iter(|| runtime.block_on(store.list(&prefix, None, 500, None)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, durable_creates, reads);
criterion_main!(benches);
