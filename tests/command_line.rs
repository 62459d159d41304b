//! What the command line says when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::process::{Command, Stdio};

use support::{Site, component, free_port, http, wait_for};
use wasmhook_testing::RedisServer;

fn fails(site: &Site, words: &[&str], code: i32, sentence: &str) {
    let output = site.run(words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
    assert!(
        stderr.contains(sentence),
        "expected {sentence:?} in {stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn with(change: impl FnOnce(&str) -> String) -> Site {
    let site = Site::embedded();
    site.configure(change);
    site
}

#[test]
fn an_unknown_key_is_named() {
    let site = with(|config| config.replace("[http]", "[http]\nlissten = 1"));
    fails(
        &site,
        &["config", "check"],
        3,
        "configuration key `http.lissten`: unknown; expected one of listen",
    );
}

#[test]
fn a_wrong_type_is_named() {
    let site = with(|config| config.replace("allow_http = true", "allow_http = \"maybe\""));
    fails(
        &site,
        &["config", "check"],
        3,
        "configuration key `delivery.allow_http`: expected a boolean, found a text",
    );
}

#[test]
fn a_wrong_duration_is_named() {
    let site = with(|config| config.replace("timeout = \"5s\"", "timeout = \"soon\""));
    fails(
        &site,
        &["serve"],
        3,
        "configuration key `delivery.timeout`: expected a duration",
    );
}

#[test]
fn a_value_that_no_host_can_work_with_is_refused_in_plain_words() {
    let site = Site::embedded();
    for (setting, sentence) in [
        (
            "worker.concurrency=9000000000000000000",
            "`worker.concurrency`: expected at most 1000000",
        ),
        (
            "plugins.budget=18446744073709551615s",
            "`plugins.budget`: expected at most a thousand years",
        ),
        (
            "retention.count=-1",
            "`retention.count`: expected a whole number from 0",
        ),
        (
            "catalog.types=a",
            "`catalog.types`: expected an array, found a text",
        ),
        ("http=5", "`http`: expected a table, found a whole number"),
        (
            "log.level=warning",
            "`log.level`: expected a level such as info",
        ),
        (
            "tenants.folder=nowhere",
            "`tenants.folder`: the tenants folder",
        ),
    ] {
        fails(&site, &["serve", "--set", setting], 3, sentence);
    }
}

#[test]
fn a_limit_of_zero_that_nothing_could_stay_within_is_refused() {
    let site = Site::embedded();
    for key in [
        "plugins.limits.cpu_time_ms",
        "plugins.limits.memory_bytes",
        "plugins.limit_caps.wall_time_ms",
        "plugins.loading.jobs",
        "plugins.loading.compile_cpu_seconds",
        "plugins.rollback.calls",
        "plugins.concurrency",
        "plugins.max_per_plugin",
        "plugins.versions_kept",
        "http.max_body_bytes",
        "worker.batch",
    ] {
        let words = format!("configuration key `{key}`: expected at least 1");
        fails(
            &site,
            &["config", "check", "--set", &format!("{key}=0")],
            3,
            &words,
        );
    }
    let rescan = ["serve", "--set", "tenants.rescan=0s"];
    fails(
        &site,
        &rescan,
        3,
        "`tenants.rescan`: expected more than zero",
    );
    let percent = ["serve", "--set", "intake.max_memory_percent=101"];
    let words = "`intake.max_memory_percent`: expected a whole number from 0 to 100";
    fails(&site, &percent, 3, words);
}

#[test]
fn a_folder_that_plugins_cannot_be_kept_in_is_wrong_configuration() {
    let site = Site::embedded();
    for (key, words) in [
        (
            "plugins.cache",
            "cannot keep compiled plugins in /proc/none",
        ),
        (
            "plugins.versions",
            "cannot keep versions of plugins in /proc/none",
        ),
    ] {
        let set = format!("{key}=/proc/none");
        let words = format!("configuration key `{key}`: {words}");
        fails(&site, &["serve", "--set", &set], 3, &words);
    }
}

#[test]
fn a_variable_that_may_be_a_misspelt_setting_is_refused_and_those_of_kubernetes_are_not() {
    let site = Site::embedded();
    let run = |variables: &[(&str, &str)]| {
        let output = site
            .command(&["config", "check"])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };
    let of_a_service = [
        ("WASMHOOK_SERVICE_HOST", "10.0.0.1"),
        ("WASMHOOK_SERVICE_PORT", "8080"),
        ("WASMHOOK_SERVICE_PORT_HTTP", "8080"),
        ("WASMHOOK_PORT", "tcp://10.0.0.1:8080"),
        ("WASMHOOK_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("WASMHOOK_PORT_8080_TCP_PROTO", "tcp"),
        ("WASMHOOK_PORT_8080_TCP_PORT", "8080"),
        ("WASMHOOK_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("WASMHOOK_VALKEY_SERVER", "/usr/bin/valkey-server"),
    ];
    let (code, stderr) = run(&of_a_service);
    assert_eq!(code, Some(0), "{stderr}");
    for (name, nearest) in [
        ("WASMHOOK_HTTP_LISTEN", "WASMHOOK_HTTP__LISTEN"),
        ("WASMHOOK_HTTP__LISTN", "WASMHOOK_HTTP__LISTEN"),
        ("WASMHOOK_REDIS_URL", "WASMHOOK_REDIS__URL"),
    ] {
        let (code, stderr) = run(&[(name, "127.0.0.1:1")]);
        assert_eq!(code, Some(3), "{stderr}");
        for words in [
            format!("did you mean `{nearest}`?"),
            format!("(set by the variable {name})"),
        ] {
            assert!(stderr.contains(&words), "{words}: {stderr}");
        }
    }
    assert_eq!(run(&[("WASMHOOK_PORT", "8080")]).0, Some(3));
}

#[test]
fn a_missing_file_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_wasmhook"))
        .args(["serve", "--config", "/nonexistent/wasmhook.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("the configuration file /nonexistent/wasmhook.toml does not exist"),
        "{stderr}"
    );
}

#[test]
fn an_empty_catalog_is_refused_at_the_start() {
    let site = with(|config| config.replace("\"invoice.paid\", \"order.created\"", ""));
    fails(
        &site,
        &["serve"],
        3,
        "configuration key `catalog.types`: unsupported webhook event: the catalog is empty",
    );
}

#[test]
fn a_public_address_needs_a_token() {
    let site = with(|config| config.replace("listen = \"127.0.0.1:", "listen = \"0.0.0.0:"));
    fails(
        &site,
        &["serve"],
        3,
        "configuration key `http.listen`: expected a loopback address",
    );
}

#[test]
fn the_environment_is_over_the_file_and_a_flag_over_both() {
    let site = Site::embedded();
    let run = |set: &[&str]| {
        let mut command = site.command(&["config", "check"]);
        let output = command
            .args(set)
            .env("WASMHOOK_STORE__KIND", "nonsense")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, stderr) = run(&[]);
    assert_eq!(code, Some(3));
    assert!(
        stderr.contains("configuration key `store.kind`") && stderr.contains("WASMHOOK_"),
        "{stderr}"
    );
    assert_eq!(run(&["--set", "store.kind=embedded"]).0, Some(0));
}

#[test]
fn a_broken_file_is_named_without_quoting_it() {
    let site = with(|config| format!("{config}\n[http\ntoken = \"hunter2hunter2hunter2\n"));
    let output = site.run(&["serve"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("wasmhook.toml") && !stderr.contains("hunter2"),
        "{stderr}"
    );
}

#[test]
fn a_port_in_use_is_one_sentence() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let site = Site::embedded();
    fails(
        &site,
        &["serve", "--set", &format!("http.listen=127.0.0.1:{port}")],
        1,
        "cannot listen on 127.0.0.1",
    );
}

#[test]
fn a_second_host_on_the_embedded_store_is_one_sentence() {
    let site = Site::embedded();
    let _host = site.serve();
    let words = format!("http.listen=127.0.0.1:{}", free_port());
    fails(
        &site,
        &["serve", "--set", &words],
        4,
        "is in use by another wasmhook",
    );
}

#[test]
fn redis_away_at_the_start_is_one_sentence_after_a_bounded_wait() {
    let site = Site::redis(&format!("redis://127.0.0.1:{}", free_port()));
    fails(&site, &["serve"], 4, "is not reachable");
}

#[test]
fn a_data_folder_that_cannot_be_used_is_one_sentence() {
    let site = Site::embedded();
    site.write("occupied", "a file where a folder is expected");
    fails(
        &site,
        &["serve", "--set", "store.path=occupied/data"],
        3,
        "for the embedded store",
    );
}

#[test]
fn a_push_without_a_host_says_what_to_do() {
    let site = Site::embedded();
    let words = [
        "event",
        "push",
        "--tenant",
        "acme",
        "--type",
        "invoice.paid",
        "--payload",
        "{}",
    ];
    fails(&site, &words, 4, "start `wasmhook serve`");
    let bad = [
        "event",
        "push",
        "--tenant",
        "acme",
        "--type",
        "invoice.paid",
        "--payload",
        "{nonsense",
    ];
    fails(&site, &bad, 6, "field `payload`: expected valid JSON");
}

#[test]
fn an_id_that_cannot_be_right_is_wrong_usage_and_names_its_argument() {
    let site = Site::embedded();
    let tenant = "expected 1 to 128 characters of a-z A-Z 0-9 . _ - not starting with a dot";
    let delivery = "expected 1 to 128 visible ASCII characters without a dot";
    let push = ["event", "push", "--tenant", "acme", "--type", "a.b"];
    for (words, argument, expected) in [
        (
            &["deliveries", "list", "--tenant", "a/b"][..],
            "--tenant <TENANT>",
            tenant,
        ),
        (&["deliveries", "show", "a.b"], "<ID>", delivery),
        (
            &["deliveries", "show", "a", "--tenant", ""],
            "--tenant <TENANT>",
            tenant,
        ),
        (
            &["deliveries", "replay", "--tenant", "acme", "a", "b.c"],
            "[IDS]",
            delivery,
        ),
        (
            &["deliveries", "replay", "--tenant", "..", "a"],
            "--tenant <TENANT>",
            tenant,
        ),
        (
            &["deliveries", "skip", "--tenant", "acme", "a b"],
            "<IDS>",
            delivery,
        ),
        (&["tenants", "forget", ".acme"], "<TENANT>", tenant),
        (
            &["events", "record", "--tenant", "a b"],
            "--tenant <TENANT>",
            tenant,
        ),
        (
            &["events", "record", "--tenant", "acme", "--type", "*"],
            "--type <TYPE>",
            "expected 1 to 128 characters of a-z A-Z 0-9 . _ -",
        ),
        (&["plugins", "logs", "@globall"], "<TENANT>", "or @global"),
        (
            &["plugins", "pin", "acme", "../10-a", "00"],
            "<NAME>",
            "expected the name of a plugin",
        ),
        (
            &[&push[..4], &["--type", "a b", "--payload", "1"]].concat(),
            "--type <TYPE>",
            "expected",
        ),
        (
            &[&push[..], &["--payload", "1", "--id", "a\nb"]].concat(),
            "--id <ID>",
            "expected 1 to 256 bytes without control characters",
        ),
        (
            &[&push[..], &["--payload", "1", "--ordering-key", "\t"]].concat(),
            "--ordering-key <KEY>",
            "expected 1 to 256 bytes without control characters",
        ),
        (
            &[&push[..], &["--payload", "1", "--deliver-at", "tomorrow"]].concat(),
            "--deliver-at <TIME>",
            "expected an RFC 3339 time",
        ),
    ] {
        fails(&site, words, 2, argument);
        fails(&site, words, 2, expected);
    }
    let _host = site.serve();
    let list = ["deliveries", "list", "--tenant", "acme", "--cursor", "x"];
    fails(
        &site,
        &list,
        2,
        "--cursor: the cursor is not one that this store gave",
    );
}

#[test]
fn a_queue_is_checked_and_repaired() {
    let server = RedisServer::start().unwrap();
    let site = Site::redis(&server.url());
    site.endpoint(
        "acme",
        "main",
        &format!("http://127.0.0.1:{}/", free_port()),
        "*",
    );
    let report = site.json(&["queue", "check"]);
    assert_eq!(report["sound"], true);
    let host = site.serve();
    let event = r#"{"tenant":"acme","type":"invoice.paid","id":"evt_1","payload":{}}"#;
    let headers = ["Content-Type: application/json"];
    let (status, answer) = http(site.port, "POST", "/v1/events", &headers, event).unwrap();
    assert_eq!(status, 202, "{answer}");
    // Nobody listens there, so it fails until it is a dead letter.
    wait_for("the dead letter", || {
        (site.deliveries("acme", "dead-letter").len() == 1).then_some(())
    });
    drop(host);
    let report = site.json(&["queue", "check"]);
    assert_eq!(
        (&report["sound"], &report["looked"]["deliveries"]),
        (&true.into(), &1.into())
    );

    let keys: Vec<String> = server.ask(&["KEYS", "{wasmhook:*}:x:acme"]).unwrap();
    assert_eq!(server.ask::<i64>(&["DEL", &keys[0]]).unwrap(), 1);
    let output = site.run(&["queue", "check"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(
        stdout.contains("index") && stdout.contains("acme whdel_"),
        "{stdout}"
    );
    let report = site.json(&["queue", "check", "--repair"]);
    assert_eq!(
        (&report["sound"], &report["left"]),
        (&false.into(), &0.into())
    );
    assert_eq!(report["findings"]["index"]["repaired"], 1);
    let output = site.run(&["queue", "check"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains("the queue is sound"), "{stdout}");
    assert_eq!(site.deliveries("acme", "dead-letter").len(), 1);
}

#[test]
fn plugins_check_describes_a_component_and_refuses_what_is_none() {
    let site = Site::embedded();
    let good = component("redact.wasm");
    let report = site.json(&["plugins", "check", good.to_str().unwrap()]);
    assert_eq!(report["exports"], serde_json::json!(["transform"]));
    site.write("not.wasm", "hello");
    fails(
        &site,
        &["plugins", "check", site.path("not.wasm").to_str().unwrap()],
        6,
        "the file is not WebAssembly",
    );
}

#[test]
fn output_that_nobody_reads_is_no_failure_and_a_full_disk_is() {
    let site = Site::embedded();
    for words in [&["completions", "bash"][..], &["config", "check"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = site.command(words).stdout(writer).output().unwrap();
        let stderr = String::from_utf8_lossy(&closed.stderr);
        assert_eq!(closed.status.code(), Some(0), "{words:?}: {stderr}");
        let full = std::fs::File::create("/dev/full").unwrap();
        let full = site.command(words).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(1), "{words:?}: {stderr}");
        assert!(
            stderr.contains("cannot write to standard output"),
            "{stderr}"
        );
    }
}

#[test]
fn help_and_completions_are_there() {
    for words in [
        &["--help"][..],
        &["deliveries", "show", "--help"],
        &["completions", "bash"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_wasmhook"))
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn the_demo_tells_the_whole_story_and_ends_well() {
    let output = Command::new(env!("CARGO_BIN_EXE_wasmhook"))
        .arg("demo")
        .arg("--components")
        .arg(component("redact.wasm").parent().unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let story = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{story}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for stage in [
        "catalog",
        "signature verified",
        "dead_letter",
        "replays",
        "new version",
        "Summary",
        "0 missing",
    ] {
        assert!(
            story.contains(stage),
            "the demo does not mention {stage:?}: {story}"
        );
    }
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_sound_site() {
    let site = Site::embedded();
    site.endpoint("acme", "main", "http://127.0.0.1:9/hook", "*");
    let before = site.run(&["doctor"]);
    let text = String::from_utf8_lossy(&before.stdout);
    assert!(before.status.success(), "{text}");
    assert!(text.contains("when it first starts"), "{text}");
    let _host = site.serve();
    let output = site.run(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for words in ["the embedded store answers", "one serves at"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
}

#[test]
fn the_doctor_says_how_much_may_be_in_flight() {
    let site = Site::embedded();
    site.endpoint("acme", "main", "http://127.0.0.1:9/hook", "*");
    site.write("tenants/globex/tenant.toml", "max_in_flight = 90\n");
    let in_flight = |more: &[&str]| {
        let output = site.run(&[&["doctor"], more].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.contains("in flight"));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let line = in_flight(&[]);
    for words in [
        "1024 deliveries on this host",
        "512 for one endpoint",
        "any number for one tenant",
        "another max_in_flight: 1",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    let line = in_flight(&["--set", "worker.max_per_tenant=50"]);
    assert!(
        line.contains("50 for one tenant (worker.max_per_tenant)"),
        "{line}"
    );
    let line = in_flight(&["--set", "worker.max_per_tenant=90"]);
    assert!(!line.contains("another"), "{line}");
}

#[test]
fn the_doctor_names_what_is_wrong_and_goes_on() {
    let site = with(|config| config.replace("types = [", "types = [] #"));
    site.endpoint("acme", "main", "http://127.0.0.1:9/hook", "*");
    std::fs::remove_file(site.path("secrets/acme/main")).unwrap();
    let output = site.run(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for words in [
        "catalog.types",
        "endpoint main of tenant acme",
        "open files",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn the_doctor_says_when_redis_cannot_be_reached() {
    let site = Site::embedded();
    let url = format!("redis.url=redis://127.0.0.1:{}", free_port());
    let output = site.run(&["doctor", "--set", "store.kind=redis", "--set", &url]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("WRONG") && text.contains("store"), "{text}");
}
