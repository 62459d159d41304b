//! A new version is compiled with what is known of the functions of the one before, and of no other plugin's.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::{World, body, guest, variant};
use wasmhook_runtime::{
    Compiler, Digest, PluginHost, PluginHostConfig, ServingState, VersionArchive,
};

const PLUGIN: &str = "10-redact";
const FILE: &str = "10-redact.wasm";

/// A component of which all versions have the same length.
fn version(number: u8) -> Vec<u8> {
    variant(guest("redact"), number)
}

/// Notes how much each compiler is given, and then does what `unless` says or compiles.
fn noting(folder: &Path, unless: &str) -> Compiler {
    let compiler = env!("CARGO_BIN_EXE_wasmhook-compile");
    let folder = folder.display();
    Compiler::Child {
        program: "/bin/sh".into(),
        arguments: vec![
            "-c".into(),
            format!(
                "cat > {folder}/given.$$; given=$(wc -c < {folder}/given.$$); echo $given >> {folder}/notes; \
                 {unless}; exec {compiler} \"$1\" < {folder}/given.$$"
            )
            .into(),
            "sh".into(),
        ],
        environment: Vec::new(),
    }
}

fn setting(config: &mut PluginHostConfig, unless: &str) {
    let folder = config.tenants_dir.parent().unwrap();
    config.cache_dir = Some(folder.join("cache"));
    config.versions_dir = Some(folder.join("versions"));
    config.compiler = noting(folder, unless);
}

/// Another host with the same folders.
fn restarted(world: World) -> World {
    let World { folder, host } = world;
    drop(host);
    let mut config = support::config(folder.path());
    setting(&mut config, ":");
    let host = Arc::new(PluginHost::new(config).unwrap());
    World { folder, host }
}

fn noted(world: &World) -> Vec<usize> {
    let notes = fs::read_to_string(world.folder.path().join("notes")).unwrap_or_default();
    notes.lines().map(|line| line.parse().unwrap()).collect()
}

/// The files in the cache with this end whose names begin so.
fn cached(world: &World, begin: &str, end: &str) -> Vec<PathBuf> {
    fs::read_dir(world.folder.path().join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == end)
                && path
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(begin)
        })
        .collect()
}

fn code_of(world: &World, component: &[u8]) -> Vec<u8> {
    let files = cached(world, &Digest::of(component).to_string(), "compiled");
    assert_eq!(files.len(), 1, "{files:?}");
    fs::read(&files[0]).unwrap()
}

async fn assert_serves(world: &World, tenant: &str, component: &[u8]) {
    let status = world.status(tenant, PLUGIN);
    assert_eq!(status.state, ServingState::Serving, "{:?}", status.refused);
    assert_eq!(status.digest, Some(Digest::of(component)));
    let plugin = world.transform(tenant);
    assert_eq!(body(&plugin, "{}").await, r#"{"schema_version":"1"}"#);
}

#[tokio::test]
async fn the_code_of_a_new_version_is_what_it_is_without_the_one_before() {
    let (first, second) = (version(1), version(2));
    let world = World::with(|config| setting(config, ":"));
    world.put("acme", FILE, &first);
    world.load().await;
    world.put("acme", FILE, &second);
    world.load().await;
    let given = noted(&world);
    assert_eq!(given[0], first.len());
    assert!(given[1] > second.len(), "nothing was known: {given:?}");
    assert_serves(&world, "acme", &second).await;

    let apart = World::with(|config| setting(config, ":"));
    apart.put("acme", FILE, &second);
    apart.load().await;
    assert!(code_of(&world, &second) == code_of(&apart, &second));
}

#[tokio::test]
async fn what_is_known_of_a_plugin_serves_that_plugin_alone() {
    let size = version(0).len();
    let world = World::with(|config| setting(config, ":"));
    world.put("acme", FILE, version(1));
    world.load().await;
    // Neither another tenant's nor another plugin of the same tenant gets it.
    world.put("globex", FILE, version(2));
    world.put("acme", "20-redact.wasm", version(3));
    world.load().await;
    assert_eq!(noted(&world), [size; 3]);

    // Code that was made with it is not for others, who get their own: one for all of them.
    let popular = version(4);
    world.put("acme", FILE, &popular);
    world.load().await;
    assert!(noted(&world)[3] > size);
    for tenant in ["globex", "initech", "umbrella"] {
        world.put(tenant, FILE, &popular);
        world.load().await;
    }
    assert_eq!(noted(&world)[4..], [size]);
    assert_eq!(
        cached(&world, &Digest::of(&popular).to_string(), "compiled").len(),
        2
    );

    // Nor is it lost to a start.
    let world = restarted(world);
    world.load().await;
    assert_eq!(noted(&world).len(), 5);
    for tenant in ["acme", "globex", "initech", "umbrella"] {
        assert_serves(&world, tenant, &popular).await;
    }
}

#[tokio::test]
async fn a_compiler_that_fails_with_what_is_known_is_asked_again_without() {
    let (first, second) = (version(1), version(2));
    let size = first.len();
    let unless =
        format!("test $given -eq {size} || {{ echo '{{\"Invalid\":\"at 7\"}}' >&2; exit 1; }}");
    let world = World::with(|config| setting(config, &unless));
    world.put("acme", FILE, &first);
    world.load().await;
    world.put("acme", FILE, &second);
    world.load().await;
    assert_serves(&world, "acme", &second).await;
    let given = noted(&world);
    assert!(given[1] > size);
    assert_eq!([given[0], given[2]], [size; 2]);
    assert!(
        cached(&world, "", "refused").is_empty(),
        "others with this component would be refused"
    );
}

#[tokio::test]
async fn what_is_not_as_it_was_written_is_not_known() {
    let world = World::with(|config| setting(config, ":"));
    world.put("acme", FILE, version(1));
    world.load().await;
    let kept = cached(&world, "", "functions");
    let mut damaged = fs::read(&kept[0]).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::remove_file(&kept[0]).unwrap();
    fs::write(&kept[0], damaged).unwrap();
    world.put("acme", FILE, version(2));
    world.load().await;
    assert_eq!(noted(&world), [version(1).len(); 2]);
    assert_serves(&world, "acme", &version(2)).await;
    // It was kept anew.
    world.put("acme", FILE, version(3));
    world.load().await;
    assert!(noted(&world)[2] > version(3).len());
}

#[tokio::test]
async fn what_is_known_outlasts_a_start_and_not_the_tenant() {
    let size = version(0).len();
    let world = World::with(|config| setting(config, ":"));
    for tenant in ["acme", "globex"] {
        world.put(tenant, FILE, version(1));
        world.load().await;
        world.put(tenant, FILE, version(2));
        world.load().await;
    }
    let before = noted(&world).len();
    let archive = VersionArchive::look(&world.folder.path().join("versions"));
    let world = restarted(world);
    archive.forget("globex").unwrap();
    world.put("globex", FILE, version(3));
    world.load().await;
    assert_eq!(
        noted(&world)[before..],
        [size],
        "a tenant of the same name may be another"
    );
    world.put("acme", FILE, version(4));
    world.load().await;
    assert!(noted(&world)[before + 1] > size);
}
