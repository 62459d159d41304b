//! The contract is what the host serves: every version of it in `wit/`, as it was published.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use sha2::{Digest as _, Sha256};
use support::wasm::{contract, encoded, module_for, skipping_for};
use support::{World, guest, transform};
use wasmhook_runtime::{CONTRACT_VERSION, Exports, Grants, HostPattern, Verdict};
use wit_component::{StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::ManglingAndAbi;

/// A component that imports and exports all that a world has, of exactly the world's types. Whatever is
/// called in it traps.
fn whole(version: &str, world: &str) -> Vec<u8> {
    let (mut resolve, package) = contract(version);
    let all = resolve.push_str(
        "all.wit",
        &format!(
            "package test:all;
             world all {{
                 include wasmhook:plugin/plugin@{CONTRACT_VERSION};
                 include wasmhook:plugin/signer@{CONTRACT_VERSION};
                 include wasmhook:plugin/classifier@{CONTRACT_VERSION};
                 import wasmhook:plugin/key-value@{CONTRACT_VERSION};
                 import wasmhook:plugin/http-client@{CONTRACT_VERSION};
             }}"
        ),
    );
    let package = if world == "all" {
        all.unwrap()
    } else {
        package
    };
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    encoded(&module)
}

/// The names of the interfaces that a component of this world exports, once it serves.
async fn served(version: &str, name: &str) -> Exports {
    let world = World::with(|config| {
        config.allowed = Grants {
            key_value: true,
            http: vec![HostPattern::new("*").unwrap()],
        };
    });
    let manifest = "grants = { key_value = true, http = [\"api.example.com\"] }";
    world.put("acme", "10-whole.toml", manifest);
    world.put("acme", "10-whole.wasm", whole(version, name));
    world.load().await;
    let status = world.status("acme", "10-whole");
    assert_eq!(status.refused, None, "world {name} of {version}");
    assert!(status.digest.is_some());
    status.exports.unwrap()
}

#[tokio::test]
async fn a_component_of_each_world_is_served() {
    let none = Exports::default();
    for (name, exports) in [
        (
            "transformer",
            Exports {
                transform: true,
                ..none
            },
        ),
        (
            "resolver",
            Exports {
                resolve: true,
                ..none
            },
        ),
        (
            "classifier",
            Exports {
                classify: true,
                ..none
            },
        ),
        ("signer", Exports { sign: true, ..none }),
        (
            "plugin",
            Exports {
                transform: true,
                resolve: true,
                ..none
            },
        ),
        (
            "all",
            Exports {
                transform: true,
                resolve: true,
                classify: true,
                sign: true,
            },
        ),
    ] {
        assert_eq!(served(CONTRACT_VERSION, name).await, exports, "{name}");
    }
}

#[tokio::test]
async fn a_component_of_the_version_before_is_served_and_answers() {
    let exports = Exports {
        transform: true,
        resolve: true,
        ..Exports::default()
    };
    let (resolve, package) = contract("0.1.0");
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let world = World::new();
    world.put("acme", "10-whole.wasm", encoded(&module));
    let text = skipping_for("0.1.0", "", "");
    world.put(
        "other",
        "10-skip.wasm",
        encoded(&module_for("0.1.0", &text)),
    );
    world.load().await;
    let status = world.status("acme", "10-whole");
    assert_eq!((status.refused, status.exports), (None, Some(exports)));
    let call = transform(&world.transform("other"), "{}").await.unwrap();
    assert_eq!(call.value, Verdict::Skip("none".to_owned()));
    let report = world
        .host
        .check(&world.file("other", "10-skip.wasm"))
        .await
        .unwrap();
    assert_eq!((report.contract, report.refusal), ("0.1.0", None));
}

#[tokio::test]
async fn the_samples_are_built_with_the_newest_version() {
    for name in [
        "redact",
        "route",
        "tag-and-route",
        "judge",
        "once",
        "enrich",
        "sign-as",
    ] {
        let world = World::with(|config| config.allowed.key_value = true);
        world.put("acme", "10-sample.wasm", guest(name));
        let report = world
            .host
            .check(&world.file("acme", "10-sample.wasm"))
            .await
            .unwrap();
        assert_eq!(report.contract, CONTRACT_VERSION, "{name}");
    }
}

/// A published version never changes: plugins were built with it. What may be put into better words are
/// its comments.
#[test]
fn a_published_version_stays_as_it_is() {
    // One line for each version that was published.
    const PUBLISHED: &[(&str, &str)] = &[(
        "1.0.0",
        "f33319180dd4119d7cbc2f57ee9be20125d9e0c99ae1c1e9ff283f058474fd7f",
    )];
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    for (version, published) in PUBLISHED {
        let text = std::fs::read_to_string(format!("{wit}/{version}/plugin.wit")).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("//"))
            .collect();
        let digest = hex::encode(Sha256::digest(lines.join("\n")));
        assert_eq!(
            digest, *published,
            "wit/{version} was changed; make a new version instead"
        );
    }
}
