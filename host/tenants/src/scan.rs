//! Reading the tenants folder into a snapshot.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use jiff::Timestamp;
use wasmhook_core::{Endpoint, Quota, SignatureProfile, TenantId};

use crate::document::{self, Rules};
use crate::environment::{self, Environment};
use crate::places;
use crate::problem::Problem;
use crate::secrets::{self, Loaded};
use crate::snapshot::{Snapshot, Tenant};
use crate::stamp::Stamps;

/// A tenant's endpoints in the order of its file.
type Endpoints = Arc<[Arc<Endpoint>]>;

/// The name of a tenant's document.
const DOCUMENT: &str = "tenant.toml";

/// The largest `tenant.toml`, in bytes: room for thousands of endpoints.
const MAX_DOCUMENT: u64 = 1024 * 1024;

/// Where and how to read.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) folder: PathBuf,
    pub(crate) secrets_folder: PathBuf,
    pub(crate) rules: Rules,
    pub(crate) environment: Environment,
    /// How often everything was read.
    pub(crate) runs: AtomicU64,
}

/// Fewer tenants than this are not worth a thread.
const FEW: usize = 64;

/// Of the tenants whose files look unchanged, one in so many is read nevertheless, each time others: a
/// file system may not keep the times of folders.
const READ_ANYWAY: u64 = 64;

impl Scan {
    /// Reads everything. What is unusable now keeps what `before` has of it. Answers besides with
    /// what deserves a warning and is no problem.
    pub(crate) fn run(&self, before: &Snapshot) -> io::Result<(Snapshot, Vec<Problem>)> {
        let mut snapshot = Snapshot::default();
        let mut warnings = Vec::new();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            match tenant_id(&entry?) {
                Ok(Some(id)) => ids.push(id),
                Ok(None) => {}
                Err(problem) => snapshot.problems.push(problem),
            }
        }
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        // At the start of a host nothing else is to be done; later deliveries are, and little has changed.
        let threads = if before.tenants.is_empty() {
            thread::available_parallelism().map_or(1, NonZeroUsize::get)
        } else {
            1
        };
        let share = ids.len().div_ceil(threads).max(FEW);
        let read = |from: usize, share: &[TenantId]| {
            let mut warnings = Vec::new();
            let at = run + from as u64;
            let tenants = (at..).zip(share).map(|(at, id)| {
                let known = before.tenants.get(id);
                let unchanged = known.filter(|known| {
                    let stamps = known.stamps.as_ref();
                    at % READ_ANYWAY != 0 && stamps.is_some_and(Stamps::are_current)
                });
                let read = || Arc::new(self.tenant(id, &ids, known, &mut warnings));
                (id.clone(), unchanged.map_or_else(read, Arc::clone))
            });
            let tenants: Vec<_> = tenants.collect();
            (tenants, warnings)
        };
        thread::scope(|scope| {
            let read = &read;
            let mut shares = ids.chunks(share).enumerate();
            let first = shares.next();
            let others: Vec<_> = shares
                .map(|(n, ids)| scope.spawn(move || read(n * share, ids)))
                .collect();
            let mut take = |(tenants, new): (Vec<(TenantId, Arc<Tenant>)>, Vec<Problem>)| {
                snapshot.tenants.extend(tenants);
                warnings.extend(new);
            };
            if let Some((_, ids)) = first {
                take(read(0, ids));
            }
            for other in others {
                take(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
        });
        Ok((snapshot, warnings))
    }

    fn tenant(
        &self,
        id: &TenantId,
        all: &[TenantId],
        before: Option<&Arc<Tenant>>,
        warnings: &mut Vec<Problem>,
    ) -> Tenant {
        let began = SystemTime::now();
        let path = self.folder.join(id.as_str()).join(DOCUMENT);
        let mut tenant = match self.endpoints(id, &path, before) {
            Ok((endpoints, quota)) => Tenant::new(endpoints, quota),
            Err(problem) => {
                let mut tenant = before.map_or_else(Tenant::default, |old| {
                    Tenant::new(Arc::clone(&old.endpoints), old.quota)
                });
                tenant.last_good = !tenant.endpoints.is_empty();
                tenant.unread = before.is_none_or(|old| old.unread);
                tenant.problems.push(problem);
                tenant
            }
        };
        let read = secrets::read(&self.secrets_folder, id);
        warnings.extend(read.warnings);
        tenant.problems.extend(read.problems);
        tenant.secrets = read.by_name;
        let folder = self.secrets_folder.join(id.as_str());
        let mut places = vec![path.clone(), folder.clone()];
        places.extend(tenant.secrets.keys().map(|name| folder.join(name.as_str())));
        // A file that is there and has become unusable keeps its last good secret, and a folder all of its; a deleted
        // one does not, for deleting it is how a secret is withdrawn.
        for (name, loaded) in &mut tenant.secrets {
            if let (Err(_), Some(Ok(old))) = (&loaded, before.and_then(|b| b.secrets.get(name))) {
                *loaded = Ok(Arc::clone(old));
            }
        }
        if let (true, Some(before)) = (read.unreadable, before) {
            let good = before.secrets.iter().filter(|(_, old)| old.is_ok());
            tenant.secrets = good
                .map(|(name, old)| (name.clone(), old.clone()))
                .collect();
        }
        let in_files = tenant.secrets.len();
        self.needed_secrets(id, all, &path, &mut tenant);
        // Whose variable it is depends on which tenants there are.
        let from_files = tenant.secrets.len() == in_files;
        if from_files && tenant.problems.is_empty() {
            tenant.stamps = Stamps::take(places, began);
        }
        tenant
    }

    fn endpoints(
        &self,
        id: &TenantId,
        path: &Path,
        before: Option<&Arc<Tenant>>,
    ) -> Result<(Endpoints, Quota), Problem> {
        let document = self
            .document(id)
            .map_err(|reason| Problem::of(id, path, reason))?;
        let Some((text, at)) = document else {
            return Ok((Arc::default(), Quota::default()));
        };
        let said = document::parse(&text, id, &self.rules, at).map_err(|fault| Problem {
            key: fault.key,
            ..Problem::of(id, path, fault.reason)
        })?;
        let endpoints = said
            .endpoints
            .into_iter()
            .map(|endpoint| {
                let old = before.and_then(|old| old.by_id.get(&endpoint.id));
                old.map_or_else(
                    || Arc::new(endpoint.clone()),
                    |old| continued(old, &endpoint),
                )
            })
            .collect();
        Ok((endpoints, said.quota))
    }

    /// The text of a tenant's document and when it was written; `None` if there is none.
    fn document(&self, id: &TenantId) -> Result<Option<(String, Timestamp)>, String> {
        let Some(folder) = places::folder(&self.folder, id.as_str())? else {
            return Ok(None);
        };
        let path = places::file(&folder, DOCUMENT)?;
        path.map(|path| document(&path)).transpose()
    }

    /// Looks for what the endpoints name and no file holds, and for secrets of the wrong kind.
    fn needed_secrets(&self, id: &TenantId, all: &[TenantId], path: &Path, tenant: &mut Tenant) {
        for endpoint in tenant.endpoints.iter() {
            for name in &endpoint.secrets {
                let problem = |reason: &str| {
                    Problem::of(id, path, reason)
                        .at(format!("endpoint `{}`, secret `{name}`", endpoint.id))
                };
                if !tenant.secrets.contains_key(name) {
                    match from_environment(&self.environment, id, name, all.iter()) {
                        Some(loaded) => {
                            if let Err(reason) = &loaded {
                                tenant.problems.push(problem(reason));
                            }
                            tenant.secrets.insert(name.clone(), loaded);
                        }
                        None => tenant.problems.push(problem(&format!(
                            "there is no such secret, neither as the file {} nor as the variable {}",
                            self.secrets_folder.join(id.as_str()).join(name.as_str()).display(),
                            environment::variable(id, name),
                        ))),
                    }
                }
                if let Some(Ok(secret)) = tenant.secrets.get(name) {
                    let standard = endpoint.profile == SignatureProfile::Standard;
                    if standard && secret.check_standard().is_err() {
                        tenant.problems.push(problem(
                            "the standard profile needs a secret that starts with whsec_ or whsk_",
                        ));
                    } else if matches!(endpoint.profile, SignatureProfile::Sha256 { .. })
                        && secret.public_key().is_some()
                    {
                        tenant.problems.push(problem(
                            "the sha256 profile cannot sign with a whsk_ secret",
                        ));
                    }
                }
            }
        }
    }
}

/// The tenant that a folder is, `None` for what is no tenant's: files and hidden folders. A link is one wherever it
/// leads: what is for the tenant has to wait until its folder can be read.
fn tenant_id(entry: &fs::DirEntry) -> Result<Option<TenantId>, Problem> {
    let problem = |reason: String| Problem {
        tenant: None,
        path: entry.path(),
        key: None,
        reason,
    };
    let kind = entry
        .file_type()
        .map_err(|error| problem(error.to_string()))?;
    if entry.file_name().as_encoded_bytes().starts_with(b".") {
        return Ok(None);
    }
    if !kind.is_dir() && !kind.is_symlink() {
        return Ok(None);
    }
    let id = entry
        .file_name()
        .to_str()
        .and_then(|name| TenantId::new(name).ok().filter(|id| id.as_str() == name))
        .ok_or_else(|| {
            problem("a tenant's name is 1 to 128 characters of a-z A-Z 0-9 . _ -".to_owned())
        })?;
    Ok(Some(id))
}

/// The secret in the environment, unless its variable may be another tenant's.
pub(crate) fn from_environment<'a>(
    environment: &Environment,
    tenant: &TenantId,
    name: &wasmhook_core::SecretName,
    tenants: impl Iterator<Item = &'a TenantId>,
) -> Option<Loaded> {
    let variable = environment::variable(tenant, name);
    let text = environment.get(&variable)?;
    if !environment::owns(tenant, &variable, tenants) {
        return Some(Err(format!(
            "the variable {variable} may be another tenant's; use a file"
        )));
    }
    Some(secrets::parse(&text))
}

/// The endpoint as read now, but dated as before where nothing has changed.
fn continued(old: &Arc<Endpoint>, new: &Endpoint) -> Arc<Endpoint> {
    let mut new = new.clone();
    new.created_at = old.created_at;
    let updated_at = std::mem::replace(&mut new.updated_at, old.updated_at);
    if new == **old {
        return Arc::clone(old);
    }
    new.updated_at = updated_at;
    Arc::new(new)
}

/// The text of a document and when it was written.
fn document(path: &Path) -> Result<(String, Timestamp), String> {
    let io = |error: io::Error| format!("the file cannot be read: {}", error.kind());
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(format!("the file is larger than {MAX_DOCUMENT} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    let written = metadata
        .modified()
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok());
    Ok((text, written.unwrap_or_else(Timestamp::now)))
}

/// Used by the scan's caller to tell what is new.
pub(crate) fn new_ones<'a>(before: &[Problem], now: &'a [Problem]) -> Vec<&'a Problem> {
    let known: HashSet<&Problem> = before.iter().collect();
    now.iter()
        .filter(|problem| !known.contains(problem))
        .collect()
}
