//! `wasmhook tenants forget`
//!
//! What plugins keep and log, and the versions that there were of them, outlive their tenant: a tenant whose
//! folder is moved aside for a moment must not lose them. So somebody has to say that it is gone for good.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use wasmhook_core::TenantId;
use wasmhook_runtime::{VersionArchive, forget_log};

use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::{output, stores};

/// What was removed.
#[derive(Serialize)]
struct Forgotten<'a> {
    tenant: &'a str,
    keys: u64,
    key_bytes: u64,
    log_bytes: u64,
    versions: u64,
    version_bytes: u64,
}

/// Removes what was kept for a tenant besides its deliveries.
pub(crate) async fn forget(
    config: &Config,
    tenant: &TenantId,
    force: bool,
    json: bool,
) -> anyhow::Result<()> {
    if !force {
        must_be_gone(&config.path(&config.tenants.folder), tenant)?;
    }
    let stores = stores::open(config, false).await?;
    let kept = stores.key_value.forget(tenant).await?;
    let folder = config.path(&config.plugins.log.folder);
    let log_bytes = forget_log(&folder, tenant.as_str())
        .with_context(|| format!("cannot remove the log in {}", folder.display()))?;
    let archive = VersionArchive::look(&config.path(&config.plugins.versions));
    let (versions, version_bytes) = archive.forget(tenant.as_str())?;
    let forgotten = Forgotten {
        tenant: tenant.as_str(),
        keys: kept.keys,
        key_bytes: kept.bytes,
        log_bytes,
        versions,
        version_bytes,
    };
    if json {
        return output::json(&forgotten);
    }
    output::line(format!(
        "forgot of {tenant}: {} of {}, {} of its plugins' log, {} of {}; its deliveries are left to retention",
        output::count(forgotten.keys, "key"),
        output::count(forgotten.key_bytes, "byte"),
        output::count(forgotten.log_bytes, "byte"),
        output::count(forgotten.versions, "version"),
        output::count(forgotten.version_bytes, "byte")
    ));
    Ok(())
}

/// Refuses a tenant that has a folder. Where no tenant can be seen, nobody knows which are gone.
fn must_be_gone(tenants: &Path, tenant: &TenantId) -> anyhow::Result<()> {
    std::fs::read_dir(tenants).with_context(|| {
        format!(
            "cannot see whether tenant {tenant} is gone: the tenants folder {} cannot be read; put \
             `tenants.folder` right, or add --force",
            tenants.display()
        )
    })?;
    let own = tenants.join(tenant.as_str());
    // A link that leads nowhere for now is there, too.
    match own.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(Coded::new(
            Exit::Refused,
            format!(
                "tenant {tenant} exists: remove {} first, or add --force to take from it what its plugins keep",
                own.display()
            ),
        )),
    }
}
