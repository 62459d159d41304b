//! What end-to-end tests act with: the real binary, a real Redis, real sockets.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take before a test fails. Generous: it bounds a hang, it measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The published sample secret of the Standard Webhooks specification.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The header of a push over HTTP.
pub const JSON: &str = "Content-Type: application/json";

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A built sample component; `cargo xtask test` builds them.
pub fn component(name: &str) -> PathBuf {
    let file = root()
        .join("plugins/target/wasm32-wasip2/release")
        .join(name);
    assert!(
        file.is_file(),
        "{} is missing; run `cargo xtask guests`",
        file.display()
    );
    file
}

/// Waits until `done` gives something.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < until, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A folder with configuration, tenants and secrets, and the binary run on it.
pub struct Site {
    pub folder: TempDir,
    pub port: u16,
}

impl Site {
    /// On the embedded store.
    pub fn embedded() -> Self {
        Self::new("[store]\nkind = \"embedded\"\n")
    }

    /// On Redis.
    pub fn redis(url: &str) -> Self {
        Self::new(&format!(
            "[store]\nkind = \"redis\"\n[redis]\nurl = \"{url}\"\nconnect_timeout = \"2s\"\n"
        ))
    }

    /// On a Redis Cluster.
    pub fn cluster(urls: &[String]) -> Self {
        Self::new(&format!(
            "[store]\nkind = \"redis\"\n[redis]\ntopology = \"cluster\"\nurls = {urls:?}\nconnect_timeout = \"20s\"\n"
        ))
    }

    fn new(store: &str) -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
        };
        std::fs::create_dir_all(site.path("tenants")).unwrap();
        site.write(
            "wasmhook.toml",
            &format!(
                "{store}[catalog]\ntypes = [\"invoice.paid\", \"order.created\"]\n[http]\nlisten = \"127.0.0.1:{}\"\n\
                 [delivery]\nallow_http = true\nallow_private_addresses = true\ntimeout = \"5s\"\n\
                 [retry]\nschedule = [\"200ms\", \"400ms\"]\n[log]\nlevel = \"debug\"\nformat = \"json\"\n",
                site.port
            ),
        );
        site
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Changes the configuration file.
    pub fn configure(&self, change: impl FnOnce(&str) -> String) {
        let config = std::fs::read_to_string(self.path("wasmhook.toml")).unwrap();
        self.write("wasmhook.toml", &change(&config));
    }

    /// Has deliveries tried often enough to outlast a plugin that is to be mended.
    pub fn try_often(&self) {
        let schedule = vec!["\"300ms\""; 60].join(",");
        self.configure(|config| config.replace("\"200ms\", \"400ms\"", &schedule));
    }

    /// Allows this machine's loopback address, and nothing else that is private.
    pub fn allow_this_machine_only(&self) {
        let allowed = "allowed_networks = [\"127.0.0.1/32\"]";
        self.configure(|config| config.replace("allow_private_addresses = true", allowed));
    }

    /// Adds an endpoint to a tenant, with the sample secret.
    pub fn endpoint(&self, tenant: &str, id: &str, url: &str, events: &str) {
        self.write(&format!("secrets/{tenant}/main"), SECRET);
        let file = format!("tenants/{tenant}/tenant.toml");
        let before = std::fs::read_to_string(self.path(&file)).unwrap_or_default();
        let endpoint = format!(
            "[[endpoints]]\nid = \"{id}\"\nurl = \"{url}\"\nsecrets = [\"main\"]\nevents = [\"{events}\"]\n"
        );
        self.write(&file, &format!("{before}{endpoint}"));
    }

    /// Puts a component in a tenant's plugin folder, whole, by a rename.
    pub fn plugin(&self, tenant: &str, name: &str, component: &Path, manifest: &str) {
        self.write(&format!("tenants/{tenant}/plugins/{name}.toml"), manifest);
        let aside = self.path(&format!("tenants/{tenant}/plugins/.incoming"));
        std::fs::copy(component, &aside).unwrap();
        std::fs::rename(
            &aside,
            self.path(&format!("tenants/{tenant}/plugins/{name}.wasm")),
        )
        .unwrap();
    }

    /// The binary with this site's configuration.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmhook"));
        command
            .args(words)
            .arg("--config")
            .arg(self.path("wasmhook.toml"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command with `--json` that must succeed, and reads what it printed.
    pub fn json(&self, words: &[&str]) -> Value {
        let mut words = words.to_vec();
        words.push("--json");
        let output = self.run(&words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The deliveries of a tenant in a state.
    pub fn deliveries(&self, tenant: &str, state: &str) -> Vec<Value> {
        let words = [
            "deliveries",
            "list",
            "--tenant",
            tenant,
            "--state",
            state,
            "--limit",
            "100000",
        ];
        self.json(&words)["deliveries"].as_array().unwrap().clone()
    }

    /// Starts a host and waits until it is ready.
    pub fn serve(&self) -> Host {
        let mut child = self
            .command(&["serve"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&log);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut host = Host { child, log };
        wait_for("the host to be ready", || {
            if let Some(status) = host.child.try_wait().unwrap() {
                panic!("the host ended with {status}: {}", host.log());
            }
            http(self.port, "GET", "/readyz", &[], "").filter(|(status, _)| *status == 200)
        });
        host
    }
}

/// A running host. Killed when dropped.
pub struct Host {
    pub child: Child,
    log: Arc<Mutex<String>>,
}

impl Host {
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Stops in good order; gives the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("-TERM");
        wait_for("the host to stop", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `wasmhook listen`: a receiver that verifies with the published library.
pub struct Listener {
    child: Child,
    pub port: u16,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Listener {
    pub fn start(status: u16) -> Self {
        Self::on(free_port(), status)
    }

    pub fn on(port: u16, status: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wasmhook"))
            .args([
                "listen",
                "--json",
                "--port",
                &port.to_string(),
                "--status",
                &status.to_string(),
            ])
            .env("WASMHOOK_LISTEN_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                sink.lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap());
            }
        });
        wait_for("the receiver", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { child, port, lines }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// What arrived so far.
    pub fn arrived(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until so many different deliveries arrived and verified.
    pub fn wait_for_deliveries(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} deliveries"), || {
            let arrived = self.arrived();
            let mut ids: Vec<_> = arrived.iter().map(|line| line["id"].to_string()).collect();
            ids.sort();
            ids.dedup();
            (ids.len() >= count).then_some(arrived)
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP exchange by hand; `None` when nobody listens.
pub fn http(
    port: u16,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Option<(u16, String)> {
    let answer = exchange(port, method, path, headers, body)?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// [`http`] with the head of the answer.
pub fn exchange(
    port: u16,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("Content-Length: ");
    request.push_str(&body.len().to_string());
    request.push_str("\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// An event as producers write it.
pub fn event(tenant: &str, kind: &str, id: &str, payload: &Value) -> String {
    json!({"tenant": tenant, "type": kind, "id": id, "payload": payload}).to_string()
}

/// Pushes an event of the type `invoice.paid` over HTTP; it must be taken in.
pub fn push(site: &Site, tenant: &str, id: &str, payload: &Value) {
    let event = event(tenant, "invoice.paid", id, payload);
    let (status, answer) = http(site.port, "POST", "/v1/events", &[JSON], &event).unwrap();
    assert_eq!(status, 202, "{answer}");
}

/// Pushes lines of NDJSON with `wasmhook event push`.
pub fn push_lines(site: &Site, lines: &str) -> Output {
    push_lines_with(site, &[], lines)
}

/// [`push_lines`] with more words.
pub fn push_lines_with(site: &Site, words: &[&str], lines: &str) -> Output {
    let mut command = site.command(&[&["event", "push", "--json"], words].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// `redis-cli` against a test's server.
pub fn redis_cli(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
