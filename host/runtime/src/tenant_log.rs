//! What the plugins of each tenant log: a file of the tenant's own, bounded in size and in lines a second.
//!
//! Nobody waits for it. Lines go through a bounded queue to one thread; what finds no room there, or is
//! more than the tenant may log, is dropped and counted, and the next line that is kept says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Lines of all tenants that wait to be written.
const QUEUE: usize = 4096;
/// Lines written in one go.
const BATCH: usize = 512;
/// A disk that is full is so for all tenants.
const TOLD_APART: Duration = Duration::from_secs(10);

/// Settings of the tenants' logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Holds a folder for each tenant. The words in it are the tenants', so it is made for the host's
    /// own user alone.
    pub folder: PathBuf,
    /// Bytes kept of each tenant, in two files of which the older goes when the newer is full.
    pub bytes: u64,
    /// Lines kept of each tenant in a second, and at once after a second of silence.
    pub lines_per_second: u32,
}

/// One line of a tenant's log, as it is in the file: JSON, one object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was logged.
    pub at: jiff::Timestamp,
    /// By which plugin.
    pub plugin: String,
    /// For an event of which tenant, if the plugin is the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The guest's words: printable.
    pub message: String,
}

/// The files of a tenant's log, the older one first. Either may be missing.
pub fn log_files(folder: &Path, tenant: &str) -> [PathBuf; 2] {
    ["older.ndjson", "log.ndjson"].map(|name| folder.join(tenant).join(name))
}

/// Removes a tenant's log, and tells how many bytes that was. A host that runs begins a new one with the
/// tenant's next line.
pub fn forget_log(folder: &Path, tenant: &str) -> io::Result<u64> {
    let sizes = log_files(folder, tenant).map(|file| fs::metadata(file).map_or(0, |of| of.len()));
    match fs::remove_dir_all(folder.join(tenant)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(sizes.iter().sum()),
    }
}

/// A line on its way to its file.
struct Entry {
    tenant: Arc<str>,
    line: LogLine,
}

/// Fewer tenants than this are not worth looking through.
const FEW: usize = 64;

#[derive(Default)]
struct Tenants {
    logs: HashMap<Arc<str>, Weak<TenantLog>>,
    /// How many were in use when they were looked through last.
    kept: usize,
}

/// The logs of all tenants.
pub(crate) struct TenantLogs {
    tenants: Mutex<Tenants>,
    queue: Option<SyncSender<Entry>>,
    rate: u32,
}

impl TenantLogs {
    /// Start the thread that writes, if anything is to be kept.
    pub(crate) fn start(config: Option<LogConfig>) -> io::Result<Self> {
        let rate = config.as_ref().map_or(0, |config| config.lines_per_second);
        let queue = config
            .filter(|config| config.bytes > 0 && config.lines_per_second > 0)
            .map(|config| {
                let (sender, receiver) = sync_channel(QUEUE);
                thread::Builder::new()
                    .name("plugin-logs".to_owned())
                    .spawn(move || write_all(&config, &receiver))?;
                Ok::<_, io::Error>(sender)
            })
            .transpose()?;
        Ok(Self {
            tenants: Mutex::default(),
            queue,
            rate,
        })
    }

    /// The log of a tenant; none if logs are not kept.
    pub(crate) fn of(&self, tenant: &Arc<str>) -> Option<Arc<TenantLog>> {
        let queue = self.queue.clone()?;
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = tenants.logs.get(tenant).and_then(Weak::upgrade) {
            return Some(log);
        }
        // Once for each doubling: at every tenant a start would look at all tenants for each tenant.
        if tenants.logs.len() >= 2 * tenants.kept.max(FEW) {
            tenants.logs.retain(|_, log| log.strong_count() > 0);
            tenants.kept = tenants.logs.len();
        }
        let log = Arc::new(TenantLog {
            tenant: Arc::clone(tenant),
            queue,
            allowance: Mutex::new(Allowance::new(self.rate)),
        });
        tenants
            .logs
            .insert(Arc::clone(tenant), Arc::downgrade(&log));
        Some(log)
    }
}

/// The log of one tenant, shared by its plugins.
pub(crate) struct TenantLog {
    tenant: Arc<str>,
    queue: SyncSender<Entry>,
    allowance: Mutex<Allowance>,
}

impl TenantLog {
    /// Keep a line, if there is room: said for `tenant`, whose log this is unless the plugin is the
    /// operator's.
    pub(crate) fn write(&self, tenant: &str, plugin: &str, level: &str, message: String) {
        let mut allowance = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !allowance.take(Instant::now()) {
            allowance.dropped += 1;
            return;
        }
        let entry = |level: &str, message| Entry {
            tenant: Arc::clone(&self.tenant),
            line: LogLine {
                at: jiff::Timestamp::now(),
                plugin: plugin.to_owned(),
                tenant: (*tenant != *self.tenant).then(|| tenant.to_owned()),
                level: level.to_owned(),
                message,
            },
        };
        if allowance.dropped > 0 {
            let words = format!(
                "{} lines before this one were dropped: the tenant's plugins log more than is kept",
                allowance.dropped
            );
            if self.queue.try_send(entry("warn", words)).is_ok() {
                allowance.dropped = 0;
            }
        }
        if self.queue.try_send(entry(level, message)).is_err() {
            allowance.dropped += 1;
        }
    }
}

/// Lines that may be logged now: a second's worth at most, growing with time.
struct Allowance {
    rate: f64,
    lines: f64,
    at: Instant,
    dropped: u64,
}

impl Allowance {
    fn new(rate: u32) -> Self {
        Self {
            rate: rate.into(),
            lines: rate.into(),
            at: Instant::now(),
            dropped: 0,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.lines = (self.lines + passed * self.rate).min(self.rate);
        let may = self.lines >= 1.0;
        if may {
            self.lines -= 1.0;
        }
        may
    }
}

/// Write what comes until nobody can log any more.
fn write_all(config: &LogConfig, queue: &Receiver<Entry>) {
    let mut failing = Failing::default();
    while let Ok(first) = queue.recv() {
        let mut texts: BTreeMap<Arc<str>, Vec<u8>> = BTreeMap::new();
        for entry in std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)) {
            let text = texts.entry(entry.tenant).or_default();
            // A line is plain data, and memory takes everything.
            if serde_json::to_writer(&mut *text, &entry.line).is_ok() {
                text.push(b'\n');
            }
        }
        for (tenant, text) in texts {
            let written = append(config, &tenant, &text);
            let is_news = failing.note(&tenant, written.is_err(), Instant::now());
            if let (Err(error), true) = (&written, is_news) {
                tracing::warn!(%tenant, folder = %config.folder.display(), %error,
                    "what plugins log cannot be written (plugins.log.folder)");
            }
        }
    }
}

/// What was said of logs that cannot be written: of each tenant's once, and of one at a time where there are many.
#[derive(Default)]
struct Failing {
    tenants: HashSet<Arc<str>>,
    told: Option<Instant>,
}

impl Failing {
    /// Takes down whether a tenant's log failed, and says whether that is to be told.
    fn note(&mut self, tenant: &Arc<str>, failed: bool, now: Instant) -> bool {
        if !failed {
            self.tenants.remove(tenant);
            return false;
        }
        let is_news = self.tenants.insert(Arc::clone(tenant))
            && self.told.is_none_or(|told| now - told >= TOLD_APART);
        if is_news {
            self.told = Some(now);
        }
        is_news
    }
}

fn append(config: &LogConfig, tenant: &str, text: &[u8]) -> io::Result<()> {
    let [older, newer] = log_files(&config.folder, tenant);
    let half = config.bytes / 2;
    // A batch is small beside any sensible half, so looking at each is enough.
    let length = fs::metadata(&newer).map_or(0, |metadata| metadata.len());
    if length > 0 && length + text.len() as u64 > half {
        fs::rename(&newer, &older)?;
    }
    open(&newer)?.write_all(text)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            options.open(path)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_of_lines_is_allowed_at_once_and_then_as_many_a_second() {
        let mut allowance = Allowance::new(10);
        let start = Instant::now();
        let taken = |allowance: &mut Allowance, at| (0..100).filter(|_| allowance.take(at)).count();
        assert_eq!(taken(&mut allowance, start), 10);
        assert_eq!(taken(&mut allowance, start + Duration::from_millis(500)), 5);
        assert_eq!(taken(&mut allowance, start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_told_of_once_though_others_can() {
        let [acme, beta, gamma]: [Arc<str>; 3] = ["acme", "beta", "gamma"].map(Arc::from);
        let (mut failing, start) = (Failing::default(), Instant::now());
        assert!(failing.note(&acme, true, start));
        let later = start + TOLD_APART;
        for _ in 0..3 {
            assert!(!failing.note(&beta, false, later));
            assert!(!failing.note(&acme, true, later));
        }
        assert!(failing.note(&beta, true, later));
        assert!(!failing.note(&gamma, true, later), "it is the same disk");
        failing.note(&acme, false, later);
        assert!(failing.note(&acme, true, later + TOLD_APART));
    }

    #[test]
    fn the_logs_of_tenants_that_have_no_plugin_any_more_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let config = LogConfig {
            folder: folder.path().join("logs"),
            bytes: 2_000,
            lines_per_second: 1,
        };
        let logs = TenantLogs::start(Some(config)).unwrap();
        let known = || logs.tenants.lock().unwrap().logs.len();
        let name = |number: usize| Arc::from(format!("tenant-{number}"));
        let first = logs.of(&name(0)).unwrap();
        for number in 1..100 * FEW {
            logs.of(&name(number)).unwrap();
            assert!(known() <= 2 * FEW, "{} after {number}", known());
        }
        assert!(Arc::ptr_eq(&first, &logs.of(&name(0)).unwrap()));
    }

    #[test]
    fn a_tenants_files_are_bounded_and_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let config = LogConfig {
            folder: folder.path().join("logs"),
            bytes: 2_000,
            lines_per_second: 1,
        };
        for n in 0..100 {
            append(
                &config,
                "acme",
                format!("line {n} {}\n", "x".repeat(90)).as_bytes(),
            )
            .unwrap();
        }
        let [older, newer] = log_files(&config.folder, "acme");
        let texts = [&older, &newer].map(|file| fs::read_to_string(file).unwrap());
        assert!(texts.iter().all(|text| text.len() <= 1_000), "{texts:?}");
        let all = texts.concat();
        let kept: Vec<&str> = all.lines().collect();
        assert!(
            kept.len() >= 10 && kept.last().unwrap().starts_with("line 99"),
            "{kept:?}"
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&newer), mode(newer.parent().unwrap())),
            (0o600, 0o700)
        );
        append(&config, "acme2", b"line\n").unwrap();
        let bytes: usize = texts.iter().map(String::len).sum();
        assert_eq!(forget_log(&config.folder, "acme").unwrap(), bytes as u64);
        assert_eq!(forget_log(&config.folder, "acme").unwrap(), 0, "again");
        let left = fs::read_dir(&config.folder).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["acme2"]);
    }
}
