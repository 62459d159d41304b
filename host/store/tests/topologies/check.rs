//! Checking a queue whose keys are on several servers.

use std::time::Duration;

use wasmhook_store::conformance::{event, to};
use wasmhook_store::redis::RedisStore;
use wasmhook_store::{CheckRequest, Finding, LeaseRequest, Store};
use wasmhook_testing::{Durability, RedisCluster};

use crate::support::on_cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_masters_of_a_cluster_are_checked_and_mended() {
    let cluster = RedisCluster::start(3, false, Durability::None).unwrap();
    let config = on_cluster(&cluster);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let tenants: Vec<_> = (0..40).map(|n| format!("tenant{n}")).collect();
    for tenant in &tenants {
        let batch = [to(&event(tenant, "evt_1"), &["main"])];
        store.enqueue(&batch).await.unwrap();
    }
    let look = CheckRequest::default();
    let report = store.check(look).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!((report.looked.deliveries, report.looked.due), (40, 40));

    let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    for (n, tenant) in tenants.iter().enumerate() {
        for shard in 0..4 {
            let mut command = redis::cmd("DEL");
            let prefix = format!("{{{}:{shard}}}:", config.prefix);
            match n % 2 {
                0 => command.arg(format!("{prefix}q:{tenant}\0main")),
                _ => command.arg(format!("{prefix}r:{tenant}")),
            };
            command.exec_async(&mut connection).await.unwrap();
        }
    }
    let repair = CheckRequest {
        repair: true,
        gentle: false,
    };
    let report = store.check(repair).await.unwrap();
    assert_eq!(report.findings[&Finding::Lost].count, 20);
    assert_eq!(report.findings[&Finding::Unserved].count, 20);
    assert_eq!(report.left(), 0);
    let report = store.check(look).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let mut leased = 0;
    for _ in 0..200 {
        let request = LeaseRequest {
            max: 100,
            duration: Duration::from_secs(600),
            max_per_endpoint: 10,
        };
        leased += store.lease(&request).await.unwrap().leased.len();
        if leased >= 40 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(leased, 40);
}
