//! The stage: a host, tenants on disk, a receiver, and what is known of each delivery.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wasmhook_core::{DeliveryId, DeliveryState, EndpointId, EventId, Outcome, TenantId, delivery};
use wasmhook_store::{Filter, Record, Store};

use crate::args::Global;
use crate::config::Config;
use crate::host::Host;
use crate::made_up;
use crate::output;
use crate::receiver::{self, Arrival};

/// How long a stage waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says one line of the story.
pub(crate) fn say(words: &str) {
    output::line(words);
}

/// Everything the demo acts with.
pub(crate) struct Stage {
    folder: TempDir,
    store: Arc<dyn Store>,
    client: reqwest::Client,
    url: String,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    arrived: HashMap<String, Vec<Arrival>>,
    expected: HashMap<String, Timestamp>,
    repaired: Arc<AtomicBool>,
    replaced: Option<Instant>,
    replaced_at: Option<Timestamp>,
    events: usize,
    stop: CancellationToken,
    host: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// How it went.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    events: usize,
    requests: usize,
    verified: usize,
    pub(crate) unverified: usize,
    succeeded: u64,
    dead_letters: u64,
    pub(crate) missing: usize,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
}

impl Summary {
    pub(crate) fn print(&self) {
        say("\nSummary");
        say(&format!("   events accepted        {}", self.events));
        say(&format!(
            "   requests received      {}, {} verified",
            self.requests, self.verified
        ));
        say(&format!(
            "   deliveries             {} succeeded, {} dead letters, {} missing",
            self.succeeded, self.dead_letters, self.missing
        ));
        say(&format!(
            "   push to arrival        p50 {:.1} ms, p99 {:.1} ms",
            self.latency_p50_ms, self.latency_p99_ms
        ));
    }
}

impl Stage {
    /// Writes the tenants, starts the receiver and the host.
    pub(crate) async fn set(components: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("wasmhook-demo-")
            .tempdir()?;
        let secret = made_up::secret();
        let repaired = Arc::new(AtomicBool::new(false));
        let answers = Arc::clone(&repaired);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (receiver, arrivals) = receiver::start(
            listener,
            vec![secret.clone()],
            Arc::new(move |arrival| {
                if arrival.path == "/globex/flaky" && !answers.load(Ordering::Relaxed) {
                    503
                } else {
                    204
                }
            }),
        )?;
        write_tenants(
            folder.path(),
            components,
            &secret,
            &format!("http://{receiver}"),
        )?;
        let config = Config::load(&Global {
            config: Some(folder.path().join("wasmhook.toml")),
            set: Vec::new(),
            json: false,
        })?;
        let host = Host::start(&config).await?;
        say(&format!(
            "wasmhook serves on http://{}, on its embedded store in {}",
            host.address()?,
            folder.path().display()
        ));
        say(&format!(
            "a receiver that verifies signatures listens on http://{receiver}\n"
        ));
        let stop = CancellationToken::new();
        let url = format!("http://{}/v1/events", host.address()?);
        let store = Arc::clone(&host.rooms.stores.store);
        let host = tokio::spawn(host.run(stop.clone()));
        Ok(Self {
            folder,
            store,
            client: reqwest::Client::builder().no_proxy().build()?,
            url,
            arrivals,
            arrived: HashMap::new(),
            expected: HashMap::new(),
            repaired,
            replaced: None,
            replaced_at: None,
            events: 0,
            stop,
            host,
        })
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Makes the failing receiver answer 204 from now on.
    pub(crate) fn repair(&self) {
        self.repaired.store(true, Ordering::Relaxed);
    }

    /// Pushes one event over HTTP and gives status and answer.
    pub(crate) async fn push(&mut self, event: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json");
        let response = request.body(serde_json::to_vec(event)?).send().await?;
        let status = response.status().as_u16();
        if status == 202 {
            self.events += 1;
        }
        Ok((status, serde_json::from_slice(&response.bytes().await?)?))
    }

    /// Pushes one event that is expected to arrive at an endpoint.
    pub(crate) async fn push_accepted(
        &mut self,
        event: &Value,
        endpoint: &str,
    ) -> anyhow::Result<()> {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let id = delivery_id(&text("tenant"), &text("id"), endpoint)?;
        self.expected.insert(id.to_string(), Timestamp::now());
        let (status, answer) = self.push(event).await?;
        if status != 202 {
            bail!("an event was answered with {status}: {answer}");
        }
        Ok(())
    }

    /// Waits for the delivery of an event to an endpoint.
    pub(crate) async fn arrival(
        &mut self,
        tenant: &str,
        event: &str,
        endpoint: &str,
    ) -> anyhow::Result<Arrival> {
        let id = delivery_id(tenant, event, endpoint)?.to_string();
        let until = Instant::now() + PATIENCE;
        loop {
            self.gather();
            if let Some(arrival) = self.arrived.get(&id).and_then(|all| all.first()) {
                return Ok(arrival.clone());
            }
            if Instant::now() > until {
                bail!("the delivery {id} did not arrive");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn gather(&mut self) {
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.arrived
                .entry(arrival.header("webhook-id").to_owned())
                .or_default()
                .push(arrival);
        }
    }

    /// Waits until a delivery is in a state.
    pub(crate) async fn wait_for_state(
        &self,
        tenant: &str,
        event: &str,
        endpoint: &str,
        state: DeliveryState,
    ) -> anyhow::Result<Record> {
        let id = delivery_id(tenant, event, endpoint)?;
        let tenant = TenantId::new(tenant)?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(record) = self.store.get(&tenant, &id).await?
                && record.delivery.state == state
            {
                return Ok(record);
            }
            if Instant::now() > until {
                bail!("the delivery {id} did not become {state}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Puts another component in a plugin's place, as a tenant would: whole, by a rename.
    pub(crate) fn replace_plugin(
        &mut self,
        component: &Path,
        tenant: &str,
        plugin: &str,
    ) -> anyhow::Result<()> {
        let folder = self
            .folder
            .path()
            .join("tenants")
            .join(tenant)
            .join("plugins");
        let aside = folder.join(".incoming");
        std::fs::copy(component, &aside)?;
        std::fs::rename(&aside, folder.join(plugin))?;
        self.replaced = Some(Instant::now());
        self.replaced_at = Some(Timestamp::now());
        Ok(())
    }

    /// Waits for the stream's deliveries and counts them by the version that made them.
    pub(crate) async fn versions(
        &mut self,
        count: usize,
    ) -> anyhow::Result<(usize, usize, Duration)> {
        let until = Instant::now() + PATIENCE;
        let flow = loop {
            self.gather();
            let flow: Vec<_> = self
                .arrived
                .values()
                .flatten()
                .filter(|arrival| arrival.path == "/initech/main")
                .collect();
            if flow.len() >= count {
                break flow;
            }
            if Instant::now() > until {
                bail!("{} of {count} deliveries arrived", flow.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let is_new = |arrival: &&&Arrival| !arrival.header("x-region").is_empty();
        let new = flow.iter().filter(is_new).count();
        let first = flow.iter().filter(is_new).map(|arrival| arrival.at).min();
        let (Some(first), Some(replaced)) = (first, self.replaced_at) else {
            bail!("no delivery was made by the new version");
        };
        let took = Duration::try_from(first.duration_since(replaced)).unwrap_or_default();
        Ok((flow.len() - new, new, took))
    }

    /// Attempts of a tenant's deliveries that were neither accepted nor skipped.
    pub(crate) async fn failed_attempts(&self, tenant: &str) -> anyhow::Result<usize> {
        let tenant = TenantId::new(tenant)?;
        let (mut failed, mut cursor) = (0, None);
        loop {
            let filter = Filter {
                tenant: tenant.clone(),
                state: None,
                cursor,
                limit: 500,
            };
            let page = self.store.list(&filter).await?;
            let attempts = page.records.iter().flat_map(|record| &record.attempts);
            let fine = [Outcome::Accepted, Outcome::Skipped];
            failed += attempts
                .filter(|attempt| !fine.contains(&attempt.outcome))
                .count();
            cursor = page.next;
            if cursor.is_none() {
                return Ok(failed);
            }
        }
    }

    /// Stops the host in good order and sums up.
    pub(crate) async fn close(mut self) -> anyhow::Result<Summary> {
        self.stop.cancel();
        self.host.await.context("the host")??;
        self.arrivals.close();
        while let Some(arrival) = self.arrivals.recv().await {
            self.arrived
                .entry(arrival.header("webhook-id").to_owned())
                .or_default()
                .push(arrival);
        }
        let requests: Vec<_> = self.arrived.values().flatten().collect();
        let verified = requests
            .iter()
            .filter(|arrival| arrival.verified.is_ok())
            .count();
        let accepted = |id: &String| {
            self.arrived
                .get(id)
                .and_then(|all| all.iter().find(|arrival| arrival.status < 300))
        };
        let mut latencies: Vec<f64> = self
            .expected
            .iter()
            .filter(|(id, _)| self.arrived.get(*id).is_some_and(|all| all.len() == 1))
            .filter_map(|(id, pushed)| {
                Some(accepted(id)?.at.duration_since(*pushed).as_secs_f64() * 1000.0)
            })
            .collect();
        latencies.sort_by(f64::total_cmp);
        let at = |share: usize| {
            latencies
                .get(latencies.len().saturating_sub(1) * share / 100)
                .copied()
                .unwrap_or(f64::NAN)
        };
        let backlog = self.store.backlog().await?;
        Ok(Summary {
            events: self.events,
            requests: requests.len(),
            verified,
            unverified: requests.len() - verified,
            succeeded: backlog.succeeded,
            dead_letters: backlog.dead_letter,
            missing: self
                .expected
                .keys()
                .filter(|id| accepted(id).is_none())
                .count(),
            latency_p50_ms: at(50),
            latency_p99_ms: at(99),
        })
    }
}

fn delivery_id(tenant: &str, event: &str, endpoint: &str) -> anyhow::Result<DeliveryId> {
    Ok(delivery::default_id(
        &TenantId::new(tenant)?,
        &EventId::new(event)?,
        &EndpointId::new(endpoint)?,
    ))
}

/// Three tenants: acme with a resolver and a transform, globex without plugins and with a failing
/// receiver, initech whose plugin is replaced.
fn write_tenants(
    folder: &Path,
    components: &Path,
    secret: &str,
    receiver: &str,
) -> anyhow::Result<()> {
    let write = |path: &str, text: &str| -> anyhow::Result<()> {
        let path: PathBuf = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let endpoint = |tenant: &str, id: &str, events: &str| {
        format!(
            "[[endpoints]]\nid = \"{id}\"\nurl = \"{receiver}/{tenant}/{id}\"\nsecrets = [\"main\"]\nevents = [\"{events}\"]\n\n"
        )
    };
    write(
        "wasmhook.toml",
        r#"[catalog]
types = ["invoice.paid", "order.created"]
[http]
listen = "127.0.0.1:0"
[delivery]
allow_http = true
allow_private_addresses = true
[retry]
schedule = ["300ms", "600ms"]
"#,
    )?;
    for tenant in ["acme", "globex", "initech"] {
        write(&format!("secrets/{tenant}/main"), secret)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let file = folder.join(format!("secrets/{tenant}/main"));
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
        }
    }
    let acme = endpoint("acme", "eu", "invoice.paid") + &endpoint("acme", "us", "invoice.paid");
    write("tenants/acme/tenant.toml", &acme)?;
    write(
        "tenants/acme/plugins/10-route.toml",
        "[config]\nfield = \"region\"\n",
    )?;
    write(
        "tenants/acme/plugins/20-redact.toml",
        "[config]\nfields = \"card\"\n",
    )?;
    write(
        "tenants/globex/tenant.toml",
        &endpoint("globex", "flaky", "order.created"),
    )?;
    let initech = endpoint("initech", "main", "order.created")
        + &endpoint("initech", "eu-archive", "invoice.paid");
    write("tenants/initech/tenant.toml", &initech)?;
    write(
        "tenants/initech/plugins/10-shape.toml",
        "[config]\nfields = \"email\"\n",
    )?;
    for (component, place) in [
        ("route.wasm", "acme/plugins/10-route.wasm"),
        ("redact.wasm", "acme/plugins/20-redact.wasm"),
        ("redact.wasm", "initech/plugins/10-shape.wasm"),
    ] {
        std::fs::copy(
            components.join(component),
            folder.join("tenants").join(place),
        )?;
    }
    Ok(())
}
