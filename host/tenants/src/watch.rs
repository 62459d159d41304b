//! Noticing changes in folders.
//!
//! The system's notifications make a change known at once, but they can be lost: a queue overflows,
//! a folder is replaced, a limit is reached, a network file system has none. So the folders are also
//! due for another look at a fixed interval, whatever was or was not heard of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::reach::{self, Closed};

/// A look that nothing asked for comes after so many times as long as the last one took.
const LOOKING_SHARE: u32 = 100;
/// And after this time at the latest: notifications may be lost.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// Watches folders until it is dropped.
#[derive(Debug)]
pub struct FolderWatch {
    changes: watch::Receiver<u64>,
    messages: mpsc::Sender<Message>,
}

enum Message {
    Changed,
    /// Looks that nothing asked for are this far apart, or as far as they are usually.
    Rest(Duration),
    Stop,
}

impl FolderWatch {
    /// The usual time for which notifications are gathered into one change: long enough for a file
    /// to be copied, short enough to be live within a second.
    pub const DEBOUNCE: Duration = Duration::from_millis(200);
    /// The usual interval at which the folders are due for another look in any case.
    pub const RESCAN: Duration = Duration::from_secs(5);

    /// Watches the folders and everything below them. They need not exist yet.
    pub fn start(paths: &[PathBuf], debounce: Duration, rescan: Duration) -> std::io::Result<Self> {
        let (messages, inbox) = mpsc::channel();
        let (counter, changes) = watch::channel(0);
        let background = Watcher {
            folders: paths.iter().map(|path| Folder::new(path)).collect(),
            notifier: None,
            closed: Vec::new(),
            opened: Arc::default(),
            outbox: messages.clone(),
            warned: false,
        };
        thread::Builder::new()
            .name("folder-watch".to_owned())
            .spawn(move || background.run(&inbox, &counter, debounce, rescan))?;
        Ok(Self { changes, messages })
    }

    /// Waits for the next change, or for the time at which the folders are due for another look.
    /// Changes during a wait elsewhere are not missed: the next call returns at once.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The thread has gone, which it does only once this is dropped.
            std::future::pending::<()>().await;
        }
    }

    /// Says how long a look at the folders took: looks that no notification asked for then take no more
    /// than a hundredth of the time, as long as notifications come at all. They are never further apart
    /// than a minute.
    pub fn note_look(&self, took: Duration) {
        let rest = (took * LOOKING_SHARE).min(LONGEST_REST);
        let _ = self.messages.send(Message::Rest(rest));
    }

    /// Another one that waits on the same folders. It counts the changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
    }
}

/// A folder, and which one it was when it was put under watch.
struct Folder {
    path: PathBuf,
    watched: Option<Identity>,
}

/// Tells a folder from another that took its name.
type Identity = (u64, u64);

impl Folder {
    fn new(path: &Path) -> Self {
        Self {
            // As the library names it in its errors.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            watched: None,
        }
    }
}

struct Watcher {
    folders: Vec<Folder>,
    notifier: Option<RecommendedWatcher>,
    /// Folders below those that could not be watched.
    closed: Vec<PathBuf>,
    /// What may have been opened since, if it is a folder: the library passes over new ones that are closed. Each once,
    /// however often its tenant touches it.
    opened: Arc<Mutex<BTreeSet<PathBuf>>>,
    outbox: mpsc::Sender<Message>,
    /// Whether it was said that not even the others can be.
    warned: bool,
}

impl Watcher {
    fn run(
        mut self,
        inbox: &mpsc::Receiver<Message>,
        counter: &watch::Sender<u64>,
        debounce: Duration,
        rescan: Duration,
    ) {
        self.renew();
        let mut rest = Duration::ZERO;
        let mut last = Instant::now();
        loop {
            let pause = if self.warned || !self.closed.is_empty() {
                rescan
            } else {
                rescan.max(rest)
            };
            match inbox.recv_timeout(pause.saturating_sub(last.elapsed())) {
                Ok(Message::Rest(wanted)) => {
                    rest = wanted;
                    continue;
                }
                Ok(Message::Changed) => {
                    if stopped_within(inbox, debounce) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            // Before the word is passed on, so that nothing is lost between the look and the watch.
            self.renew();
            counter.send_modify(|count| *count = count.wrapping_add(1));
            last = Instant::now();
        }
    }

    /// Puts every folder under watch that exists and is not, or is no longer the same folder, with all below it that
    /// can be.
    fn renew(&mut self) {
        let mut closed = Vec::new();
        let renewed = self.try_renew(&mut closed);
        closed.sort_by(|a, b| a.path.cmp(&b.path));
        closed.dedup_by(|a, b| a.path == b.path);
        let mut new = closed
            .iter()
            .filter(|folder| !self.closed.contains(&folder.path));
        if let Some(Closed { path, reason }) = new.next() {
            tracing::warn!(
                folder = %path.display(),
                others = new.count(),
                "a folder cannot be watched, so changes in it are noticed at the rescan interval only: {reason}"
            );
        }
        self.closed = closed.into_iter().map(|folder| folder.path).collect();
        if let Err(error) = renewed {
            if !self.warned {
                tracing::warn!(
                    %error,
                    "folders cannot be watched, so changes are noticed at the rescan interval only"
                );
            }
            self.warned = true;
        } else {
            self.warned = false;
        }
    }

    /// Adds what cannot be watched to `closed`.
    fn try_renew(&mut self, closed: &mut Vec<Closed>) -> notify::Result<()> {
        let notifier = match &mut self.notifier {
            Some(notifier) => notifier,
            none => {
                let outbox = self.outbox.clone();
                let opened = Arc::clone(&self.opened);
                let heard = move |event| {
                    if let Ok(notify::Event {
                        kind: EventKind::Modify(ModifyKind::Metadata(_)),
                        paths,
                        ..
                    }) = &event
                    {
                        lock(&opened).extend(paths.iter().cloned());
                    }
                    if is_change(&event) {
                        let _ = outbox.send(Message::Changed);
                    }
                };
                // What links lead to is either below the folder, and watched there, or a tenant's word for it: one
                // link to the root would have everything on the machine watched, or nothing at all.
                let config = notify::Config::default().with_follow_symlinks(false);
                none.insert(RecommendedWatcher::new(heard, config)?)
            }
        };
        let mut result = Ok(());
        for folder in &mut self.folders {
            let identity = identity(&folder.path);
            let to_watch: Vec<_> = if identity == folder.watched {
                let below = |path: &&PathBuf| path.starts_with(&folder.path);
                self.closed.iter().filter(below).cloned().collect()
            } else {
                if folder.watched.take().is_some() {
                    // Fails for a folder that is gone, whose watch went with it.
                    let _ = notifier.unwatch(&folder.path);
                }
                identity.iter().map(|_| folder.path.clone()).collect()
            };
            folder.watched = identity;
            let mut add = |path: &Path| notifier.watch(path, RecursiveMode::Recursive);
            for path in to_watch {
                if let Err(error) = reach::watch(&path, &mut add, closed) {
                    folder.watched = None;
                    result = Err(error);
                }
            }
        }
        for path in std::mem::take(&mut *lock(&self.opened)) {
            if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                let mut add = |path: &Path| notifier.watch(path, RecursiveMode::Recursive);
                result = result.and(reach::watch(&path, &mut add, closed));
            }
        }
        result
    }
}

fn lock(paths: &Mutex<BTreeSet<PathBuf>>) -> MutexGuard<'_, BTreeSet<PathBuf>> {
    paths.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes everything that arrives in the time, and says whether a stop was among it.
fn stopped_within(inbox: &mpsc::Receiver<Message>, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        match inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Message::Changed | Message::Rest(_)) => {}
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// Reading a file is no change; without this, each look would cause the next. An error may stand
/// for lost notifications, so it counts as one.
fn is_change(event: &notify::Result<notify::Event>) -> bool {
    event.as_ref().map_or(true, |event| match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    })
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata()
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    path.is_dir().then_some((0, 0))
}
