//! What is loaded from a folder, what is refused and with which words, and what replaces what.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use support::{World, body, guest, transform, variant};
use wasmhook_runtime::{
    Digest, Exports, FailurePolicy, LoadError, PluginHost, PluginHostConfig, RuntimeError,
    ServingState,
};

/// A component with the wanted export, or import, and nothing behind it.
fn component(wat: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {wat})")).unwrap()
}

fn exporting(interface: &str) -> Vec<u8> {
    component(&format!(
        r#"(core module $m (func (export "f")))
           (core instance $i (instantiate $m))
           (func $f (canon lift (core func $i "f")))
           (instance $e (export "transform" (func $f)))
           (export "{interface}" (instance $e))"#
    ))
}

fn importing(interface: &str) -> Vec<u8> {
    component(&format!(
        r#"(import "{interface}" (instance))
           (instance $e)
           (export "wasmhook:plugin/transform@1.0.0" (instance $e))"#
    ))
}

async fn refusal(bytes: impl AsRef<[u8]>) -> String {
    let world = World::with(|config| config.loading.component_bytes = 1 << 20);
    world.put("acme", "10-plugin.wasm", bytes);
    world.load().await;
    let status = world.status("acme", "10-plugin");
    assert_eq!((status.state, status.digest), (ServingState::Refused, None));
    let unready = &world.tenant("acme").unready;
    assert_eq!(
        unready.len(),
        1,
        "what cannot serve is not passed by in silence"
    );
    assert_eq!(Some(&unready[0].reason), status.refused.as_ref());
    unready[0].reason.clone()
}

#[tokio::test]
async fn each_refusal_has_its_own_sentence() {
    let whole = guest("hostile");
    assert_eq!(
        refusal(b"hello, world").await,
        "the file is not WebAssembly"
    );
    assert_eq!(
        refusal(b"").await,
        "the file is incomplete: it ends in the middle, after 0 bytes"
    );
    assert_eq!(
        refusal(&whole[..5_000]).await,
        "the file is incomplete: it ends in the middle, after 5000 bytes"
    );
    assert_eq!(
        refusal(wat::parse_str("(module)").unwrap()).await,
        "the file is a core module without a component's type; build it for wasm32-wasip2, or with bindings generated from the contract"
    );
    assert_eq!(
        refusal(vec![0; (1 << 20) + 1]).await,
        "the file is too large: more than 1048576 bytes"
    );
    assert_eq!(
        refusal(component("")).await,
        "the component exports none of transform, resolve, sign and classify of wasmhook:plugin@1.0.0"
    );
    assert_eq!(
        refusal(exporting("wasmhook:plugin/transform@0.2.0")).await,
        "the component exports wasmhook:plugin/transform@0.2.0, this host serves 1.0.0"
    );
    assert_eq!(
        refusal(exporting("wasmhook:plugin/transform@1.0.0")).await,
        "the component's wasmhook:plugin/transform@1.0.0 does not have the functions and types of the contract"
    );
    assert_eq!(
        refusal(importing("wasi:http/outgoing-handler@0.2.0")).await,
        "the component imports wasi:http/outgoing-handler@0.2.0, which plugins are not granted"
    );
    assert_eq!(
        refusal(importing("wasmhook:plugin/config@0.3.0")).await,
        "the component imports wasmhook:plugin/config@0.3.0, this host serves 1.0.0"
    );
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let sentence = refusal(damaged).await;
    assert!(
        sentence.starts_with("the file is not a valid component: "),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_newer_version_takes_over_and_calls_in_flight_keep_the_old_one() {
    let world = World::new();
    world.put(
        "acme",
        "10-plugin.toml",
        "[config]\nbehaviour = \"echo\"\nfields = \"a\"\n",
    );
    world.put("acme", "10-plugin.wasm", guest("hostile"));
    world.load().await;
    let old = world.transform("acme");
    let payload = support::event("{\"a\":1}");
    let in_flight = old.transform(&payload, &support::ENDPOINT);
    world.put("acme", "10-plugin.wasm", guest("redact"));
    world.load().await;
    let new = world.transform("acme");
    assert_eq!(
        body(&new, "{\"a\":1}").await,
        r#"{"a":"[redacted]","schema_version":"1"}"#
    );
    let finished = in_flight.await.unwrap();
    assert_eq!(finished.digest, old.digest());
    assert_ne!(old.digest(), new.digest());
    assert_eq!(support::request(finished.value).body, "{\"a\":1}");
}

#[tokio::test]
async fn a_bad_file_leaves_the_last_good_version_and_is_judged_once() {
    let world = World::new();
    world.put_hostile("acme", "echo", "");
    world.load().await;
    let good = world.transform("acme");
    for (bytes, reason) in [
        (&b"not wasm"[..], "the file is not WebAssembly"),
        (
            &guest("redact")[..900],
            "the file is incomplete: it ends in the middle, after 900 bytes",
        ),
    ] {
        world.put("acme", "10-hostile.wasm", bytes);
        assert_eq!(world.host.rescan().await.refused, 1);
        assert!(Arc::ptr_eq(&good, &world.transform("acme")));
        let status = world.status("acme", "10-hostile");
        assert_eq!(
            (status.state, status.digest),
            (ServingState::Serving, Some(good.digest()))
        );
        assert_eq!(status.refused.as_deref(), Some(reason));
    }
    world.put("acme", "10-hostile.wasm", guest("redact"));
    world.load().await;
    assert_eq!(world.status("acme", "10-hostile").refused, None);
    assert!(!Arc::ptr_eq(&good, &world.transform("acme")));
}

#[tokio::test]
async fn a_bad_manifest_leaves_the_last_good_version_and_names_file_and_key() {
    let world = World::new();
    world.put_hostile("acme", "echo", "failure = \"dead-letter\"");
    world.load().await;
    let good = world.transform("acme");
    assert_eq!(good.policy(), FailurePolicy::DeadLetter);
    world.put("acme", "10-hostile.toml", "evnts = [\"*\"]\n");
    world.load().await;
    assert!(Arc::ptr_eq(&good, &world.transform("acme")));
    let error = world.refusal("acme", "10-hostile");
    assert!(
        error.starts_with(
            "10-hostile.toml is not a valid manifest: line 1, key `evnts`: unknown field `evnts`"
        ),
        "{error}"
    );
    world.put("acme", "10-hostile.toml", "failure = \"retry\"\n");
    world.load().await;
    assert_eq!(world.transform("acme").policy(), FailurePolicy::Retry);
    assert_eq!(world.transform("acme").digest(), good.digest());
}

#[tokio::test]
async fn what_is_unchanged_is_left_alone_and_what_is_deleted_is_unloaded() {
    let world = World::new();
    world.put_hostile("acme", "echo", "");
    world.put("acme", "notes.txt", "not a plugin");
    world.load().await;
    let first = world.transform("acme");
    let again = world.host.rescan().await;
    assert_eq!((again.loaded, again.refused, again.unloaded), (0, 0, 0));
    assert!(Arc::ptr_eq(&first, &world.transform("acme")));
    world.remove("acme", "10-hostile.wasm");
    assert_eq!(world.host.rescan().await.unloaded, 1);
    assert!(world.tenant("acme").is_empty());
    assert!(world.host.status().is_empty());
    assert_eq!(
        body(&first, "{}").await,
        "{}",
        "whoever holds the old version may finish"
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_seen_unloads_nothing() {
    let world = World::new();
    world.put_hostile("acme", "echo", "");
    world.load().await;
    let tenants = world.folder.path().join("tenants");
    fs::rename(&tenants, world.folder.path().join("away")).unwrap();
    let report = world.host.rescan().await;
    assert!(report.problems[0].starts_with("the tenants folder cannot be read: "));
    assert!(!world.tenant("acme").is_empty());
}

#[tokio::test]
async fn transforms_run_in_name_order_and_only_one_plugin_resolves() {
    let world = World::new();
    for name in ["30-c", "10-a", "20-b"] {
        world.put("acme", &format!("{name}.wasm"), guest("redact"));
    }
    world.put("acme", "40-route.wasm", guest("route"));
    world.put("acme", "50-route.wasm", guest("route"));
    world.load().await;
    let plugins = world.tenant("acme");
    let names: Vec<&str> = plugins
        .transforms
        .iter()
        .map(|plugin| plugin.name())
        .collect();
    assert_eq!(names, ["10-a", "20-b", "30-c"]);
    assert_eq!(plugins.resolvers[0].name(), "40-route");
    assert_eq!(
        world.status("acme", "50-route").state,
        ServingState::Refused
    );
    assert_eq!(
        world.refusal("acme", "50-route"),
        "40-route chooses this tenant's endpoints already, and one plugin does; remove one of the two"
    );
}

#[tokio::test]
async fn links_out_of_the_folder_and_bad_tenant_names_are_refused() {
    let world = World::new();
    let outside = world.folder.path().join("outside.wasm");
    fs::write(&outside, guest("redact")).unwrap();
    symlink(&outside, world.file("acme", "10-link.wasm")).unwrap();
    fs::create_dir_all(world.folder.path().join("tenants/.hidden/plugins")).unwrap();
    world.put("other", "10-redact.wasm", guest("redact"));
    symlink(
        world.file("other", ""),
        world.folder.path().join("tenants/linked"),
    )
    .unwrap();
    symlink(
        world.file("other", "10-redact.wasm"),
        world.file("other", "20-same.wasm"),
    )
    .unwrap();
    let report = world.host.rescan().await;
    world.host.settled().await;
    assert!(
        report.problems[0].starts_with("tenant folder .hidden is ignored: "),
        "{report:?}"
    );
    assert_eq!(
        world.refusal("acme", "10-link"),
        "the file is a link that leads out of its tenant's folder"
    );
    let linked = world.tenant("linked");
    assert_eq!((linked.transforms.len(), linked.unready.len()), (0, 1));
    assert_eq!(
        world.tenant("other").transforms.len(),
        2,
        "a link within the folder is fine"
    );
}

/// Puts another version in the place of what a kubelet has mounted: `..data` leads to a hidden folder of files.
fn remount(folder: &Path, version: &str, files: &[(&str, Vec<u8>)]) {
    for (path, bytes) in files {
        let file = folder.join(version).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
        let name = path.split('/').next().unwrap();
        let _ = symlink(format!("..data/{name}"), folder.join(name));
    }
    let before = fs::read_link(folder.join("..data")).ok();
    symlink(version, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(folder.join(before)).unwrap();
    }
}

#[tokio::test]
async fn mounted_plugins_are_followed_when_they_are_replaced() {
    let world = World::new();
    let tenants = world.folder.path().join("tenants");
    let mounted = |version: &str, guest: &[u8]| {
        let plugin = |path| [(path, guest.to_vec())];
        // The folder of plugins, that of a tenant, and that of all tenants.
        remount(&world.file("one", ""), version, &plugin("10-a.wasm"));
        remount(&tenants.join("two"), version, &plugin("plugins/10-a.wasm"));
        remount(&tenants, version, &plugin("three/plugins/10-a.wasm"));
    };
    fs::create_dir(tenants.join("two")).unwrap();
    mounted("..1", &guest("redact"));
    let report = world.host.rescan().await;
    world.host.settled().await;
    assert_eq!(report.problems, Vec::<String>::new());
    let digests = || {
        ["one", "two", "three"].map(|tenant| {
            let plugins = world.tenant(tenant);
            assert_eq!(plugins.transforms.len(), 1, "{tenant}");
            plugins.transforms[0].digest()
        })
    };
    let first = digests();
    mounted("..2", &variant(guest("redact"), 2));
    world.host.rescan().await;
    world.host.settled().await;
    for (before, now) in first.iter().zip(digests()) {
        assert_ne!(*before, now);
    }

    // Unmounted by half: a link that leads nowhere takes nobody's plugins away.
    fs::remove_file(tenants.join("..data")).unwrap();
    world.host.rescan().await;
    world.host.settled().await;
    assert_eq!(world.tenant("three").transforms.len(), 1);
}

#[tokio::test]
async fn a_folder_that_could_never_be_read_lets_nothing_pass_until_it_can() {
    let world = World::new();
    world.put("acme", "10-redact.wasm", guest("redact"));
    let (folder, aside) = (world.file("acme", ""), world.folder.path().join("aside"));
    fs::rename(&folder, &aside).unwrap();
    // As one that this user may not open, which the superuser could.
    symlink("plugins", folder.parent().unwrap().join("plugins")).unwrap();
    let tenants = world.folder.path().join("tenants");
    fs::create_dir_all(tenants.join("other")).unwrap();
    // A tenant in a mounted volume that has not come yet.
    symlink("..data/beta", tenants.join("beta")).unwrap();
    world.load().await;
    for tenant in ["acme", "beta"] {
        let plugins = world.tenant(tenant);
        assert_eq!(plugins.unready.len(), 1);
        assert_eq!(
            plugins.unready[0].reason,
            "the folder of plugins cannot be read"
        );
    }
    assert!(world.tenant("other").is_empty(), "it has none");

    let mounted = tenants.join("..data/beta/plugins");
    fs::create_dir_all(&mounted).unwrap();
    fs::copy(aside.join("10-redact.wasm"), mounted.join("10-redact.wasm")).unwrap();
    fs::remove_file(folder.parent().unwrap().join("plugins")).unwrap();
    fs::rename(&aside, folder.parent().unwrap().join("plugins")).unwrap();
    world.load().await;
    for tenant in ["acme", "beta"] {
        let plugins = world.tenant(tenant);
        assert_eq!((plugins.unready.len(), plugins.transforms.len()), (0, 1));
    }

    // One whose plugins are known keeps them, and one that had none goes on without.
    for tenant in ["acme", "other"] {
        let folder = world
            .folder
            .path()
            .join("tenants")
            .join(tenant)
            .join("plugins");
        if folder.is_dir() {
            fs::rename(&folder, folder.with_extension("aside")).unwrap();
        }
        symlink("plugins", &folder).unwrap();
    }
    world.load().await;
    assert_eq!(world.tenant("acme").transforms.len(), 1);
    assert!(world.tenant("other").is_empty());
}

#[tokio::test]
async fn compiled_code_is_kept_checked_and_made_again_when_damaged() {
    let mut world = World::new();
    let cache = world.folder.path().join("cache");
    let tenants = world.folder.path().join("tenants");
    world.put("acme", "10-redact.wasm", guest("redact"));
    let mut start_with_cache = || {
        let mut config = PluginHostConfig::new(&tenants);
        config.cache_dir = Some(cache.clone());
        config.max_idle_instances = 1;
        config.max_concurrent_calls = 2;
        world.host = Arc::new(PluginHost::new(config).unwrap());
        Arc::clone(&world.host)
    };
    let entries = || -> Vec<_> {
        fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let host = start_with_cache();
    assert_eq!(host.rescan().await.compiling, 1);
    host.settled().await;
    let kept = entries();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        fs::metadata(&cache).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let whole = fs::read(&kept[0]).unwrap();

    let host = start_with_cache();
    let report = host.rescan().await;
    assert_eq!(
        (report.compiling, report.loaded),
        (0, 1),
        "the second start compiles nothing"
    );
    assert!(
        transform(&host.tenant("acme").transforms[0], "{}")
            .await
            .is_ok()
    );

    // Another file: the one before is mapped.
    fs::remove_file(&kept[0]).unwrap();
    fs::write(&kept[0], &whole[..whole.len() / 2]).unwrap();
    let host = start_with_cache();
    assert_eq!(host.rescan().await.compiling, 1);
    host.settled().await;
    assert!(
        transform(&host.tenant("acme").transforms[0], "{}")
            .await
            .is_ok()
    );
    assert_eq!(
        fs::read(&kept[0]).unwrap().len(),
        whole.len(),
        "and is whole again"
    );
}

#[tokio::test]
async fn the_cache_is_bounded_and_must_be_closed_to_others() {
    let world = World::with(|config| {
        config.cache_dir = Some(config.tenants_dir.with_file_name("cache"));
        config.cache_bytes = 1;
    });
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    let cache = world.folder.path().join("cache");
    assert_eq!(
        fs::read_dir(&cache).unwrap().count(),
        0,
        "more than it may hold is not held"
    );
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = PluginHostConfig::new(world.folder.path());
    config.cache_dir = Some(cache);
    let Err(RuntimeError::Cache { reason, .. }) = PluginHost::new(config) else {
        panic!()
    };
    assert_eq!(
        reason,
        "the folder is open to other users; make its mode 0700"
    );
}

#[tokio::test]
async fn what_does_not_serve_leaves_the_cache_before_what_does() {
    /// The digests of the components in a cache folder, with their sizes.
    fn kept(cache: &Path) -> BTreeMap<String, u64> {
        let entries = fs::read_dir(cache).unwrap().map(Result::unwrap);
        entries
            .filter(|entry| {
                entry
                    .path()
                    .extension()
                    .is_some_and(|end| end == "compiled")
            })
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name[..64].to_owned(), entry.metadata().unwrap().len())
            })
            .collect()
    }
    let (serving, gone, new) = (guest("redact"), guest("route"), guest("tag-and-route"));
    let names = [&serving, &gone, &new].map(|bytes| Digest::of(bytes).to_string());
    // How large each becomes, from a cache with room for all.
    let world =
        World::with(|config| config.cache_dir = Some(config.tenants_dir.with_file_name("cache")));
    for (name, bytes) in [
        ("10-a.wasm", &serving),
        ("20-b.wasm", &gone),
        ("30-c.wasm", &new),
    ] {
        world.put("acme", name, bytes);
    }
    world.load().await;
    let sizes = kept(&world.folder.path().join("cache"));
    assert_eq!(sizes.len(), 3);

    let world = World::with(|config| {
        config.cache_dir = Some(config.tenants_dir.with_file_name("cache"));
        config.cache_bytes = sizes.values().sum::<u64>() - 1;
    });
    let cache = world.folder.path().join("cache");
    world.put("acme", "10-serving.wasm", &serving);
    world.load().await;
    world.put("acme", "20-gone.wasm", &gone);
    world.load().await;
    world.remove("acme", "20-gone.wasm");
    world.load().await;
    world.put("acme", "30-new.wasm", &new);
    world.load().await;
    let left: Vec<String> = kept(&cache).into_keys().collect();
    assert!(
        left.contains(&names[0]),
        "it was used least recently, and serves"
    );
    assert!(!left.contains(&names[1]), "it serves no one");
    assert!(left.contains(&names[2]));
}

#[tokio::test]
async fn a_check_tells_what_a_component_is_and_whether_it_would_be_refused() {
    let world = World::new();
    let file = world.folder.path().join("candidate.wasm");
    fs::write(&file, guest("route")).unwrap();
    let report = world.host.check(&file).await.unwrap();
    assert_eq!(
        report.outline.exports,
        Exports {
            resolve: true,
            ..Exports::default()
        }
    );
    assert_eq!((report.refusal, report.contract), (None, "1.0.0"));
    assert!(report.compile_time.is_some());
    assert!(
        report
            .outline
            .imports
            .iter()
            .any(|i| i.name == "wasmhook:plugin/config@1.0.0")
    );
    assert!(report.outline.imports.iter().all(|import| import.granted));

    fs::write(&file, importing("wasi:http/outgoing-handler@0.2.0")).unwrap();
    let report = world.host.check(&file).await.unwrap();
    assert!(!report.outline.imports[0].granted);
    assert!(matches!(
        report.refusal,
        Some(LoadError::ImportNotGranted { .. })
    ));
    fs::write(&file, "text").unwrap();
    assert_eq!(
        world.host.check(&file).await.unwrap_err(),
        LoadError::NotWasm
    );
}
