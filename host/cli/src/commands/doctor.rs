//! `wasmhook doctor`

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::Path;

use serde::Serialize;
use wasmhook_runtime::Services;
use wasmhook_store::Store;
use wasmhook_store::embedded::DATABASE;
use wasmhook_tenants::Tenants;

use crate::config::{Config, StoreKind};
use crate::exit::{Coded, Exit};
use crate::{host, open_files, output, stores};

/// Below this a disk counts as nearly full.
const LITTLE_SPACE: u64 = 1 << 30;
/// Files a host keeps open besides its connections to receivers and its plugins: store, listeners, watches.
const OTHER_FILES: u64 = 256;

/// How one look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// It works, but may not be what the operator wants.
    Warning,
    /// Events or deliveries suffer from it.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    subject: &'static str,
    words: String,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, subject: &'static str, exit: Exit, words: String) {
        self.0.push(Finding {
            verdict,
            subject,
            words,
            exit,
        });
    }

    fn good(&mut self, subject: &'static str, words: impl Into<String>) {
        self.add(Verdict::Good, subject, Exit::Failure, words.into());
    }

    fn warning(&mut self, subject: &'static str, words: impl Into<String>) {
        self.add(Verdict::Warning, subject, Exit::Failure, words.into());
    }

    fn wrong(&mut self, subject: &'static str, exit: Exit, words: impl Into<String>) {
        self.add(Verdict::Wrong, subject, exit, words.into());
    }
}

/// Looks at all that a host stands on, changing nothing.
pub(crate) async fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    configuration(config, &mut findings);
    tenants(config, &mut findings);
    let plugins = plugins(config, &mut findings).await;
    store(config, &mut findings).await;
    machine(config, plugins, &mut findings);
    running(config, &mut findings).await;
    let findings = findings.0;
    if json {
        output::json(&findings)?;
    } else {
        let rows = findings
            .iter()
            .map(|finding| {
                let verdict = match finding.verdict {
                    Verdict::Good => "good",
                    Verdict::Warning => "warning",
                    Verdict::Wrong => "WRONG",
                };
                [
                    verdict.to_owned(),
                    finding.subject.to_owned(),
                    finding.words.clone(),
                ]
            })
            .collect();
        output::table(
            ["verdict", "subject", "finding"],
            rows,
            "nothing was looked at",
        );
    }
    let mut wrong = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Wrong);
    match wrong.next() {
        None => Ok(()),
        Some(first) => Err(Coded::new(
            first.exit,
            match wrong.count() {
                0 => "1 of these is wrong".to_owned(),
                more => format!("{} of these are wrong", more + 1),
            },
        )),
    }
}

fn configuration(config: &Config, findings: &mut Findings) {
    const SUBJECT: &str = "configuration";
    match &config.file {
        Some(file) => findings.good(SUBJECT, file.display().to_string()),
        None => findings.good(SUBJECT, "no file; defaults and environment"),
    }
    match config.catalog() {
        Ok(catalog) if catalog.types().count() == 0 => findings.wrong(
            "catalog",
            Exit::Configuration,
            "it is empty, so every event is refused; name the event types in catalog.types",
        ),
        Ok(catalog) => findings.good(
            "catalog",
            output::count(catalog.types().count(), "event type"),
        ),
        Err(error) => findings.wrong("catalog", Exit::Configuration, format!("{error:#}")),
    }
    if config.delivery.allow_private_addresses {
        findings.warning(
            "addresses",
            "delivery.allow_private_addresses is on: tenants can have requests sent into your own network",
        );
    }
}

fn tenants(config: &Config, findings: &mut Findings) {
    const SUBJECT: &str = "tenants";
    let tenants = match host::tenants(config) {
        Ok(tenants) => tenants,
        Err(error) => {
            findings.wrong(SUBJECT, Exit::Configuration, format!("{error:#}"));
            return;
        }
    };
    let (mut endpoints, before) = (0, findings.0.len());
    for problem in tenants.problems() {
        findings.wrong(SUBJECT, Exit::Configuration, problem.to_string());
    }
    for tenant in tenants.ids() {
        for endpoint in tenants.endpoints(&tenant).iter() {
            endpoints += 1;
            if let Err(error) = tenants.secrets_for(endpoint) {
                findings.wrong(
                    SUBJECT,
                    Exit::Configuration,
                    format!("endpoint {} of tenant {tenant}: {error}", endpoint.id),
                );
            }
        }
    }
    if findings.0.len() == before {
        let count = tenants.ids().len();
        findings.good(
            SUBJECT,
            format!(
                "{count} with {}, whose secrets are there",
                output::count(endpoints, "endpoint")
            ),
        );
    }
    in_flight(config, &tenants, findings);
}

/// How much may be in flight: what is due beyond that waits, and nothing is wrong.
fn in_flight(config: &Config, tenants: &Tenants, findings: &mut Findings) {
    let worker = &config.worker;
    let one_tenant = match worker.max_per_tenant {
        Some(most) => format!("{most} for one tenant (worker.max_per_tenant)"),
        None => {
            "any number for one tenant, which alone can use all hosts (no worker.max_per_tenant)"
                .to_owned()
        }
    };
    let mut words = format!(
        "{} on this host (worker.concurrency); over all hosts {} for one endpoint (worker.max_per_endpoint), {one_tenant}",
        output::count(worker.concurrency, "delivery"),
        worker.max_per_endpoint
    );
    let own = tenants.quotas().into_iter().filter(|(_, quota)| {
        let most = quota.max_in_flight.map(NonZeroU32::get);
        most.is_some() && most != worker.max_per_tenant
    });
    match own.count() {
        0 => {}
        count => {
            let _ = write!(words, "; tenants with another max_in_flight: {count}");
        }
    }
    findings.good("in flight", words);
}

/// Looks at the plugins, and says how many there are.
async fn plugins(config: &Config, findings: &mut Findings) -> usize {
    const SUBJECT: &str = "plugins";
    let plugins = match host::plugins(config, false, Services::default()) {
        Ok(plugins) => plugins,
        Err(error) => {
            findings.wrong(SUBJECT, Exit::Configuration, format!("{error:#}"));
            return 0;
        }
    };
    let mut problems = plugins.rescan().await.problems;
    plugins.settled().await;
    let status = plugins.status();
    problems.extend(status.iter().filter_map(|plugin| {
        let reason = plugin.refused.as_ref()?;
        Some(format!(
            "{} of tenant {}: {reason}",
            plugin.name, plugin.tenant
        ))
    }));
    if problems.is_empty() {
        findings.good(SUBJECT, format!("{} load", status.len()));
    }
    for problem in problems {
        findings.wrong(SUBJECT, Exit::Refused, problem);
    }
    status.len()
}

async fn store(config: &Config, findings: &mut Findings) {
    const SUBJECT: &str = "store";
    let folder = config.path(&config.store.path);
    if config.store.kind == StoreKind::Embedded && !folder.join(DATABASE).exists() {
        let words = format!(
            "nothing is in {} yet; a host makes its store when it first starts",
            folder.display()
        );
        findings.warning(SUBJECT, words);
        return;
    }
    let opened = match stores::open(config, false).await {
        Ok(stores) => look(&*stores.store, config, findings).await,
        Err(error) => Err(error),
    };
    if let Err(error) = opened {
        findings.wrong(SUBJECT, crate::exit::code(&error), format!("{error:#}"));
    }
}

async fn look(store: &dyn Store, config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    const SUBJECT: &str = "store";
    store.ping().await?;
    let kind = match config.store.kind {
        StoreKind::Embedded => "the embedded store",
        StoreKind::Redis => "Redis",
    };
    findings.good(SUBJECT, format!("{kind} answers"));
    for warning in store.warnings().await? {
        findings.warning(SUBJECT, warning);
    }
    let backlog = store.backlog().await?;
    let fullness = store.fullness().await?;
    let finished = backlog.succeeded + backlog.dead_letter;
    let kept = fullness.waiting + finished;
    let mut words = format!(
        "waiting: {}; finished and kept: {finished}, of which {}",
        output::count(fullness.waiting, "delivery"),
        output::count(backlog.dead_letter, "dead letter")
    );
    if let Some(bytes) = fullness.bytes {
        let _ = write!(words, "; {} MiB", bytes >> 20);
        // Below a thousand what a store takes when it is empty hides what deliveries take.
        if kept >= 1000 {
            let each = bytes / kept;
            let _ = write!(
                words,
                ", {} per delivery, events included",
                output::count(each, "byte")
            );
        }
    }
    findings.good("queue", words);
    if backlog.stalling_endpoints > 0 {
        findings.warning(
            "queue",
            format!(
                "{} lately gave no answer in time, or failed late, and may have fewer deliveries in flight until \
                 there are answers again",
                output::count(backlog.stalling_endpoints, "endpoint")
            ),
        );
    }
    let (most, percent) = (config.intake.max_waiting, config.intake.max_memory_percent);
    if most > 0 && fullness.waiting >= most {
        findings.wrong(
            "queue",
            Exit::Failure,
            format!("it is full (intake.max_waiting is {most}): no event is taken in"),
        );
    }
    if let Some(used) = fullness.memory_percent
        && percent > 0
        && used >= percent
    {
        findings.wrong(
            "queue",
            Exit::Failure,
            format!(
                "Redis uses {used} % of its memory (intake.max_memory_percent is {percent}): no event is taken in"
            ),
        );
    }
    Ok(())
}

fn machine(config: &Config, plugins: usize, findings: &mut Findings) {
    let plugins_own = &config.plugins;
    let mut folders = vec![
        ("plugin cache", config.path(&plugins_own.cache)),
        ("plugin versions", config.path(&plugins_own.versions)),
        ("plugin logs", config.path(&plugins_own.log.folder)),
    ];
    if config.store.kind == StoreKind::Embedded {
        folders.push(("data folder", config.path(&config.store.path)));
    }
    for (subject, folder) in folders {
        match free(&folder) {
            Some(bytes) if bytes < LITTLE_SPACE => findings.warning(
                subject,
                format!(
                    "{} MiB are free on the disk of {}",
                    bytes >> 20,
                    folder.display()
                ),
            ),
            Some(bytes) => findings.good(subject, format!("{} GiB are free", bytes >> 30)),
            None => findings.good(subject, format!("{} is not there yet", folder.display())),
        }
    }
    let connections = 2 * u64::try_from(config.worker.concurrency).unwrap_or(u64::MAX / 4);
    let wanted = OTHER_FILES + connections + u64::try_from(plugins).unwrap_or(u64::MAX / 4);
    match open_files::most() {
        Some(limit) if limit < wanted => findings.warning(
            "open files",
            format!(
                "{limit} may be open, and with worker.concurrency = {} and {plugins} plugins some {wanted} can be; raise the limit (`ulimit -Hn`, `LimitNOFILE=`)",
                config.worker.concurrency
            ),
        ),
        Some(limit) => findings.good("open files", format!("{limit} may be open")),
        None => findings.good("open files", "no limit"),
    }
}

/// Bytes free on the disk of a folder, or of the nearest one above that exists.
fn free(folder: &Path) -> Option<u64> {
    let disk = folder
        .ancestors()
        .find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

async fn running(config: &Config, findings: &mut Findings) {
    let listen = config.http.listen;
    let plugins = host::get_json::<serde_json::Value>(config, "/v1/plugins").await;
    if plugins.is_some() {
        findings.good("host", format!("one serves at {listen}"));
    } else {
        findings.warning(
            "host",
            format!("none answers at {listen}; start it with `wasmhook serve`"),
        );
    }
}
