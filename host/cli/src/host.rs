//! Wiring: the rooms put together as the configuration says.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wasmhook_core::{Catalog, EndpointPolicy, RequestBuilder};
use wasmhook_delivery::{AddressPolicy, Client, ClientConfig};
use wasmhook_engine::resolve::Resolver;
use wasmhook_engine::{
    Attempter, AttempterConfig, Housekeeping, Intake, IntakeConfig, PluginHttp, PluginKeyValue,
    Pressure, PressureConfig, PressureGauge, Quotas, StreamReader, Worker, WorkerConfig,
};
use wasmhook_runtime::{Compiler, LogConfig, PluginHost, PluginHostConfig, RuntimeError, Services};
use wasmhook_server::{Api, Patience};
use wasmhook_store::{KeyValue, KeyValueQuota, Retention, Store};
use wasmhook_tenants::{FolderWatch, Tenants, TenantsConfig};

use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::monitoring;
use crate::open_files;
use crate::parts::Parts;
use crate::stores::{self, Stores};

/// How long a start waits for plugins that need compiling. Those that take longer come into service
/// when they are ready, and what would pass through them waits.
const COMPILE_WAIT: Duration = Duration::from_secs(30);
/// How often instances and code that nobody calls are given back.
const SWEEP: Duration = Duration::from_secs(5);
/// How long changes are gathered before the folders are looked at.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// A host, ready to run.
pub(crate) struct Host {
    pub(crate) rooms: Rooms,
    listener: TcpListener,
}

/// All that works behind the port.
pub(crate) struct Rooms {
    pub(crate) stores: Stores,
    pub(crate) intake: Arc<Intake>,
    pub(crate) plugins: Arc<PluginHost>,
    pub(crate) tenants: Arc<Tenants>,
    worker: Worker,
    housekeeping: Housekeeping,
    gauge: PressureGauge,
    pressure: Pressure,
    watch: FolderWatch,
    api: Api,
    metrics: PrometheusHandle,
}

/// What the operator allows of endpoint URLs.
pub(crate) fn policy(config: &Config) -> EndpointPolicy {
    EndpointPolicy {
        allow_insecure_http: config.delivery.allow_http,
    }
}

/// The runtime of plugins, with nothing loaded yet: of the host itself, or of a command that looks at
/// what a host would make of the folder. Without services it can judge plugins and start them.
pub(crate) fn plugins(
    config: &Config,
    is_host: bool,
    services: Services,
) -> anyhow::Result<PluginHost> {
    open_files::allow_all();
    let plugins = &config.plugins;
    let folders = config.plugin_folders();
    let settings = PluginHostConfig {
        global_dir: folders.global,
        cache_dir: Some(config.path(&plugins.cache)),
        cache_bytes: plugins.cache_bytes,
        versions_dir: Some(config.path(&plugins.versions)),
        versions_kept: plugins.versions_kept,
        versions_bytes: plugins.versions_bytes,
        is_host,
        rollback: plugins.rollback,
        limits: plugins.limits.clone(),
        limit_caps: plugins.limit_caps.clone(),
        loading: plugins.loading.clone(),
        compiler: compiler()?,
        reuse: plugins.reuse,
        max_concurrent_calls: plugins.concurrency,
        max_concurrent_calls_per_plugin: plugins.max_per_plugin,
        max_idle_instances: plugins.idle_instances,
        max_idle_bytes: plugins.idle_bytes,
        allowed: plugins.grants.allowed(),
        // A tool that starts a plugin to judge it leaves nothing in its tenant's log.
        logs: is_host.then(|| LogConfig {
            folder: config.path(&plugins.log.folder),
            bytes: plugins.log.bytes,
            lines_per_second: plugins.log.lines_per_second,
        }),
        services,
        host_log: plugins.host_log,
        ..PluginHostConfig::new(folders.tenants)
    };
    PluginHost::new(settings).map_err(|error| {
        let key = match &error {
            RuntimeError::GlobalFolder { .. } => "plugins.global",
            RuntimeError::Cache { .. } => "plugins.cache",
            RuntimeError::Archive { .. } => "plugins.versions",
            _ => return error.into(),
        };
        let words = format!("configuration key `{key}`: {error}");
        Coded::new(Exit::Configuration, words)
    })
}

/// What a host gives to plugins that are granted it.
pub(crate) fn services(
    config: &Config,
    key_value: Arc<dyn KeyValue>,
    client: Option<Client>,
) -> Services {
    let quota = &config.plugins.key_value;
    let quota = KeyValueQuota {
        keys: quota.keys,
        bytes: quota.bytes,
    };
    let key_value = PluginKeyValue::new(key_value, quota);
    let http = |client| Arc::new(PluginHttp::new(client, policy(config))) as _;
    Services {
        key_value: Some(Arc::new(key_value)),
        http: client.map(http),
    }
}

/// This program again, with the subcommand that compiles.
fn compiler() -> anyhow::Result<Compiler> {
    // The very file that runs, though an upgrade may have put another one in its place.
    let itself = PathBuf::from("/proc/self/exe");
    let program = if itself.exists() {
        itself
    } else {
        std::env::current_exe().context("cannot find the program to compile plugins with")?
    };
    Ok(Compiler::Child {
        program,
        arguments: vec!["compile-component".into()],
        // The allocator takes a gigabyte at once as it starts, which would be all that a compilation may
        // have: less at a time, and only what is used.
        environment: vec![
            ("MIMALLOC_ARENA_EAGER_COMMIT".into(), "0".into()),
            ("MIMALLOC_ARENA_RESERVE".into(), "65536".into()),
        ],
    })
}

/// The tenants folder, loaded.
pub(crate) fn tenants(config: &Config) -> anyhow::Result<Tenants> {
    let mut settings = TenantsConfig::new(
        config.path(&config.tenants.folder),
        config.path(&config.tenants.secrets),
    );
    settings.policy = policy(config);
    settings.default_max_in_flight = config.worker.max_per_tenant.and_then(NonZeroU32::new);
    Tenants::load(settings).map_err(|error| {
        let words = format!(
            "configuration key `tenants.folder`: {error}: {}",
            error.source
        );
        Coded::new(Exit::Configuration, words)
    })
}

/// The client of deliveries, and of what plugins ask.
pub(crate) fn client(config: &Config) -> anyhow::Result<Client> {
    Ok(Client::new(ClientConfig {
        timeout: config.delivery.timeout.0,
        response_cap: config.delivery.response_bytes,
        addresses: AddressPolicy {
            allow_private: config.delivery.allow_private_addresses,
            allowed: config.delivery.allowed_networks.clone(),
        },
        max_idle_per_host: config.worker.max_per_endpoint,
        ..ClientConfig::default()
    })?)
}

/// What builds the requests of deliveries.
pub(crate) fn requests(config: &Config) -> anyhow::Result<RequestBuilder> {
    match &config.delivery.user_agent {
        None => Ok(RequestBuilder::default()),
        Some(name) => RequestBuilder::new(name).map_err(|error| {
            Coded::new(
                Exit::Configuration,
                format!("configuration key `delivery.user_agent`: {error}"),
            )
        }),
    }
}

/// The worker, with everything that an attempt needs.
fn worker(
    config: &Config,
    tenants: &Arc<Tenants>,
    plugins: &Arc<PluginHost>,
    resolver: Resolver,
    store: &Arc<dyn Store>,
    client: Client,
) -> anyhow::Result<Worker> {
    let requests = requests(config)?;
    let attempts = AttempterConfig {
        retry: config.retry.policy(),
        requests,
        deadline: config.attempt_deadline(),
    };
    let attempter = Attempter::new(
        attempts,
        Arc::clone(tenants),
        Arc::clone(plugins),
        resolver,
        client,
        Arc::clone(store),
    );
    let settings = WorkerConfig {
        concurrency: config.worker.concurrency,
        max_per_endpoint: config.worker.max_per_endpoint,
        batch: config.worker.batch,
        lease: config.lease(),
        grace: config.worker.grace.0,
        ..WorkerConfig::default()
    };
    Ok(Worker::new(
        settings,
        Arc::clone(store),
        Arc::new(attempter),
    ))
}

impl Host {
    /// Loads tenants, takes the port, opens the store and loads plugins.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Self> {
        let catalog = config.catalog()?;
        let tenants = Arc::new(tenants(config)?);
        let mut listener = TcpListener::bind(config.http.listen)
            .await
            .map_err(|error| {
                Coded::new(
                    Exit::Failure,
                    format!(
                        "cannot listen on {}: {error}; choose another http.listen",
                        config.http.listen
                    ),
                )
            })?;
        let patience = Patience {
            finish: config.worker.grace.0,
            ..Patience::default()
        };
        let opening = Box::pin(Rooms::open(config, catalog, tenants, patience));
        let rooms = wasmhook_server::serve_start(&mut listener, patience, opening).await?;
        Ok(Self { rooms, listener })
    }

    /// The address that the API really listens on.
    pub(crate) fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Runs until `stop`, then finishes or gives back what is in flight.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let rooms = self.rooms;
        let mut parts = Parts::new(&stop);
        if let Some(stream) = &rooms.stores.stream {
            let (stream, intake) = (Arc::clone(stream), Arc::clone(&rooms.intake));
            let reader = StreamReader::new(stream, intake, rooms.pressure);
            parts.start("the reader of the stream", |stop| reader.run(stop));
        }
        parts.start("housekeeping", |stop| rooms.housekeeping.run(stop));
        parts.start("the look at the store's fullness", |stop| {
            rooms.gauge.run(stop)
        });
        let mut quotas = Quotas::new(Arc::clone(&rooms.stores.store));
        quotas.set(rooms.tenants.quotas()).await;
        let (watch, tenants, plugins) = (rooms.watch, rooms.tenants, Arc::clone(&rooms.plugins));
        parts.start("the watch over tenants", |stop| {
            follow(watch, tenants, quotas, plugins, stop)
        });
        let upkeep = rooms.metrics;
        parts.start("the upkeep of metrics", |stop| {
            monitoring::sum_up(upkeep, stop)
        });
        parts.start("the worker", |stop| rooms.worker.run(stop));
        parts.start("the HTTP API", |stop| {
            wasmhook_server::serve(self.listener, rooms.api, stop)
        });
        let ended = parts.ended().await;
        rooms.plugins.close().await;
        ended
    }
}

impl Rooms {
    async fn open(
        config: &Config,
        catalog: Catalog,
        tenants: Arc<Tenants>,
        patience: Patience,
    ) -> anyhow::Result<Self> {
        let stores = stores::open(config, true).await?;
        for warning in stores.store.warnings().await? {
            tracing::warn!("{warning}");
        }
        let client = client(config)?;
        let services = services(config, Arc::clone(&stores.key_value), Some(client.clone()));
        let plugins = Arc::new(plugins(config, true, services)?);
        let resolver = Resolver::new(Arc::clone(&tenants), Arc::clone(&plugins), policy(config));
        let intake = Arc::new(Intake::new(
            IntakeConfig {
                catalog,
                max_payload: config.intake.max_payload_bytes,
            },
            resolver.clone(),
            Arc::clone(&stores.store),
        ));
        let worker = worker(config, &tenants, &plugins, resolver, &stores.store, client)?;
        let retention = Retention {
            age: config.retention.age.0,
            count: config.retention.count,
        };
        let housekeeping = Housekeeping::new(Arc::clone(&stores.store), retention);
        let limits = PressureConfig {
            max_waiting: config.intake.max_waiting,
            max_memory_percent: config.intake.max_memory_percent,
        };
        let (gauge, pressure) = PressureGauge::new(Arc::clone(&stores.store), limits);
        let mut folders = vec![
            config.path(&config.tenants.folder),
            config.path(&config.tenants.secrets),
        ];
        folders.extend(config.plugin_folders().global);
        let watch = FolderWatch::start(&folders, DEBOUNCE, config.tenants.rescan.0)
            .context("cannot start the watch over the tenants folder")?;
        let metrics = monitoring::recorder().context("cannot set up metrics")?;
        let upkeep = metrics.clone();
        let described = Arc::clone(&plugins);
        let api = Api {
            intake: Arc::clone(&intake),
            pressure: pressure.clone(),
            store: Arc::clone(&stores.store),
            token: config.http.token.clone(),
            max_body: config.http.max_body_bytes,
            patience,
            metrics: Box::new(move || metrics.render()),
            plugins: Box::new(move || {
                serde_json::to_value(crate::commands::plugins::status(&described))
                    .unwrap_or_default()
            }),
        };
        load(&plugins).await;
        Ok(Self {
            stores,
            intake,
            plugins,
            tenants,
            worker,
            housekeeping,
            gauge,
            pressure,
            watch,
            api,
            metrics: upkeep,
        })
    }
}

/// Loads the plugins that lie in the folders, as far as that is done soon.
async fn load(plugins: &PluginHost) {
    plugins.rescan().await;
    if tokio::time::timeout(COMPILE_WAIT, plugins.settled())
        .await
        .is_err()
    {
        tracing::warn!("some plugins are still being compiled; what would pass through them waits");
    }
}

/// Takes up changes of the folders: new work sees them, work in flight does not.
async fn follow(
    mut watch: FolderWatch,
    tenants: Arc<Tenants>,
    mut quotas: Quotas,
    plugins: Arc<PluginHost>,
    stop: CancellationToken,
) {
    let mut known = Vec::new();
    let mut sweeps = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = watch.changed() => {}
            _ = sweeps.tick() => {
                plugins.sweep().await;
                continue;
            }
            () = stop.cancelled() => return,
        }
        let began = Instant::now();
        let reloaded = Arc::clone(&tenants);
        // Files are read on a thread that may block.
        if tokio::task::spawn_blocking(move || reloaded.reload())
            .await
            .is_err()
        {
            tracing::error!("reading the tenants folder failed");
        }
        quotas.set(tenants.quotas()).await;
        let report = plugins.rescan().await;
        watch.note_look(began.elapsed());
        monitoring::count_plugins(&plugins);
        if report.problems != known {
            for problem in &report.problems {
                tracing::warn!("{problem}");
            }
            known = report.problems;
        }
    }
}

/// Asks the host that runs on this configuration; `None` when none answers.
pub(crate) async fn get_json<T: serde::de::DeserializeOwned>(
    config: &Config,
    path: &str,
) -> Option<T> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .ok()?;
    let mut request = client.get(format!("http://{}{path}", config.http.listen));
    if let Some(token) = &config.http.token {
        request = request.bearer_auth(token.expose_secret());
    }
    let body = request
        .send()
        .await
        .ok()?
        .error_for_status()
        .ok()?
        .bytes()
        .await
        .ok()?;
    serde_json::from_slice(&body).ok()
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken so that it does not end the process: a file that may not grow (`ulimit -f`) is then an error of who
    /// writes it, as a full disk is.
    _file_size: Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next of either.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
