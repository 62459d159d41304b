//! The stores against a reference: random sequences of calls by several workers, with repeated
//! calls, crashes, lost leases and jumps of the clock, each answer and everything kept compared with
//! what [`reference`] says.
//!
//! `PROPTEST_CASES` sets how many sequences are tried, and `PROPTEST_RNG_SEED` repeats a run by its
//! seed. A sequence that fails is shortened, printed, and kept in `main.proptest-regressions`, from
//! where it is tried first ever after.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the seed is shown when a test fails")]

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use proptest::test_runner::{
    Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner,
};
use tokio::runtime::Runtime;
use wasmhook_testing::RedisServer;

mod observation;
mod reference;
mod steps;
mod subject;
mod window;
mod world;

use subject::Subject;

/// Sequences per store unless `PROPTEST_CASES` says otherwise: some ten seconds.
const CASES: u32 = 64;

#[test]
fn the_embedded_store_keeps_its_promises() {
    explore(async || Subject::embedded());
}

#[test]
fn redis_keeps_its_promises() {
    let server = RedisServer::start().unwrap();
    explore(async || Subject::redis(&server, 4).await);
}

#[test]
fn redis_keeps_its_promises_on_one_shard() {
    let server = RedisServer::start().unwrap();
    explore(async || Subject::redis(&server, 1).await);
}

fn explore(make: impl AsyncFn() -> Subject) {
    let mut config = Config {
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        // Shortening a sequence takes as long as it may; most of it is waiting.
        max_shrink_time: 120_000,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().build_hasher().finish());
    }
    if let RngSeed::Fixed(seed) = config.rng_seed {
        println!("seed: PROPTEST_RNG_SEED={seed}");
    }
    let runtime = Runtime::new().unwrap();
    let explored = TestRunner::new(config).run(&steps::steps(), |steps| {
        runtime
            .block_on(async { world::run(make().await, &steps).await })
            .map_err(TestCaseError::fail)
    });
    match explored {
        Ok(()) => {}
        Err(TestError::Fail(broken, steps)) => {
            let steps: Vec<_> = steps.iter().map(|step| format!("{step:?}")).collect();
            panic!(
                "{broken}\nthe shortest sequence found:\n{}",
                steps.join("\n")
            );
        }
        Err(error) => panic!("{error}"),
    }
}
