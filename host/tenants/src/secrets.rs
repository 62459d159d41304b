//! Reading a tenant's secrets: `<secrets folder>/<tenant>/<name>`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use wasmhook_core::{SecretName, SigningSecret, TenantId};
use zeroize::Zeroizing;

use crate::places;
use crate::problem::Problem;

/// The largest secret file, in bytes: far above any key, far below what would hurt.
const MAX_FILE: u64 = 64 * 1024;

/// A secret, or why it cannot be used.
pub(crate) type Loaded = Result<Arc<SigningSecret>, String>;

/// What a tenant's secret folder holds.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    pub(crate) by_name: HashMap<SecretName, Loaded>,
    /// Whether the folder is there and what it holds cannot be told.
    pub(crate) unreadable: bool,
    pub(crate) problems: Vec<Problem>,
    /// Things to warn of that keep nothing from working.
    pub(crate) warnings: Vec<Problem>,
}

/// Reads every secret of the tenant. A folder that does not exist holds none.
pub(crate) fn read(folder: &Path, tenant: &TenantId) -> Secrets {
    gather(folder, tenant).unwrap_or_else(|reason| Secrets {
        unreadable: true,
        problems: vec![Problem::of(tenant, folder.join(tenant.as_str()), reason)],
        ..Secrets::default()
    })
}

/// The same of a folder of which it can be told what it holds.
fn gather(folder: &Path, tenant: &TenantId) -> Result<Secrets, String> {
    let mut secrets = Secrets::default();
    let Some(found) = places::folder(folder, tenant.as_str())? else {
        return Ok(secrets);
    };
    let words = |error: std::io::Error| error.to_string();
    let real = fs::canonicalize(found).map_err(words)?;
    // From where it is now: what a link leads to may be replaced meanwhile.
    for entry in fs::read_dir(&real).map_err(words)? {
        let entry = entry.map_err(words)?;
        let file_name = entry.file_name();
        // Other names, such as a mount's `..data`, cannot be referred to.
        let Some(name) = file_name.to_str().and_then(|text| {
            SecretName::new(text)
                .ok()
                .filter(|name| name.as_str() == text)
        }) else {
            continue;
        };
        let path = entry.path();
        // As its owner knows it, and not by the changing name of a mounted folder.
        let shown = || folder.join(tenant.as_str()).join(name.as_str());
        let loaded = load(&path, &real).inspect_err(|reason| {
            secrets
                .problems
                .push(Problem::of(tenant, shown(), reason.as_str()));
        });
        if loaded.is_ok() && readable_by_others(&path) {
            let reason = "the secret can be read by other users of the machine (chmod 600 it)";
            secrets.warnings.push(Problem::of(tenant, shown(), reason));
        }
        secrets.by_name.insert(name, loaded);
    }
    Ok(secrets)
}

/// Mounted secrets are links within their folder, so links are followed, but not out of it.
fn load(path: &Path, folder: &Path) -> Loaded {
    let io = |error: std::io::Error| format!("the secret cannot be read: {}", error.kind());
    let real = fs::canonicalize(path).map_err(io)?;
    if !real.starts_with(folder) {
        return Err("a symbolic link leads out of the tenant's folder of secrets".to_owned());
    }
    if !fs::metadata(&real).map_err(io)?.is_file() {
        return Err("expected a file".to_owned());
    }
    // Room for the whole file, so that growing leaves no copy of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    File::open(&real)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("the secret is larger than {MAX_FILE} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "the secret is not UTF-8".to_owned())?;
    parse(text)
}

/// Reads the text of a secret.
pub(crate) fn parse(text: &str) -> Loaded {
    SigningSecret::parse(text)
        .map(Arc::new)
        .map_err(|error| error.to_string())
}

#[cfg(unix)]
fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn readable_by_others(_: &Path) -> bool {
    false
}
