//! Whatever bytes lie in a plugin's file, the host judges them and goes on.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::wasm::{component, module, skipping};
use support::{World, guest, transform};
use wasmhook_runtime::{Limits, ServingState};

/// Rounds for each file to begin with: each may start a compiler.
const ROUNDS: u32 = 40;

/// A change to a file.
#[derive(Debug, Clone)]
enum Change {
    Flip {
        at: usize,
        bits: u8,
    },
    Cut {
        at: usize,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    Copy {
        from: usize,
        to: usize,
        length: usize,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 24));
    prop_oneof![
        6 => (place.clone(), 1_u8..).prop_map(|(at, bits)| Change::Flip { at, bits }),
        1 => place.clone().prop_map(|at| Change::Cut { at }),
        2 => (place.clone(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        2 => (place.clone(), place, 1_usize..256)
            .prop_map(|(from, to, length)| Change::Copy { from, to, length }),
    ]
}

fn changed(whole: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for change in changes {
        let length = bytes.len().max(1);
        match change {
            Change::Flip { at, bits } => {
                if let Some(byte) = bytes.get_mut(at % length) {
                    *byte ^= bits;
                }
            }
            Change::Cut { at } => bytes.truncate(at % length),
            Change::Insert { at, bytes: new } => {
                let at = at % length;
                bytes.splice(
                    at.min(bytes.len())..at.min(bytes.len()),
                    new.iter().copied(),
                );
            }
            Change::Copy {
                from,
                to,
                length: size,
            } => {
                let from = (from % length).min(bytes.len());
                let piece = bytes[from..(from + size).min(bytes.len())].to_vec();
                let to = (to % length).min(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

#[test]
fn mutated_and_truncated_files_are_judged_and_the_last_good_version_serves() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = World::with(|config| {
        config.limits = Limits {
            cpu_time_ms: 200,
            ..Limits::default()
        };
    });
    world.put("neighbour", "10-redact.wasm", guest("redact"));
    runtime.block_on(world.load());
    let neighbour = world.transform("neighbour");
    let skips = skipping("");
    for whole in [component(&skips), module(&skips), guest("redact")] {
        let mut runner = TestRunner::new(Config {
            cases: ROUNDS,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Config::default()
        });
        runner
            .run(&vec(change(), 1..8), |changes| {
                world.put("acme", "10-mutant.wasm", changed(&whole, &changes));
                runtime.block_on(async {
                    world.load().await;
                    let status = world.status("acme", "10-mutant");
                    if status.state == ServingState::Refused {
                        assert!(status.refused.is_some());
                    }
                    // What still serves answers or fails; it does not hang, and it harms no one.
                    for plugin in &world.tenant("acme").transforms {
                        let _ = transform(plugin, "{}").await;
                    }
                    assert!(transform(&neighbour, "{}").await.is_ok());
                });
                prop_assert!(Arc::ptr_eq(&neighbour, &world.transform("neighbour")));
                Ok(())
            })
            .unwrap();
        world.remove("acme", "10-mutant.wasm");
        runtime.block_on(world.load());
    }
}
