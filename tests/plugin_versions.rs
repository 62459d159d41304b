//! Versions of plugins on a running host: rolled back by themselves, and chosen by command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{Listener, Site, component, wait_for};
use wasmhook_testing::{Received, Receiver};

const NAME: &str = "10-redact";
const MANIFEST: &str = "[config]\nbehaviour = \"panic\"\nfields = \"card\"\n";

fn push(site: &Site, id: &str) {
    support::push(site, "acme", id, &json!({"card": "4242"}));
}

/// A site whose plugin redacts, and which tries often enough to outlast a bad version.
fn site(receiver: &Listener) -> Site {
    let site = Site::embedded();
    site.try_often();
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.plugin("acme", NAME, &component("redact.wasm"), MANIFEST);
    site
}

fn digest(file: &str) -> String {
    hex::encode(Sha256::digest(std::fs::read(component(file)).unwrap()))
}

/// Waits until the plugin is listed with a state and a version.
fn wait_for_version(site: &Site, state: &str, version: &str) -> Value {
    wait_for(&format!("version {version} as {state}"), || {
        let listed = site.json(&["plugins", "list"]);
        let plugin = listed[0].clone();
        (plugin["state"] == state && plugin["digest"] == version).then_some(plugin)
    })
}

#[test]
fn a_version_that_traps_is_rolled_back_and_what_it_held_up_arrives() {
    let receiver = Listener::start(204);
    let site = site(&receiver);
    let (good, bad) = (digest("redact.wasm"), digest("hostile.wasm"));
    let mut host = site.serve();
    push(&site, "before");
    receiver.wait_for_deliveries(1);
    site.plugin("acme", NAME, &component("hostile.wasm"), MANIFEST);
    wait_for_version(&site, "serving", &bad);
    for n in 0..5 {
        push(&site, &format!("evt_{n}"));
    }
    let listed = wait_for_version(&site, "rolled back", &good);
    let reason = listed["refused"].as_str().unwrap();
    assert!(
        reason.starts_with("it was rolled back: it failed for 5 of the events"),
        "{reason}"
    );
    let arrived = receiver.wait_for_deliveries(6);
    for request in arrived {
        assert!(
            request["body"].as_str().unwrap().contains("[redacted]"),
            "{request}"
        );
    }

    // A restart knows it still, and the story is told.
    host.stop();
    let _host = site.serve();
    wait_for_version(&site, "rolled back", &good);
    let told = site.json(&["plugins", "history", "acme", NAME]);
    let states: Vec<_> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|version| {
            (
                version["digest"].as_str().unwrap(),
                version["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(states, [(&*good, "serving"), (&*bad, "rolled-back")]);
    assert_eq!(
        (&told[1]["in_file"], &told[1]["kept"]),
        (&json!(true), &json!(true))
    );

    // Who insists is obeyed.
    site.json(&["plugins", "promote", "acme", NAME]);
    wait_for_version(&site, "serving", &bad);
    // And may change their mind: the file is the former version then.
    site.json(&["plugins", "rollback", "acme", NAME]);
    wait_for_version(&site, "serving", &good);
    let file = site.path("tenants/acme/plugins/10-redact.wasm");
    assert_eq!(
        std::fs::read(file).unwrap(),
        std::fs::read(component("redact.wasm")).unwrap()
    );
}

#[test]
fn a_pinned_version_outlasts_newer_files_on_every_host_that_shares_the_folder() {
    let receiver = Listener::start(204);
    let site = site(&receiver);
    let (old, new) = (digest("redact.wasm"), digest("tag_and_route.wasm"));
    let _host = site.serve();
    wait_for_version(&site, "serving", &old);
    let pinned = site.json(&["plugins", "pin", "acme", NAME, &old[..10]]);
    assert_eq!(pinned["digest"], *old);
    site.plugin("acme", NAME, &component("tag_and_route.wasm"), MANIFEST);
    wait_for("the pin to be shown", || {
        let listed = site.json(&["plugins", "list"]);
        (listed[0]["pinned"] == true && listed[0]["digest"] == *old).then_some(())
    });
    let refused = site.run(&["plugins", "rollback", "acme", NAME]);
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");

    // Another host, which has never seen the pinned version in the file.
    let other = Site::embedded();
    let config = std::fs::read_to_string(other.path("wasmhook.toml")).unwrap();
    let folder = site.path("tenants");
    other.write(
        "wasmhook.toml",
        &format!("{config}\n[tenants]\nfolder = \"{}\"\n", folder.display()),
    );
    let _other = other.serve();
    wait_for_version(&other, "serving", &old);

    site.json(&["plugins", "unpin", "acme", NAME]);
    wait_for_version(&site, "serving", &new);
    wait_for_version(&other, "serving", &new);
    let missing = site.run(&["plugins", "unpin", "acme", NAME]);
    assert_eq!(missing.status.code(), Some(5), "{missing:?}");
    let unknown = site.run(&["plugins", "history", "acme", "other"]);
    assert_eq!(unknown.status.code(), Some(5), "{unknown:?}");
}

/// The redacting component with another digest: a custom section more.
fn variant(site: &Site) -> (std::path::PathBuf, String) {
    let mut bytes = std::fs::read(component("redact.wasm")).unwrap();
    bytes.extend([0, 3, 1, b'v', 1]);
    let file = site.path("variant.wasm");
    std::fs::write(&file, &bytes).unwrap();
    (file, hex::encode(Sha256::digest(&bytes)))
}

#[test]
fn a_canary_serves_all_endpoints_of_an_event_alike_until_it_is_promoted() {
    const EVENTS: usize = 40;
    let receiver = Listener::start(204);
    let site = site(&receiver);
    site.endpoint("acme", "second", &receiver.url(), "*");
    let old = digest("redact.wasm");
    let (file, new) = variant(&site);
    let _host = site.serve();
    wait_for_version(&site, "serving", &old);
    let manifest = format!("rollout = {{ canary_percent = 50 }}\n{MANIFEST}");
    site.plugin("acme", NAME, &file, &manifest);
    let listed = wait_for_version(&site, "canary", &old);
    assert_eq!(listed["candidate"]["digest"], *new);
    for n in 0..EVENTS {
        push(&site, &format!("evt_{n}"));
    }
    let succeeded = wait_for("all deliveries to be recorded", || {
        Some(site.deliveries("acme", "succeeded")).filter(|all| all.len() == 2 * EVENTS)
    });
    let mut versions = std::collections::BTreeMap::<_, Vec<_>>::new();
    for delivery in &succeeded {
        let used = &delivery["attempts"][0]["plugins"][0];
        let event = delivery["event_id"].as_str().unwrap();
        versions
            .entry(event)
            .or_default()
            .push(used["digest"].as_str().unwrap());
    }
    assert!(
        versions.values().all(|used| used[0] == used[1]),
        "{versions:?}"
    );
    for version in [&old, &new] {
        let count = versions.values().filter(|used| used[0] == version).count();
        assert!(
            (8..=32).contains(&count),
            "{count} of {EVENTS} events went to {version}"
        );
    }
    site.json(&["plugins", "promote", "acme", NAME]);
    wait_for_version(&site, "serving", &new);
}

#[test]
fn a_shadow_is_compared_on_live_events_and_sends_nothing() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.endpoint("acme", "eu-archive", &receiver.url(), "order.created");
    let manifest = "rollout = { shadow = true }\n[config]\nbehaviour = \"echo\"\n";
    site.plugin("acme", NAME, &component("tag_and_route.wasm"), manifest);
    let old = digest("tag_and_route.wasm");
    let _host = site.serve();
    wait_for_version(&site, "serving", &old);
    site.plugin("acme", NAME, &component("hostile.wasm"), manifest);
    wait_for_version(&site, "shadow", &old);
    support::push(&site, "acme", "evt_1", &json!({"region": "eu"}));
    receiver.wait_for_deliveries(2);
    let compared = wait_for("the comparisons", || {
        let listed = site.json(&["plugins", "list"]);
        let compared = listed[0]["candidate"]["comparisons"].clone();
        (compared["different"].as_u64()? >= 3).then_some(compared)
    });
    let event = hex::encode(Sha256::digest("evt_1"));
    let samples = compared["samples"].as_array().unwrap();
    assert!(
        samples.iter().all(|sample| sample["event"] == event[..16]),
        "{samples:?}"
    );
    for parts in [json!(["choices"]), json!(["headers"])] {
        assert!(
            samples.iter().any(|sample| sample["parts"] == parts),
            "{samples:?}"
        );
    }
    for delivery in wait_for("the records", || {
        Some(site.deliveries("acme", "succeeded")).filter(|all| all.len() == 2)
    }) {
        assert_eq!(
            delivery["attempts"][0]["plugins"][0]["digest"], *old,
            "{delivery}"
        );
        assert_eq!(delivery["resolver"]["digest"], *old);
    }
    assert_eq!(receiver.arrived().len(), 2);
}

/// A site whose retries come too late for any test to see one.
fn patient_site() -> Site {
    let site = Site::embedded();
    site.configure(|config| config.replace("\"200ms\", \"400ms\"", "\"2h\", \"2h\""));
    site
}

#[test]
fn what_a_plugin_held_up_goes_out_once_another_version_or_manifest_serves() {
    const EVENTS: usize = 20;
    let receiver = Listener::start(204);
    let site = patient_site();
    site.endpoint("acme", "main", &receiver.url(), "*");
    // The first version of its plugin, so that there is none to go back to.
    site.plugin("acme", NAME, &component("hostile.wasm"), MANIFEST);
    let mut host = site.serve();
    for n in 0..EVENTS {
        push(&site, &format!("evt_{n}"));
    }
    let failed = |count: usize| {
        wait_for("the failed deliveries", || {
            let failed = site.deliveries("acme", "failed");
            let tried = |delivery: &Value| delivery["attempts"].as_array().unwrap().len();
            let all = failed.len() == EVENTS && failed.iter().all(|one| tried(one) == count);
            all.then_some(failed)
        })
    };
    let before = failed(1);
    for delivery in &before {
        let due: &str = delivery["attempts"][0]["next_at"].as_str().unwrap();
        assert!(
            due > delivery["next_at"].as_str().unwrap(),
            "it is looked at before its retry"
        );
    }
    // Looks, and a restart, find the plugin as it was: nothing is tried, and no attempt is added.
    wait_for("a look at each", || {
        let now = site.deliveries("acme", "failed");
        let moved = |delivery: &Value| {
            let id = &delivery["id"];
            let was = before.iter().find(|before| before["id"] == *id).unwrap();
            was["next_at"] != delivery["next_at"] && was["attempts"] == delivery["attempts"]
        };
        (now.len() == EVENTS && now.iter().all(moved)).then_some(())
    });
    host.stop();
    let _host = site.serve();

    // Another version that fails as well is tried once by each, and costs no retry.
    let mut bytes = std::fs::read(component("hostile.wasm")).unwrap();
    bytes.extend([0, 3, 1, b'v', 1]);
    let file = site.path("variant.wasm");
    std::fs::write(&file, bytes).unwrap();
    site.plugin("acme", NAME, &file, MANIFEST);
    for delivery in failed(2) {
        assert_eq!(delivery["replayed_at_attempt"], 1, "{delivery}");
        let attempts = &delivery["attempts"];
        assert_eq!(
            attempts[1]["next_at"], attempts[0]["next_at"],
            "the retry is where it was"
        );
        assert_ne!(
            attempts[1]["plugins"][0]["digest"],
            attempts[0]["plugins"][0]["digest"]
        );
    }
    assert!(receiver.arrived().is_empty());

    // Then the manifest is put right.
    site.write(
        "tenants/acme/plugins/10-redact.toml",
        "[config]\nbehaviour = \"echo\"\n",
    );
    receiver.wait_for_deliveries(EVENTS);
    let succeeded = wait_for("all to be recorded", || {
        Some(site.deliveries("acme", "succeeded")).filter(|all| all.len() == EVENTS)
    });
    assert!(
        succeeded.iter().all(|delivery| delivery["attempt"] == 3),
        "{succeeded:?}"
    );
}

#[test]
fn what_a_resolver_held_up_goes_out_once_it_answers() {
    let receiver = Listener::start(204);
    let site = patient_site();
    site.endpoint("acme", "eu", &receiver.url(), "*");
    site.plugin(
        "acme",
        "10-route",
        &component("route.wasm"),
        "[config]\nfield = \"card\"\n",
    );
    let _host = site.serve();
    // It names an endpoint that is not there.
    push(&site, "evt_1");
    let held = wait_for("the failed attempt", || {
        site.deliveries("acme", "failed").into_iter().next()
    });
    assert_eq!(held["endpoint_id"], "(resolver)");
    site.write(
        "tenants/acme/plugins/10-route.toml",
        "[config]\nfield = \"card\"\n\"map.4242\" = \"eu\"\n",
    );
    receiver.wait_for_deliveries(1);
}

#[test]
fn what_a_canary_failed_is_delivered_by_the_version_that_serves() {
    const EVENTS: usize = 5;
    let receiver = Listener::start(204);
    let site = patient_site();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let manifest = "rollout = { canary_percent = 99 }\n[config]\nbehaviour = \"panic\"\n";
    site.plugin("acme", NAME, &component("tag_and_route.wasm"), manifest);
    let old = digest("tag_and_route.wasm");
    let _host = site.serve();
    wait_for_version(&site, "serving", &old);
    site.plugin("acme", NAME, &component("hostile.wasm"), manifest);
    wait_for_version(&site, "canary", &old);
    for n in 0..EVENTS {
        push(&site, &format!("evt_{n}"));
    }
    let listed = wait_for_version(&site, "rolled back", &old);
    let reason = listed["refused"].as_str().unwrap();
    assert!(reason.contains("as a canary, in call"), "{reason}");
    receiver.wait_for_deliveries(EVENTS);
    let failed_first =
        |delivery: &&Value| delivery["attempts"][0]["plugins"][0]["verdict"] == "trap";
    let succeeded = wait_for("all to be recorded", || {
        Some(site.deliveries("acme", "succeeded")).filter(|all| all.len() == EVENTS)
    });
    assert!(
        succeeded.iter().filter(failed_first).count() >= 1,
        "{succeeded:?}"
    );
}

#[test]
fn a_canary_that_resolves_besides_does_so_for_its_share_of_the_events() {
    const EVENTS: usize = 20;
    let receiver = Listener::start(204);
    let site = site(&receiver);
    site.endpoint("acme", "eu-archive", &receiver.url(), "order.created");
    let (old, new) = (digest("redact.wasm"), digest("tag_and_route.wasm"));
    let _host = site.serve();
    wait_for_version(&site, "serving", &old);
    let manifest = format!("rollout = {{ canary_percent = 50 }}\n{MANIFEST}");
    site.plugin("acme", NAME, &component("tag_and_route.wasm"), &manifest);
    let listed = wait_for_version(&site, "canary", &old);
    assert_eq!(listed["exports"], json!(["transform"]));
    let candidate = &listed["candidate"];
    assert_eq!(candidate["exports"], json!(["resolve", "transform"]));
    let table = site.run(&["plugins", "list"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("; adds resolve"), "{table}");
    for n in 0..EVENTS {
        support::push(&site, "acme", &format!("evt_{n}"), &json!({"region": "eu"}));
    }
    let succeeded = wait_for("all deliveries to be recorded", || {
        let all = site.deliveries("acme", "succeeded");
        let to_main = all.iter().filter(|one| one["endpoint_id"] == "main");
        (to_main.count() == EVENTS).then_some(all)
    });
    for delivery in &succeeded {
        let used = &delivery["attempts"][0]["plugins"][0]["digest"];
        let resolver = &delivery["resolver"]["digest"];
        if delivery["endpoint_id"] == "main" {
            let expected = if *used == *new {
                json!(new)
            } else {
                Value::Null
            };
            assert_eq!(*resolver, expected, "{delivery}");
        } else {
            assert_eq!((used, resolver), (&json!(new), &json!(new)));
        }
    }
    let asked = succeeded.iter().filter(|one| one["resolver"].is_object());
    let count = asked.filter(|one| one["endpoint_id"] == "main").count();
    assert!((2..=18).contains(&count), "{count} of {EVENTS}");
}

#[test]
fn a_canary_that_signs_no_more_ends_and_what_it_held_up_is_signed_by_the_version_that_serves() {
    const EVENTS: usize = 5;
    const SIGNER: &str = "30-sign";
    // The headers are what matters, so it is not the one that verifies.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let receiver = runtime.block_on(Receiver::start()).unwrap();
    let site = patient_site();
    site.write("secrets/acme/main", support::SECRET);
    site.write(
        "tenants/acme/tenant.toml",
        &format!(
            "[[endpoints]]\nid = \"main\"\nurl = \"{}\"\nsecrets = [\"main\"]\nevents = [\"*\"]\n\
             profile = \"plugin\"\nsigner = \"{SIGNER}\"\n",
            receiver.url("/hook")
        ),
    );
    let manifest = "rollout = { canary_percent = 99 }\n[config]\nstyle = \"github\"\n";
    site.plugin("acme", SIGNER, &component("sign_as.wasm"), manifest);
    let old = digest("sign_as.wasm");
    let _host = site.serve();
    wait_for_version(&site, "serving", &old);
    site.plugin("acme", SIGNER, &component("redact.wasm"), manifest);
    wait_for_version(&site, "canary", &old);
    for n in 0..EVENTS {
        push(&site, &format!("evt_{n}"));
    }
    let listed = wait_for_version(&site, "rolled back", &old);
    let reason = listed["refused"].as_str().unwrap();
    assert!(
        reason.contains("does not export wasmhook:plugin/sign"),
        "{reason}"
    );
    wait_for("all to be recorded", || {
        (site.deliveries("acme", "succeeded").len() == EVENTS).then_some(())
    });
    let signed = |request: &Received| request.header("x-hub-signature-256").is_some();
    let requests = receiver.received();
    assert_eq!(requests.len(), EVENTS);
    assert!(requests.iter().all(signed));
}
