//! What becomes of a delivery, and what nobody else gets to see of it.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::{
    JSON, Listener, SECRET, Site, component, event, http, push, push_lines, wait_for,
};

#[test]
fn a_failing_receiver_is_retried_then_dead_lettered_then_replayed() {
    let failing = Listener::start(503);
    let port = failing.port;
    let site = Site::embedded();
    site.endpoint("acme", "main", &failing.url(), "*");
    let _host = site.serve();
    assert!(
        push_lines(&site, &event("acme", "invoice.paid", "evt_1", &json!({})))
            .status
            .success()
    );
    let dead = wait_for("the dead letter", || {
        site.deliveries("acme", "dead_letter").into_iter().next()
    });
    let id = dead["id"].as_str().unwrap();
    let shown = site.json(&["deliveries", "show", id]);
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3);
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt["status_code"] == 503 && attempt["error_class"] == "status")
    );
    assert!(attempts[0]["next_at"].is_string() && attempts[2]["next_at"].is_null());
    drop(failing);
    let repaired = Listener::on(port, 204);
    let missing = site.run(&["deliveries", "replay", "--tenant", "globex", id]);
    assert_eq!(missing.status.code(), Some(5), "{missing:?}");
    assert_eq!(
        site.json(&["deliveries", "replay", "--tenant", "acme", id])["replayed"][0],
        id
    );
    let arrived = repaired.wait_for_deliveries(1);
    assert_eq!(arrived[0]["id"], id);
    let done = wait_for("the success", || {
        site.deliveries("acme", "succeeded").into_iter().next()
    });
    assert_eq!(done["attempt"], 4);
}

#[test]
fn the_metrics_count_and_time_attempts_and_readme_knows_them_all() {
    const README: &str = include_str!("../../README.md");
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let _host = site.serve();
    for id in ["evt_1", "evt_2", "evt_3"] {
        push(&site, "acme", id, &json!({}));
    }
    let metrics = wait_for("three attempts to be counted", || {
        let (_, metrics) = http(site.port, "GET", "/metrics", &[], "")?;
        metrics
            .contains("wasmhook_attempt_duration_seconds_count 3\n")
            .then_some(metrics)
    });
    let counted = "wasmhook_attempts_total{type=\"invoice.paid\",outcome=\"accepted\",status_class=\"2xx\"} 3\n";
    for line in [
        counted,
        "wasmhook_delivery_delay_seconds_count 3\n",
        "wasmhook_delivery_delay_seconds_bucket{le=\"1800\"} 3\n",
        "wasmhook_events_total{fate=\"enqueued\"} 3\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    let names = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in names {
        assert!(README.contains(&format!("| `{name}` |")), "{name}");
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn private_addresses_are_refused_unless_allowed() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.configure(|config| {
        config.replace(
            "allow_private_addresses = true",
            "allow_private_addresses = false",
        )
    });
    let _host = site.serve();
    assert!(
        push_lines(&site, &event("acme", "invoice.paid", "evt_1", &json!({})))
            .status
            .success()
    );
    let failed = wait_for("the refusal", || {
        site.deliveries("acme", "failed").into_iter().next()
    });
    assert_eq!(failed["attempts"][0]["error_class"], "address_refused");
    assert!(receiver.arrived().is_empty());
}

#[test]
fn nothing_private_is_logged() {
    let receiver = Listener::start(503);
    let site = Site::embedded();
    site.endpoint(
        "acme",
        "main",
        &format!("{}?token=CANARY_QUERY", receiver.url()),
        "*",
    );
    site.plugin(
        "acme",
        "10-redact",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let mut host = site.serve();
    push_lines(
        &site,
        &event(
            "acme",
            "invoice.paid",
            "evt_1",
            &json!({"card": "CANARY_PAYLOAD"}),
        ),
    );
    http(
        site.port,
        "POST",
        "/v1/events",
        &[JSON],
        "{\"payload\": CANARY_PAYLOAD}",
    );
    wait_for("the dead letter", || {
        site.deliveries("acme", "dead_letter").into_iter().next()
    });
    host.stop();
    let log = host.log();
    assert!(
        log.contains("\"delivery\":\"whdel_") && log.contains("\"tenant\":\"acme\""),
        "{log}"
    );
    for private in ["CANARY_QUERY", "CANARY_PAYLOAD", SECRET, &SECRET[6..]] {
        assert!(!log.contains(private), "the log holds {private}");
    }
}

#[test]
fn what_is_for_a_tenant_whose_file_could_never_be_read_waits_for_it() {
    let file = "tenants/acme/tenant.toml";
    // Whoever writes it has left it half done.
    let spoil = |site: &Site| {
        let whole = std::fs::read_to_string(site.path(file)).unwrap();
        site.write(file, &whole[..20]);
        whole
    };
    waits_until_it_can_be_read(spoil, |site, whole| site.write(file, &whole));
}

#[test]
fn what_is_for_a_tenant_whose_link_leads_nowhere_at_a_start_waits_for_it() {
    // As in a mounted volume that has not come yet.
    let data = "tenants/..data";
    let spoil = |site: &Site| {
        std::fs::create_dir(site.path("tenants/..1")).unwrap();
        let link = site.path("tenants/acme");
        std::fs::rename(&link, site.path("tenants/..1/acme")).unwrap();
        symlink("..data/acme", link).unwrap();
    };
    waits_until_it_can_be_read(spoil, |site, ()| symlink("..1", site.path(data)).unwrap());
}

/// What is for a tenant waits when its files are spoilt before a start, and is delivered once they are mended.
fn waits_until_it_can_be_read<T>(spoil: impl FnOnce(&Site) -> T, mend: impl FnOnce(&Site, T)) {
    let receiver = Listener::start(204);
    let port = receiver.port;
    drop(receiver);
    let site = Site::embedded();
    site.try_often();
    site.endpoint(
        "acme",
        "main",
        &format!("http://127.0.0.1:{port}/hook"),
        "*",
    );
    let push = |id: &str| {
        let line = event("acme", "invoice.paid", id, &json!({}));
        assert!(push_lines(&site, &line).status.success());
    };
    let mut host = site.serve();
    push("before");
    wait_for("an attempt", || {
        let failed = site.deliveries("acme", "failed");
        failed.into_iter().next()
    });
    host.stop();

    let spoilt = spoil(&site);
    let _host = site.serve();
    let receiver = Listener::on(port, 204);
    push("meanwhile");
    let held = wait_for("attempts at both", || {
        let failed = site.deliveries("acme", "failed");
        let tried = |delivery: &serde_json::Value| delivery["attempt"].as_u64() > Some(1);
        (failed.len() == 2 && failed.iter().all(tried)).then_some(failed)
    });
    let ids: Vec<_> = held
        .iter()
        .map(|held| held["id"].as_str().unwrap())
        .collect();
    for id in ids {
        let shown = site.json(&["deliveries", "show", id]);
        let last = shown["attempts"].as_array().unwrap().last().unwrap();
        assert_eq!(last["outcome"], "validation_error", "{shown}");
        let words = "the tenant's endpoints cannot be read";
        assert!(last["error"].as_str().unwrap().contains(words), "{shown}");
    }
    mend(&site, spoilt);
    let arrived = receiver.wait_for_deliveries(2);
    assert_eq!(arrived.len(), 2);
    wait_for("the end of all", || {
        let open =
            site.deliveries("acme", "failed").len() + site.deliveries("acme", "pending").len();
        (open == 0).then_some(())
    });
    assert_eq!(site.deliveries("acme", "dead_letter").len(), 0);
}
