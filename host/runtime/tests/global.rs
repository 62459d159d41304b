//! Plugins of the operator, which run for every tenant.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use support::{ENDPOINT, World, event, guest, request, variant};
use wasmhook_runtime::{
    Digest, EventView, GLOBAL, Grants, Plugin, PluginHost, PluginHostConfig, Reuse, Rollback,
    RuntimeError, ServingState, TenantPlugins,
};

const REUSED: &str = "reuse = { calls = 100, seconds = 3600 }\n";

fn settings(config: &mut PluginHostConfig) {
    config.global_dir = Some(config.tenants_dir.with_file_name("global"));
    config.versions_dir = Some(config.tenants_dir.with_file_name("versions"));
    config.rollback = Rollback {
        calls: 20,
        faults: 2,
    };
    config.allowed = Grants {
        key_value: true,
        http: Vec::new(),
    };
}

fn world() -> World {
    World::with(|config| {
        settings(config);
        fs::create_dir(config.global_dir.as_ref().unwrap()).unwrap();
    })
}

fn put(world: &World, file: &str, bytes: impl AsRef<[u8]>) {
    let path = world.folder.path().join("global").join(file);
    let aside = path.with_extension("new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, path).unwrap();
}

fn behaves(behaviour: &str) -> String {
    format!("{REUSED}[config]\nbehaviour = \"{behaviour}\"\n")
}

/// The names in each stage around a tenant's plugins.
fn stages(world: &World, tenant: &str) -> [Vec<String>; 3] {
    let own = world.tenant(tenant);
    world.host.global().around(&own).map(|stage| {
        let names = stage.transforms.iter().map(|plugin| plugin.name());
        names.map(str::to_owned).collect()
    })
}

fn first(world: &World) -> Arc<Plugin> {
    let none = TenantPlugins::default();
    let global = world.host.global();
    let [before, _, _] = global.around(&none);
    Arc::clone(&before.transforms[0])
}

async fn body_for(plugin: &Plugin, tenant: &str) -> String {
    let view = EventView {
        tenant,
        ..event("{}")
    };
    let call = plugin.transform(&view, &ENDPOINT).await.unwrap();
    String::from_utf8(request(call.value).body.to_vec()).unwrap()
}

#[tokio::test]
async fn they_are_around_every_tenants_own_in_the_order_of_their_names() {
    let world = world();
    for file in ["after-10-a", "before-20-b", "before-10-c", "after-05-d"] {
        put(&world, &format!("{file}.wasm"), guest("redact"));
    }
    world.put("acme", "10-own.wasm", guest("redact"));
    world.load().await;
    let before = ["@global/before-10-c", "@global/before-20-b"];
    let after = ["@global/after-05-d", "@global/after-10-a"];
    let own: [(&str, &[&str]); 2] = [("acme", &["10-own"]), ("other", &[])];
    for (tenant, own) in own {
        let wanted = [&before[..], own, &after[..]].map(<[&str]>::to_vec);
        assert_eq!(stages(&world, tenant), wanted, "{tenant}");
    }
    assert!(
        world.tenant(GLOBAL).is_empty(),
        "they are no tenant's plugins"
    );

    fs::remove_file(world.folder.path().join("global/after-05-d.wasm")).unwrap();
    world.load().await;
    assert_eq!(stages(&world, "other")[2], ["@global/after-10-a"]);
}

#[tokio::test]
async fn no_instance_serves_two_tenants_and_each_sees_its_own_events_counted() {
    let world = world();
    put(&world, "before-10-count.toml", behaves("count"));
    put(&world, "before-10-count.wasm", guest("hostile"));
    world.load().await;
    let plugin = first(&world);
    // The guest counts the calls of its instance.
    for (tenant, calls) in [
        ("acme", "1"),
        ("acme", "2"),
        ("other", "1"),
        ("acme", "3"),
        ("other", "2"),
        ("third", "1"),
    ] {
        assert_eq!(body_for(&plugin, tenant).await, calls, "{tenant}");
    }
    // Looks at the folder end instances that are too old, and these are not.
    world.load().await;
    assert_eq!(body_for(&plugin, "other").await, "3");
    let told = world.status(GLOBAL, "before-10-count");
    assert_eq!(
        told.calls.calls, 7,
        "the operator is told of all calls at once"
    );
}

#[tokio::test]
async fn a_tenant_whose_calls_take_all_its_places_leaves_anothers_free() {
    let world = World::with(|config| {
        settings(config);
        fs::create_dir(config.global_dir.as_ref().unwrap()).unwrap();
        config.max_concurrent_calls_per_plugin = 1;
        config.place_wait = Duration::ZERO;
        config.limits.wait_time_ms = 300;
    });
    put(&world, "before-10-sleep.toml", behaves("sleep"));
    put(&world, "before-10-sleep.wasm", guest("hostile"));
    world.load().await;
    let plugin = first(&world);
    let call = async |tenant| {
        let view = EventView {
            tenant,
            ..event("{}")
        };
        let called = plugin.transform(&view, &ENDPOINT).await;
        called.unwrap_err().fault.class()
    };
    let ended = tokio::join!(call("acme"), call("acme"), call("other"));
    // Those that ran slept until they were stopped.
    assert_eq!(ended, ("wait-time", "exhausted", "wait-time"));
}

#[tokio::test]
async fn a_version_that_traps_is_rolled_back_for_all_whoevers_events_they_were() {
    let world = world();
    let manifest = format!("{REUSED}[config]\nbehaviour = \"panic\"\nfields = \"card\"\n");
    put(&world, "before-10-redact.toml", manifest);
    put(&world, "before-10-redact.wasm", guest("redact"));
    world.load().await;
    body_for(&first(&world), "acme").await;
    put(&world, "before-10-redact.wasm", guest("hostile"));
    world.load().await;
    let bad = first(&world);
    for (id, tenant) in [("evt_1", "acme"), ("evt_2", "other")] {
        let view = EventView {
            id,
            tenant,
            ..event("{}")
        };
        let error = bad.transform(&view, &ENDPOINT).await.unwrap_err();
        assert_eq!(&*error.plugin, "@global/before-10-redact");
    }
    world.host.settled().await;
    let told = world.status(GLOBAL, "before-10-redact");
    let good = Digest::of(&guest("redact"));
    assert_eq!(
        (told.state, told.digest),
        (ServingState::RolledBack, Some(good))
    );
    assert_eq!(first(&world).digest(), good);
}

#[tokio::test]
async fn a_canary_of_one_has_instances_by_tenant_too() {
    let world = world();
    let manifest = behaves("count");
    put(&world, "before-10-count.toml", &manifest);
    put(&world, "before-10-count.wasm", guest("hostile"));
    world.load().await;
    let rollout = "rollout = { canary_percent = 99, promote_after = 1000 }\n";
    put(
        &world,
        "before-10-count.toml",
        format!("{rollout}{manifest}"),
    );
    world.load().await;
    put(&world, "before-10-count.wasm", variant(guest("hostile"), 1));
    world.load().await;
    let canary = first(&world).version_for("evt_1");
    assert_eq!(canary.digest(), Digest::of(&variant(guest("hostile"), 1)));
    for (tenant, calls) in [("acme", "1"), ("other", "1"), ("acme", "2")] {
        assert_eq!(body_for(&canary, tenant).await, calls, "{tenant}");
    }
}

#[tokio::test]
async fn what_is_for_a_tenants_own_plugins_is_refused() {
    let world = world();
    let refused = |name: &str| world.refusal(GLOBAL, name);
    put(&world, "before-10-route.wasm", guest("route"));
    put(&world, "after-10-once.wasm", guest("once"));
    put(&world, "after-10-once.toml", "[grants]\nkey_value = true\n");
    put(&world, "10-redact.wasm", guest("redact"));
    let report = world.host.rescan().await;
    world.host.settled().await;
    assert_eq!(
        report.problems,
        [
            "the global plugin 10-redact.wasm is ignored: its name has to begin with before- or after-"
        ]
    );
    assert_eq!(
        refused("before-10-route"),
        "a global plugin has to export transform, which is all that is asked of it"
    );
    assert_eq!(
        refused("after-10-once"),
        "a global plugin is granted nothing; take [grants] out of its manifest"
    );
    // Nothing passes them by meanwhile.
    let global = world.host.global();
    let own = world.tenant("acme");
    let unready = global.around(&own).map(|stage| stage.unready.len());
    assert_eq!(unready, [1, 0, 1]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_stops_a_start_and_takes_nothing_out_of_service() {
    let world = world();
    put(&world, "before-10-redact.wasm", guest("redact"));
    world.load().await;
    let folder = world.folder.path().join("global");
    fs::rename(&folder, world.folder.path().join("away")).unwrap();
    let report = world.host.rescan().await;
    assert_eq!(report.unloaded, 0);
    assert!(
        report.problems[0].contains("is gone"),
        "{:?}",
        report.problems
    );
    assert_eq!(stages(&world, "acme")[0], ["@global/before-10-redact"]);

    let mut config = support::config(world.folder.path());
    settings(&mut config);
    config.reuse = Reuse::Fresh;
    let error = PluginHost::new(config).err().unwrap();
    assert!(
        matches!(error, RuntimeError::GlobalFolder { .. }),
        "{error}"
    );
}
