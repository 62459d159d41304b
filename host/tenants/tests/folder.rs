//! The tenants folder over real files.
#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use wasmhook_core::ports::EndpointRegistry as _;
use wasmhook_core::{EndpointId, EventType, SecretName, TenantId};
use wasmhook_tenants::{Environment, Tenants, TenantsConfig};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn id(text: &str) -> TenantId {
    TenantId::new(text).unwrap()
}

fn name(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

fn put(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn endpoint(id: &str, url: &str) -> String {
    format!(
        "[[endpoints]]\nid = \"{id}\"\nurl = \"{url}\"\nsecrets = [\"main\"]\nevents = [\"invoice.paid\"]\n"
    )
}

fn config(root: &Path, variables: &'static [(&'static str, &'static str)]) -> TenantsConfig {
    TenantsConfig {
        environment: Environment::new(move |wanted| {
            let found = variables.iter().find(|(variable, _)| *variable == wanted);
            found.map(|(_, value)| (*value).to_owned())
        }),
        ..TenantsConfig::new(root.join("tenants"), root.join("secrets"))
    }
}

fn acme() -> TempDir {
    let root = TempDir::new().unwrap();
    put(
        &root,
        "tenants/acme/tenant.toml",
        &endpoint("orders", "https://a.example/"),
    );
    put(&root, "secrets/acme/main", &format!("{KEY}\n"));
    root
}

#[tokio::test]
async fn endpoints_and_secrets_are_read_and_follow_the_files() {
    let root = acme();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    assert_eq!(tenants.problems(), []);
    let orders = tenants
        .endpoint(&id("acme"), &EndpointId::new("orders").unwrap())
        .unwrap();
    assert_eq!(tenants.secrets_for(&orders).unwrap().len(), 1);
    let listed = |kind| {
        let tenants = tenants.clone();
        async move {
            tenants
                .list(&id("acme"), &EventType::new(kind).unwrap())
                .await
                .unwrap()
                .len()
        }
    };
    assert_eq!(
        (listed("invoice.paid").await, listed("user.made").await),
        (1, 0)
    );

    let two = endpoint("orders", "https://a.example/") + &endpoint("more", "https://b.example/");
    put(&root, "tenants/acme/tenant.toml", &two);
    put(&root, "tenants/beta/tenant.toml", "");
    tenants.reload();
    assert_eq!(tenants.endpoints(&id("acme")).len(), 2);
    assert_eq!(tenants.ids(), [id("acme"), id("beta")]);
    let again = tenants
        .endpoint(&id("acme"), &EndpointId::new("orders").unwrap())
        .unwrap();
    assert_eq!(
        again.updated_at, orders.updated_at,
        "an unchanged endpoint got a new date"
    );

    fs::remove_dir_all(root.path().join("tenants/acme")).unwrap();
    tenants.reload();
    assert!(tenants.endpoints(&id("acme")).is_empty());
    assert!(tenants.secret(&id("acme"), &name("main")).is_err());
}

#[test]
fn a_tenant_that_says_nothing_of_its_quota_has_the_operators() {
    let root = acme();
    put(&root, "tenants/beta/tenant.toml", "max_in_flight = 90");
    put(&root, "tenants/gamma/tenant.toml", "weight = 3");
    let quotas = |default| {
        let mut config = config(root.path(), &[]);
        config.default_max_in_flight = std::num::NonZeroU32::new(default);
        let quotas = Tenants::load(config).unwrap().quotas();
        let told = quotas.iter().map(|(tenant, quota)| {
            let most = quota.max_in_flight.map_or(0, std::num::NonZeroU32::get);
            (tenant.to_string(), quota.weight.get(), most)
        });
        told.collect::<Vec<_>>()
    };
    let of = |tenant: &str, weight, most| (tenant.to_owned(), weight, most);
    assert_eq!(quotas(0), [of("beta", 1, 90), of("gamma", 3, 0)]);
    let all = [of("acme", 1, 20), of("beta", 1, 90), of("gamma", 3, 20)];
    assert_eq!(quotas(20), all);
}

#[test]
fn a_bad_file_keeps_the_last_good_version_and_names_file_and_key() {
    let root = acme();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    put(
        &root,
        "tenants/acme/tenant.toml",
        &endpoint("orders", "ftp://a.example/"),
    );
    tenants.reload();
    tenants.reload();
    assert_eq!(tenants.endpoints(&id("acme")).len(), 1);
    let status = tenants.status(&id("acme")).unwrap();
    assert!(status.last_good);
    let shown = status.problems[0].to_string();
    assert!(
        shown.contains("acme/tenant.toml: endpoints[0].url: "),
        "{shown}"
    );
    assert_eq!(tenants.problems().len(), 1);

    put(
        &root,
        "tenants/acme/tenant.toml",
        &endpoint("fixed", "https://a.example/"),
    );
    tenants.reload();
    assert_eq!(tenants.problems(), []);
    assert!(!tenants.status(&id("acme")).unwrap().last_good);
}

#[test]
fn a_folder_that_cannot_be_read_removes_nobody() {
    let root = acme();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    fs::rename(root.path().join("tenants"), root.path().join("away")).unwrap();
    tenants.reload();
    assert_eq!(tenants.endpoints(&id("acme")).len(), 1);
    assert_eq!(tenants.problems().len(), 1);
    assert!(Tenants::load(config(root.path(), &[])).is_err());
}

#[test]
fn a_missing_secret_is_a_problem_and_an_error_at_use_only() {
    let root = acme();
    fs::remove_file(root.path().join("secrets/acme/main")).unwrap();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    let endpoints = tenants.endpoints(&id("acme"));
    assert_eq!(endpoints.len(), 1);
    let error = tenants.secrets_for(&endpoints[0]).unwrap_err().to_string();
    assert!(
        error.starts_with("invalid webhook endpoint: field `secrets`: secret `main`"),
        "{error}"
    );
    assert!(
        tenants.problems()[0]
            .reason
            .contains("WASMHOOK_SECRET_ACME_MAIN")
    );
}

#[test]
fn a_secret_of_the_wrong_kind_is_a_problem() {
    let root = acme();
    put(&root, "secrets/acme/main", "hunter2");
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    let shown = tenants.problems()[0].to_string();
    assert!(
        shown.contains("whsec_") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn an_unusable_secret_keeps_the_last_good_one_until_it_is_deleted() {
    let root = acme();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    put(&root, "secrets/acme/main", "");
    tenants.reload();
    tenants.secret(&id("acme"), &name("main")).unwrap();
    assert_eq!(tenants.problems().len(), 1);
    fs::remove_file(root.path().join("secrets/acme/main")).unwrap();
    tenants.reload();
    assert!(tenants.secret(&id("acme"), &name("main")).is_err());
}

#[test]
fn an_unusable_folder_of_secrets_keeps_the_last_good_ones_until_it_is_deleted() {
    let root = acme();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    let folder = root.path().join("secrets/acme");
    let aside = root.path().join("aside");
    fs::rename(&folder, &aside).unwrap();
    // Neither a file nor a link is the folder of a tenant's secrets, wherever it leads.
    put(&root, "secrets/acme", KEY);
    tenants.reload();
    tenants.secret(&id("acme"), &name("main")).unwrap();
    assert_eq!(tenants.problems().len(), 1);
    fs::remove_file(&folder).unwrap();
    std::os::unix::fs::symlink(&aside, &folder).unwrap();
    tenants.reload();
    tenants.secret(&id("acme"), &name("main")).unwrap();
    fs::remove_file(&folder).unwrap();
    tenants.reload();
    assert!(tenants.secret(&id("acme"), &name("main")).is_err());
}

#[test]
fn the_environment_serves_where_no_file_does() {
    let root = acme();
    fs::remove_file(root.path().join("secrets/acme/main")).unwrap();
    let variables = &[
        ("WASMHOOK_SECRET_ACME_MAIN", KEY),
        ("WASMHOOK_SECRET_ACME_EXTRA", KEY),
    ];
    let tenants = Tenants::load(config(root.path(), variables)).unwrap();
    assert_eq!(tenants.problems(), []);
    for known in ["main", "extra"] {
        tenants.secret(&id("acme"), &name(known)).unwrap();
    }
}

#[test]
fn another_tenants_secret_cannot_be_reached() {
    let root = acme();
    put(&root, "tenants/beta/tenant.toml", "");
    put(&root, "tenants/acme_eu/tenant.toml", "");
    let variables = &[("WASMHOOK_SECRET_ACME_EU_MAIN", KEY)];
    let tenants = Tenants::load(config(root.path(), variables)).unwrap();
    assert!(tenants.secret(&id("beta"), &name("main")).is_err());
    for path in ["../acme/main", "/etc/passwd", "..", ".", "a/b"] {
        assert!(SecretName::new(path).is_err(), "{path}");
    }
    tenants.secret(&id("acme_eu"), &name("main")).unwrap();
    assert!(tenants.secret(&id("acme"), &name("eu_main")).is_err());
}

#[cfg(unix)]
#[test]
fn links_out_of_a_tenants_folders_are_refused() {
    use std::os::unix::fs::symlink;
    let root = acme();
    symlink(
        root.path().join("tenants/acme"),
        root.path().join("tenants/linked"),
    )
    .unwrap();
    put(&root, "tenants/beta/tenant.toml", "");
    fs::create_dir_all(root.path().join("secrets/beta")).unwrap();
    symlink(
        root.path().join("secrets/acme/main"),
        root.path().join("secrets/beta/main"),
    )
    .unwrap();
    put(&root, "secrets/beta/..data/inner", KEY);
    symlink("..data/inner", root.path().join("secrets/beta/inner")).unwrap();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    assert_eq!(tenants.ids(), [id("acme"), id("beta"), id("linked")]);
    assert!(tenants.endpoints(&id("linked")).is_empty());
    assert!(tenants.secret(&id("linked"), &name("main")).is_err());
    assert!(tenants.secret(&id("beta"), &name("main")).is_err());
    tenants.secret(&id("beta"), &name("inner")).unwrap();
    assert_eq!(tenants.problems().len(), 2);
}

/// What a kubelet mounts: `..data` leads to a hidden folder that holds the files, and is replaced as a whole.
#[cfg(unix)]
fn mount(folder: &Path, version: &str, files: &[(&str, &str)]) {
    use std::os::unix::fs::symlink;
    for (path, text) in files {
        let file = folder.join(version).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        // The first part of each path is a link into the data.
        let name = path.split('/').next().unwrap();
        _ = symlink(format!("..data/{name}"), folder.join(name));
    }
    let before = fs::read_link(folder.join("..data")).ok();
    symlink(version, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(folder.join(before)).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_mounted_folder_of_a_tenant_is_followed_when_it_is_replaced() {
    let root = acme();
    let (tenant, secrets) = (
        root.path().join("tenants/beta"),
        root.path().join("secrets/beta"),
    );
    let document = |host: &str| endpoint("orders", &format!("https://{host}.example/"));
    mount(&tenant, "..1", &[("tenant.toml", &document("a"))]);
    mount(&secrets, "..1", &[("main", KEY)]);
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    assert_eq!(tenants.problems(), []);
    let host = || {
        let endpoints = tenants.endpoints(&id("beta"));
        endpoints[0].url.as_url().host_str().unwrap().to_owned()
    };
    assert_eq!(host(), "a.example");
    let first = tenants.secret(&id("beta"), &name("main")).unwrap();
    // Long enough unchanged for looks that open nothing.
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    tenants.reload();
    mount(&tenant, "..2", &[("tenant.toml", &document("b"))]);
    mount(
        &secrets,
        "..2",
        &[("main", "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")],
    );
    tenants.reload();
    assert_eq!(host(), "b.example");
    let second = tenants.secret(&id("beta"), &name("main")).unwrap();
    assert_eq!(tenants.problems(), []);
    assert!(!Arc::ptr_eq(&first, &second));
}

#[cfg(unix)]
#[test]
fn all_tenants_in_one_mounted_folder_are_followed_when_it_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let (tenants_folder, secrets) = (root.path().join("tenants"), root.path().join("secrets"));
    let version = |version: &str, host: &str| {
        let text = endpoint("orders", &format!("https://{host}.example/"));
        let files = [("acme/tenant.toml", &*text), ("beta/tenant.toml", &text)];
        mount(&tenants_folder, version, &files);
        mount(&secrets, version, &[("acme/main", KEY), ("beta/main", KEY)]);
    };
    version("..1", "a");
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    assert_eq!(tenants.problems(), []);
    assert_eq!(tenants.ids(), [id("acme"), id("beta")]);
    version("..2", "b");
    tenants.reload();
    assert_eq!(tenants.problems(), []);
    for tenant in ["acme", "beta"] {
        let endpoints = tenants.endpoints(&id(tenant));
        assert_eq!(endpoints[0].url.as_url().host_str(), Some("b.example"));
        tenants.secrets_for(&endpoints[0]).unwrap();
    }

    // Unmounted by half: the links are there and lead nowhere.
    fs::remove_file(tenants_folder.join("..data")).unwrap();
    fs::remove_file(secrets.join("..data")).unwrap();
    tenants.reload();
    assert_eq!(tenants.ids(), [id("acme"), id("beta")]);
    let endpoints = tenants.endpoints(&id("acme"));
    tenants.secrets_for(&endpoints[0]).unwrap();
    let problems = tenants.problems();
    assert!(
        problems[0]
            .reason
            .contains("a symbolic link cannot be followed"),
        "{problems:?}"
    );
}

#[cfg(unix)]
#[test]
fn a_tenant_whose_folder_is_a_link_that_cannot_be_followed_at_the_start_is_one_that_is_unread() {
    use std::os::unix::fs::symlink;
    let root = acme();
    let link = root.path().join("tenants/beta");
    // Nowhere, in circles, to another tenant's folder, and out.
    for target in ["..data/beta", "beta", "acme", "/"] {
        symlink(target, &link).unwrap();
        let tenants = Tenants::load(config(root.path(), &[])).unwrap();
        assert!(tenants.is_unread(&id("beta")), "{target}");
        assert!(tenants.endpoints(&id("beta")).is_empty(), "{target}");
        let status = tenants.status(&id("beta")).unwrap();
        let reason = &status.problems[0].reason;
        assert!(reason.contains("a symbolic link"), "{target}: {reason}");
        assert!(!tenants.is_unread(&id("acme")));
        tenants.reload();
        assert!(tenants.is_unread(&id("beta")), "{target}");
        fs::remove_file(&link).unwrap();
        tenants.reload();
        assert!(!tenants.is_unread(&id("beta")), "{target}");
        assert_eq!(tenants.ids(), [id("acme")]);
    }

    symlink("..data/beta", &link).unwrap();
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    let text = endpoint("orders", "https://b.example/");
    put(&root, "tenants/..data/beta/tenant.toml", &text);
    put(&root, "secrets/beta/main", KEY);
    tenants.reload();
    assert_eq!(tenants.problems(), []);
    assert!(!tenants.is_unread(&id("beta")));
    assert_eq!(tenants.endpoints(&id("beta")).len(), 1);
}

#[cfg(unix)]
#[test]
fn a_document_whose_link_leads_nowhere_in_circles_or_out_keeps_the_last_good_one() {
    use std::os::unix::fs::symlink;
    let root = acme();
    put(&root, "tenants/beta/tenant.toml", "");
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    let document = root.path().join("tenants/acme/tenant.toml");
    for target in ["gone.toml", "tenant.toml", "../beta/tenant.toml"] {
        fs::remove_file(&document).unwrap();
        symlink(target, &document).unwrap();
        tenants.reload();
        assert_eq!(tenants.endpoints(&id("acme")).len(), 1, "{target}");
        let status = tenants.status(&id("acme")).unwrap();
        assert!(status.last_good, "{target}");
        assert!(
            status.problems[0].reason.contains("a symbolic link"),
            "{:?}",
            status.problems
        );
    }
    fs::remove_file(&document).unwrap();
    tenants.reload();
    assert!(tenants.endpoints(&id("acme")).is_empty());
}

#[test]
fn odd_names_and_over_large_files_are_problems_of_their_own() {
    let root = acme();
    put(&root, "tenants/not a tenant/tenant.toml", "");
    put(&root, "tenants/.git/config", "");
    put(&root, "tenants/README", "");
    put(
        &root,
        "tenants/big/tenant.toml",
        &"#".repeat(1024 * 1024 + 1),
    );
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    assert_eq!(tenants.ids(), [id("acme"), id("big")]);
    let problems = tenants.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].reason.contains("larger than 1048576 bytes"),
        "{}",
        problems[0]
    );
}

#[test]
fn however_many_tenants_there_are_all_are_read_with_what_is_wrong_with_each() {
    const TENANTS: u32 = 1_000;
    let root = TempDir::new().unwrap();
    for number in 0..TENANTS {
        let url = format!("https://{number}.example/");
        let tenant = format!("tenants/t{number}/tenant.toml");
        put(&root, &tenant, &endpoint(&format!("to-{number}"), &url));
        if number % 100 != 7 {
            put(&root, &format!("secrets/t{number}/main"), KEY);
        }
    }
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    assert_eq!(tenants.ids().len(), TENANTS as usize);
    let wrong: Vec<TenantId> = tenants
        .problems()
        .into_iter()
        .filter_map(|problem| problem.tenant)
        .collect();
    let expected = (0..TENANTS).filter(|number| number % 100 == 7);
    let mut expected: Vec<TenantId> = expected.map(|number| id(&format!("t{number}"))).collect();
    expected.sort_by_key(|id| id.as_str().to_owned());
    assert_eq!(wrong, expected, "in the order of their files");
    tenants.reload();
    assert_eq!(tenants.ids().len(), TENANTS as usize);
    assert_eq!(tenants.problems().len(), expected.len());
}

#[test]
fn unchanged_files_are_not_read_again_and_changed_ones_are() {
    let root = acme();
    put(
        &root,
        "tenants/quiet/tenant.toml",
        &endpoint("orders", "https://q.example/"),
    );
    put(&root, "secrets/quiet/main", KEY);
    let tenants = Tenants::load(config(root.path(), &[])).unwrap();
    // A change is recent for two seconds, in which equal times prove nothing.
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    tenants.reload();
    let endpoints = |tenant: &str| tenants.endpoints(&id(tenant));
    let secret = |tenant: &str| tenants.secret(&id(tenant), &name("main"));
    let (acme, quiet) = (endpoints("acme"), endpoints("quiet"));
    let first = secret("acme").unwrap();
    tenants.reload();
    assert!(Arc::ptr_eq(&acme, &endpoints("acme")));

    // In their place, and of the same length.
    put(
        &root,
        "tenants/acme/tenant.toml",
        &endpoint("orders", "https://b.example/"),
    );
    put(
        &root,
        "secrets/acme/main",
        "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
    );
    tenants.reload();
    assert_eq!(
        endpoints("acme")[0].url.as_url().host_str(),
        Some("b.example")
    );
    assert!(!Arc::ptr_eq(&first, &secret("acme").unwrap()));
    assert!(Arc::ptr_eq(&quiet, &endpoints("quiet")));

    put(&root, "secrets/quiet/next", KEY);
    fs::remove_file(root.path().join("secrets/quiet/main")).unwrap();
    tenants.reload();
    assert!(tenants.secret(&id("quiet"), &name("next")).is_ok());
    assert!(secret("quiet").is_err());
    assert_eq!(tenants.problems().len(), 1);
}
