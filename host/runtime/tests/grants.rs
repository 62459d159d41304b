//! What a plugin is given only if its manifest asks for it and the operator allows it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use support::{World, body, guest};
use wasmhook_runtime::{Grants, KeyValueError, KeyValueStore, Services};

const ALLOWED: Grants = Grants {
    key_value: true,
    http: Vec::new(),
};

/// Values of tenants in memory; without quotas and ends, which are the stores' own promises.
#[derive(Default)]
struct Memory(Mutex<HashMap<(String, String), Vec<u8>>>);

#[async_trait]
impl KeyValueStore for Memory {
    async fn get(&self, tenant: &str, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        let values = self.0.lock().unwrap();
        Ok(values.get(&(tenant.to_owned(), key.to_owned())).cloned())
    }

    async fn set(
        &self,
        tenant: &str,
        key: &str,
        value: &[u8],
        _ttl: Option<Duration>,
    ) -> Result<(), KeyValueError> {
        if value == b"refuse" {
            return Err(KeyValueError::TooManyBytes(7));
        }
        let mut values = self.0.lock().unwrap();
        values.insert((tenant.to_owned(), key.to_owned()), value.to_vec());
        Ok(())
    }

    async fn delete(&self, tenant: &str, key: &str) -> Result<bool, KeyValueError> {
        let mut values = self.0.lock().unwrap();
        Ok(values
            .remove(&(tenant.to_owned(), key.to_owned()))
            .is_some())
    }

    async fn increment(
        &self,
        _tenant: &str,
        _key: &str,
        by: i64,
        _ttl: Option<Duration>,
    ) -> Result<i64, KeyValueError> {
        // As a store does whose server is slow for now.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(by)
    }

    async fn compare_and_swap(
        &self,
        _tenant: &str,
        _key: &str,
        _expected: Option<&[u8]>,
        _value: Option<&[u8]>,
        _ttl: Option<Duration>,
    ) -> Result<bool, KeyValueError> {
        Err(KeyValueError::Unavailable)
    }
}

fn world(allowed: Grants, services: Services) -> World {
    World::with(|config| {
        config.allowed = allowed;
        config.services = services;
    })
}

fn with_memory() -> World {
    let services = Services {
        key_value: Some(Arc::new(Memory::default())),
        http: None,
    };
    world(ALLOWED, services)
}

#[tokio::test]
async fn what_is_not_asked_for_does_not_exist_for_the_component() {
    let world = with_memory();
    world.put("acme", "10-keeper.wasm", guest("keeper"));
    world.load().await;
    assert_eq!(
        world.refusal("acme", "10-keeper"),
        "the component imports wasmhook:plugin/key-value@1.0.0, which its manifest does not ask for; \
         write key_value = true under [grants]"
    );
    // The same bytes serve a tenant whose manifest asks, and still not the other.
    world.put("other", "10-keeper.toml", "grants = { key_value = true }");
    world.put("other", "10-keeper.wasm", guest("keeper"));
    world.load().await;
    let plugin = world.transform("other");
    assert_eq!(body(&plugin, r#"[["get", "k"]]"#).await, "[null]");
    assert!(world.tenant("acme").transforms.is_empty());
    world.put("acme", "10-keeper.toml", "grants = { key_value = true }");
    world.load().await;
    assert_eq!(body(&world.transform("acme"), "[]").await, "[]");
}

#[tokio::test]
async fn what_the_operator_does_not_allow_cannot_be_asked_for() {
    let world = world(Grants::default(), Services::default());
    world.put("acme", "10-redact.toml", "grants = { key_value = true }");
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    assert_eq!(
        world.refusal("acme", "10-redact"),
        "10-redact.toml asks for key_value under [grants], which this host does not allow (plugins.grants)"
    );
}

#[tokio::test]
async fn tenants_keep_values_apart_and_are_told_why_something_is_not_kept() {
    let world = with_memory();
    for tenant in ["acme", "other"] {
        world.put(tenant, "10-keeper.toml", "grants = { key_value = true }");
        world.put(tenant, "10-keeper.wasm", guest("keeper"));
    }
    world.load().await;
    let (acme, other) = (world.transform("acme"), world.transform("other"));
    assert_eq!(
        body(&acme, r#"[["set", "k", "mine"], ["get", "k"]]"#).await,
        r#"[null,"mine"]"#
    );
    assert_eq!(
        body(&other, r#"[["get", "k"], ["delete", "k"]]"#).await,
        "[null,false]"
    );
    let long = "k".repeat(257);
    let steps = format!(
        r#"[["set", "", "v"], ["get", "{long}"], ["grow", "k", 65536], ["grow", "k", 65537],
            ["set", "k", "refuse"], ["swap", "k", "a", "b"]]"#
    );
    assert_eq!(
        body(&acme, &steps).await,
        r#"["Error::BadKey","Error::BadKey",null,"Error::ValueTooLarge(65536)","Error::TooManyBytes(7)","Error::Unavailable"]"#
    );
}

#[tokio::test]
async fn waiting_for_the_store_is_waiting_and_calls_to_it_are_counted() {
    let world = with_memory();
    let manifest =
        "grants = { key_value = true }\nlimits = { wait_time_ms = 200, import_calls = 3 }";
    world.put("acme", "10-keeper.toml", manifest);
    world.put("acme", "10-keeper.wasm", guest("keeper"));
    world.load().await;
    let plugin = world.transform("acme");
    let error = support::transform(&plugin, r#"[["increment", "n"]]"#)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 10-keeper: waited longer than 200 ms in calls to the host"
    );
    let four = r#"[["get", "k"], ["get", "k"], ["get", "k"], ["get", "k"]]"#;
    let error = support::transform(&plugin, four).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 10-keeper: made more than 3 calls to wasmhook:plugin/key-value"
    );
}

#[tokio::test]
async fn without_a_store_the_calls_fail_and_the_plugin_goes_on() {
    let world = world(ALLOWED, Services::default());
    world.put("acme", "10-keeper.toml", "grants = { key_value = true }");
    world.put("acme", "10-keeper.wasm", guest("keeper"));
    world.load().await;
    let told = body(&world.transform("acme"), r#"[["get", "k"]]"#).await;
    assert_eq!(told, r#"["Error::Unavailable"]"#);
}
