//! Walking over all keys, which no single server of a cluster has.

use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{RedisError, Value};

use super::{Connection, Link, cluster};
use crate::error::StoreError;

/// Keys that a server looks at in one step of a walk.
const STEP: usize = 1000;

/// A server that has keys: of a cluster one of its masters, otherwise the only one.
pub(in crate::redis) struct Holder(Option<SingleNodeRoutingInfo>);

impl Link {
    /// The servers that share the keys among them.
    pub(in crate::redis) async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        let Some(servers) = &self.cluster else {
            return Ok(vec![Holder(None)]);
        };
        let connection = self.target().general();
        let masters = cluster::masters(connection, servers.first_host()).await;
        let masters = masters.map_err(|error| self.failure("CLUSTER SLOTS", &error))?;
        let way = |(host, port)| Holder(Some(SingleNodeRoutingInfo::ByAddress { host, port }));
        Ok(masters.into_iter().map(way).collect())
    }

    /// One step of a walk over a server's keys: from where it goes on (`0` at the end), and keys. It
    /// meets each key that is there all along at least once, and may meet one twice.
    pub(in crate::redis) async fn scan(
        &self,
        holder: &Holder,
        cursor: &str,
        pattern: &str,
    ) -> Result<(String, Vec<Vec<u8>>), StoreError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern);
        command.arg("COUNT").arg(STEP);
        let answer: Result<Value, RedisError> = match (&holder.0, self.target().general()) {
            (Some(node), Connection::Cluster(mut connection)) => {
                let route = RoutingInfo::SingleNode(node.clone());
                let answer = connection.route_command(command, route).await;
                answer.and_then(Value::extract_error)
            }
            _ => self.raw(&command).await,
        };
        answer
            .and_then(|value| Ok(redis::from_redis_value(value)?))
            .map_err(|error| self.failure("SCAN", &error))
    }
}
