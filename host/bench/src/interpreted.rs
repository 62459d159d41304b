//! Replacing a plugin that takes seconds to compile, such as one in JavaScript or Python, while its host
//! delivers as fast as it can.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use wasmhook_runtime::Digest;
use wasmhook_testing::{Durability, RedisServer};

use crate::many_plugins::{all_serve, list, wait_for};
use crate::results::Results;
use crate::scenario::{connect, failed_attempts, float, xadd_for};
use crate::system::{Host, Receiver, Tenant, add_mark, component};

/// Where the components of these languages are, from where those in Rust are.
const FOLDER: &str = "../../components";
const MANIFEST: &str = "[config]\nfields = \"card\"\n";
/// Events that wait at any time, so that the host has always something to do, and those pushed at once.
const WAITING: u64 = 5_000;
const BATCH: u64 = 500;
/// Time over which the rate before the replacement is taken, after as long to warm up.
const BEFORE: Duration = Duration::from_secs(10);
/// How long a component may take to compile on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// From the replacement of the component until the new one serves, and the rate of deliveries meanwhile.
pub(crate) async fn measure(results: &mut Results) -> anyhow::Result<()> {
    for (name, language) in [("js", "javascript"), ("python", "python")] {
        let file = format!("{FOLDER}/{language}.wasm");
        if component(&file).is_file() {
            measure_one(results, name, &file).await?;
        } else {
            println!("the plugin in {language} is not built (cargo xtask guests --all); left out");
        }
    }
    Ok(())
}

async fn measure_one(results: &mut Results, name: &str, file: &str) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let redis = RedisServer::start_with(Durability::EverySecond, &[])
        .context("cannot start a Redis server")?;
    let connection = connect(&redis).await?;
    let tenant = Tenant {
        plugin: Some((file, MANIFEST)),
        ..Tenant::bench(&receiver.url)
    };
    let host = Host::start(Some(&redis.url()), &[tenant]).await?;
    wait_for(&host, PATIENCE, |listed| all_serve(listed, 1)).await?;

    let mut load = Load {
        connection,
        pushed: 0,
    };
    load.keep_up(&receiver, BEFORE).await?;
    let usual = load.keep_up(&receiver, BEFORE).await?;

    let mut bytes = std::fs::read(component(file))?;
    add_mark(&mut bytes, 1);
    let wanted = Digest::of(&bytes).to_string();
    let plugins = host.folder.path().join("tenants/bench/plugins");
    let aside = plugins.join(".incoming");
    std::fs::write(&aside, bytes)?;
    std::fs::rename(&aside, plugins.join("10-shape.wasm"))?;
    let began = Instant::now();
    let arrived = receiver.stats().await?.count;
    loop {
        load.keep_up(&receiver, Duration::from_millis(200)).await?;
        let listed = list(&host).await?;
        if listed.iter().all(|plugin| plugin.serves(&wanted)) {
            break;
        }
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "the new version does not serve after {PATIENCE:?}"
        );
    }
    let took = began.elapsed().as_secs_f64();
    let meanwhile = float(receiver.stats().await?.count - arrived) / took;
    results.set(&format!("reload_{name}_ms"), took * 1000.0);
    results.set(&format!("reload_{name}_rate_ratio"), meanwhile / usual);
    // What is lost never comes, and what failed comes again and is counted by the host.
    receiver.wait_for(load.pushed, PATIENCE).await?;
    let failed = failed_attempts(&host).await?;
    results.set(&format!("reload_{name}_failed_deliveries"), failed);
    host.process.stop().await?;
    receiver.process.stop().await
}

/// Events as many as the host delivers.
struct Load {
    connection: MultiplexedConnection,
    pushed: u64,
}

impl Load {
    /// Push events for this long, so that always some wait. Says how many were delivered in a second.
    async fn keep_up(&mut self, receiver: &Receiver, time: Duration) -> anyhow::Result<f64> {
        let began = Instant::now();
        let before = receiver.stats().await?.count;
        loop {
            let arrived = receiver.stats().await?.count;
            if began.elapsed() >= time {
                return Ok(float(arrived - before) / began.elapsed().as_secs_f64());
            }
            while self.pushed < arrived + WAITING {
                xadd_for("bench", &mut self.connection, self.pushed, BATCH).await?;
                self.pushed += BATCH;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
