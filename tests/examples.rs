//! `examples/` as its README describes it: the tenants and the configuration served by the real host,
//! producers that push into a real Redis, receivers that verify with the published libraries. `cargo
//! xtask test` skips the tests, by their names, whose tools are missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use support::{Site, component, free_port, redis_cli, root, wait_for};
use wasmhook_testing::RedisServer;

#[test]
fn python_pushes_and_verifies() {
    let python = root().join("target/examples/python/bin/python");
    let run = |script: &str| {
        let mut command = Command::new(installed(&python));
        command.arg(example(script));
        command
    };
    pushes_and_verifies(|| run("producers/push.py"), || run("receivers/receive.py"));
}

#[test]
fn javascript_pushes_and_verifies() {
    let run = |script: &str| {
        installed(&example(script).with_file_name("node_modules"));
        let mut command = Command::new("node");
        command.arg(example(script));
        command
    };
    pushes_and_verifies(
        || run("producers/push.mjs"),
        || run("receivers/receive.mjs"),
    );
}

#[test]
fn redis_cli_pushes() {
    let redis = RedisServer::start().unwrap();
    let set = Set::on_redis(&redis);
    let receiver = set.listen("acme");
    let _host = set.site.serve();
    for _ in 0..2 {
        let mut push = Command::new(example("producers/push.sh"));
        push.args(["acme", "invoice.paid", "evt_1", r#"{"total":1.00}"#]);
        done(push.env("REDIS_URL", redis.url()));
    }
    let arrived = receiver.wait_for(&[r#""path":"/hooks""#, r#""verified":true"#]);
    assert!(
        arrived.contains(r#""body":"{\"total\":1.00}""#),
        "{arrived}"
    );
    receiver.wait_for(&[r#""path":"/backup""#, r#""verified":true"#]);
    wait_until_taken(&redis);
    set.wait_for_deliveries("succeeded", 2);
    assert_eq!(receiver.lines().len(), 2, "{:?}", receiver.lines());
}

#[test]
fn curl_pushes_one_event_and_many() {
    let set = Set::embedded();
    let receiver = set.listen("globex");
    let _host = set.site.serve();
    let url = format!("http://127.0.0.1:{}", set.site.port);
    let push = example("producers/http.sh");
    let mut one = Command::new(&push);
    one.args(["globex", "order.created", "one", r#"{"n":1}"#]);
    done(one.env("EVENTS_URL", &url));
    receiver.wait_for(&[r#"{\"n\":1}"#, r#""verified":true"#]);
    let lines = set.site.path("events.ndjson");
    std::fs::write(
        &lines,
        "{\"tenant\":\"globex\",\"type\":\"order.created\",\"id\":\"two\",\"payload\":{\"n\":2}}\n\
         {\"tenant\":\"globex\",\"type\":\"order.created\",\"id\":\"three\",\"payload\":{\"n\":3}}\n",
    )
    .unwrap();
    let mut many = Command::new(&push);
    many.arg("-")
        .stdin(std::fs::File::open(&lines).unwrap())
        .env("EVENTS_URL", &url);
    done(&mut many);
    receiver.wait_for(&[r#"{\"n\":2}"#, r#""verified":true"#]);
    receiver.wait_for(&[r#"{\"n\":3}"#, r#""verified":true"#]);
}

#[test]
fn plugins_added_to_the_example_tenant_take_effect_while_it_runs() {
    let set = Set::embedded();
    let receiver = set.listen("acme");
    let _host = set.site.serve();
    let push = |id: &str, region: &str| {
        let payload = format!(r#"{{"id":"{id}","card":"4242","region":"{region}"}}"#);
        let event = ["--type", "invoice.paid", "--id", id, "--payload", &payload];
        let words = [&["event", "push", "--tenant", "acme"], &event[..]].concat();
        let pushed = set.site.run(&words);
        assert!(pushed.status.success(), "{pushed:?}");
    };
    push("before", "us");
    receiver.wait_for(&["before", "4242", r#""path":"/hooks""#]);
    receiver.wait_for(&["before", "4242", r#""path":"/backup""#]);

    // The manifests are in the folder already, as the README says.
    let plugins = set.site.path("tenants/acme/plugins");
    for (built, name) in [("redact", "10-redact"), ("route", "20-route")] {
        let aside = plugins.join(".incoming");
        std::fs::copy(component(&format!("{built}.wasm")), &aside).unwrap();
        std::fs::rename(&aside, plugins.join(name).with_extension("wasm")).unwrap();
    }
    wait_for("both plugins to serve", || {
        let listed = set.site.json(&["plugins", "list"]);
        let listed = listed.as_array()?;
        let serving = listed.iter().filter(|plugin| plugin["state"] == "serving");
        (serving.count() == 2).then_some(())
    });
    push("europe", "eu");
    push("america", "us");
    let to_main = receiver.wait_for(&["europe", "[redacted]", r#"\"schema_version\":\"2\""#]);
    assert!(to_main.contains(r#""path":"/hooks""#), "{to_main}");
    let to_backup = receiver.wait_for(&["america", "[redacted]"]);
    assert!(to_backup.contains(r#""path":"/backup""#), "{to_backup}");
    set.wait_for_deliveries("succeeded", 4);
    assert_eq!(receiver.lines().len(), 4);
}

/// An event pushed by one example arrives, once, at another, which verifies it; with another secret
/// it refuses it.
fn pushes_and_verifies(producer: impl Fn() -> Command, receiver: impl Fn() -> Command) {
    let redis = RedisServer::start().unwrap();
    let set = Set::on_redis(&redis);
    let _host = set.site.serve();
    let push = |id: &str| {
        let payload = format!(r#"{{"invoice":"{id}","total":12.5}}"#);
        let mut push = producer();
        push.args(["acme", "invoice.paid", id, &payload]);
        let said = done(push.env("REDIS_URL", redis.url()));
        assert!(said.contains(&format!("pushed {id} as ")), "{said}");
    };
    {
        let mut receive = receiver();
        receive.args(["--port", &set.acme.to_string()]);
        let receiver = Program::start(receive, set.acme);
        push("inv_1");
        push("inv_1");
        receiver.wait_for(&["verified whdel_", " on /hooks: ", "inv_1"]);
        // In the envelope.
        receiver.wait_for(&["verified whdel_", " on /backup: ", "inv_1", "invoice.paid"]);
        wait_until_taken(&redis);
        set.wait_for_deliveries("succeeded", 2);
        // The first line says where it listens.
        assert_eq!(receiver.lines().len(), 3, "{:?}", receiver.lines());
    }
    let mut stranger = receiver();
    stranger.args(["--port", &set.acme.to_string()]);
    stranger.arg("--secret").arg(example("secrets/globex/main"));
    let stranger = Program::start(stranger, set.acme);
    push("inv_2");
    stranger.wait_for(&["refused: "]);
    set.wait_for_deliveries("dead_letter", 2);
    let verified = stranger
        .lines()
        .iter()
        .any(|line| line.contains("verified"));
    assert!(!verified, "{:?}", stranger.lines());
}

/// A copy of the examples, on ports of its own.
struct Set {
    site: Site,
    acme: u16,
    globex: u16,
}

impl Set {
    fn on_redis(redis: &RedisServer) -> Self {
        Self::copied(&[("redis://127.0.0.1:6379", &redis.url())])
    }

    fn embedded() -> Self {
        Self::copied(&[("kind = \"redis\"", "kind = \"embedded\"")])
    }

    fn copied(changes: &[(&str, &str)]) -> Self {
        let site = Site {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
        };
        let (acme, globex) = (free_port(), free_port());
        let port = |port: u16| format!("127.0.0.1:{port}");
        copy(&example("secrets"), &site.path("secrets"), &[]);
        copy(
            &example("tenants"),
            &site.path("tenants"),
            &[(&port(9000), &port(acme)), (&port(9001), &port(globex))],
        );
        let config = std::fs::read_to_string(example("wasmhook.toml")).unwrap();
        let listen = port(site.port);
        let config = changes
            .iter()
            .chain(&[("127.0.0.1:8080", listen.as_str())])
            .fold(config, |config, (from, to)| {
                assert!(config.contains(from), "examples/wasmhook.toml lacks {from}");
                config.replace(from, to)
            });
        site.write("wasmhook.toml", &config);
        Self { site, acme, globex }
    }

    /// `wasmhook listen` as the receiver of a tenant.
    fn listen(&self, tenant: &str) -> Program {
        let port = if tenant == "acme" {
            self.acme
        } else {
            self.globex
        };
        let mut listen = Command::new(env!("CARGO_BIN_EXE_wasmhook"));
        listen
            .args(["listen", "--json", "--port", &port.to_string()])
            .arg("--secret-file")
            .arg(example(&format!("secrets/{tenant}/main")));
        Program::start(listen, port)
    }

    /// Waits until so many deliveries of acme are in a state.
    fn wait_for_deliveries(&self, state: &str, count: usize) {
        wait_for(&format!("{count} deliveries {state}"), || {
            (self.site.deliveries("acme", state).len() == count).then_some(())
        });
    }
}

/// Waits until the host has taken every event that was pushed.
fn wait_until_taken(redis: &RedisServer) {
    wait_for("the stream to be emptied", || {
        (redis_cli(redis.port(), &["XLEN", "wasmhook:events"]).trim() == "0").then_some(())
    });
}

/// Copies text files of a folder at any depth, with replacements.
fn copy(from: &Path, to: &Path, changes: &[(&str, &str)]) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, changes);
        } else if entry
            .path()
            .extension()
            .is_none_or(|ending| ending != "wasm")
        {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let text = changes
                .iter()
                .fold(text, |text, (from, to)| text.replace(from, to));
            std::fs::write(target, text).unwrap();
        }
    }
}

/// A running receiver and the lines it printed. Killed when dropped.
struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts it and waits until it listens.
    fn start(mut command: Command, port: u16) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let mut program = Self { child, lines };
        wait_for("the receiver to listen", || {
            let ended = program.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {:?}", program.lines());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        program
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line with all of these words.
    fn wait_for(&self, words: &[&str]) -> String {
        wait_for(&format!("a line with {words:?}"), || {
            let holds = |line: &String| words.iter().all(|word| line.contains(word));
            self.lines().into_iter().find(holds)
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that must succeed, and gives what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A file or folder that `cargo xtask test` installs.
fn installed(path: &Path) -> &Path {
    assert!(
        path.exists(),
        "{} is missing; run the tests by `cargo xtask test`",
        path.display()
    );
    path
}

fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}
