//! Connections to one server, or to one cluster.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection, PubSub,
};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, Value,
};

use super::Timing;

/// Connections for calls that wait for replicas: such a call holds up all that follow it on its
/// connection, so these have some of their own and take turns.
const CONFIRMED: usize = 4;

/// A connection that many callers share.
#[derive(Clone)]
pub(in crate::redis) enum Connection {
    /// To one server; heals itself.
    Server(ConnectionManager),
    /// To one server; broken once it breaks.
    Once(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command),
            Self::Once(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        // While a slot moves, a cluster lets through only the one command after ASKING, or a
        // transaction as a whole. The crate's own transactions hide a server's first error behind
        // EXEC's, from its routing too.
        let whole = matches!(self, Self::Cluster(_)) && pipeline.len() > 1;
        if !whole && !pipeline.is_transaction() {
            return match self {
                Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
                Self::Once(connection) => connection.req_packed_commands(pipeline, offset, count),
                Self::Cluster(connection) => {
                    connection.req_packed_commands(pipeline, offset, count)
                }
            };
        }
        let transaction = transaction(pipeline);
        async move {
            let answers = super::send(self.clone(), &transaction).await?;
            let results = executed(answers)?;
            Ok(if pipeline.is_transaction() {
                vec![Value::Array(results)]
            } else {
                results
            })
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Once(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// The same commands between MULTI and EXEC.
pub(super) fn transaction(pipeline: &Pipeline) -> Pipeline {
    let mut whole = Pipeline::with_capacity(pipeline.len() + 2);
    whole.add_command(redis::cmd("MULTI"));
    for command in pipeline.cmd_iter() {
        whole.add_command(command.clone());
    }
    whole.add_command(redis::cmd("EXEC"));
    whole
}

/// The results of a transaction out of its answers, or the first error: that of a command that was
/// not queued says more than EXEC's.
pub(super) fn executed(answers: Vec<Value>) -> Result<Vec<Value>, RedisError> {
    let mut last = Value::Nil;
    for answer in answers {
        last = answer.extract_error()?;
    }
    match last {
        Value::Array(results) => Ok(results),
        _ => Err((
            ErrorKind::UnexpectedReturnType,
            "the transaction was not executed",
        )
            .into()),
    }
}

/// Where connections of their own come from.
enum Origin {
    Server(Box<Client>),
    /// A client that repeats nothing by itself, for reads that must not be lost.
    Cluster(Box<ClusterClient>),
}

/// One server or cluster, and the connections to it.
pub(super) struct Target {
    origin: Origin,
    general: Connection,
    prompt: Connection,
    confirmed: Box<[Connection]>,
    turn: AtomicUsize,
}

impl Target {
    /// Connects to a server; `retries` is how often one reconnection tries.
    pub(super) async fn server(
        client: Client,
        timing: &Timing,
        retries: usize,
    ) -> Result<Self, RedisError> {
        let settings = |response| {
            ConnectionManagerConfig::new()
                .set_connection_timeout(Some(timing.connect))
                // The crate's own default is half a second, which a busy server can exceed.
                .set_response_timeout(Some(response))
                .set_number_of_retries(retries)
                .set_min_delay(Duration::from_millis(50))
                .set_max_delay(Duration::from_secs(1))
                .set_pipeline_buffer_size(1024)
        };
        let connect = async |response| {
            let settings = settings(response);
            let manager = client.get_connection_manager_with_config(settings).await?;
            Ok::<_, RedisError>(Connection::Server(manager))
        };
        let general = connect(timing.response).await?;
        let prompt = connect(timing.response).await?;
        let mut confirmed = Vec::new();
        if let Some(wait) = &timing.wait {
            for _ in 0..CONFIRMED {
                confirmed.push(connect(timing.response + wait.timeout).await?);
            }
        }
        Ok(Self {
            origin: Origin::Server(Box::new(client)),
            general,
            prompt,
            confirmed: confirmed.into(),
            turn: AtomicUsize::new(0),
        })
    }

    /// A cluster; `plain` is a client that repeats nothing.
    pub(super) fn cluster(
        general: ClusterConnection,
        prompt: ClusterConnection,
        confirmed: Vec<ClusterConnection>,
        plain: ClusterClient,
    ) -> Self {
        Self {
            origin: Origin::Cluster(Box::new(plain)),
            general: Connection::Cluster(general),
            prompt: Connection::Cluster(prompt),
            confirmed: confirmed.into_iter().map(Connection::Cluster).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    /// How many connections for confirmed writes a cluster is to have.
    pub(super) fn confirmed_connections(timing: &Timing) -> usize {
        timing.wait.as_ref().map_or(0, |_| CONFIRMED)
    }

    /// For what does not wait.
    pub(super) fn general(&self) -> Connection {
        self.general.clone()
    }

    /// For what does not wait, and is not to queue behind calls that are about much.
    pub(super) fn prompt(&self) -> Connection {
        self.prompt.clone()
    }

    /// For writes that wait for replicas.
    pub(super) fn confirmed(&self) -> Connection {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.confirmed.len() {
            0 => self.general(),
            some => self.confirmed[turn % some].clone(),
        }
    }

    /// A connection of its own whose answers may take any time: for commands that block.
    pub(super) async fn blocking(&self, timing: &Timing) -> Result<Connection, RedisError> {
        match &self.origin {
            Origin::Server(client) => {
                let settings = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(timing.connect))
                    .set_response_timeout(None);
                client
                    .get_multiplexed_async_connection_with_config(&settings)
                    .await
                    .map(Connection::Once)
            }
            Origin::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }

    /// A connection for subscriptions; none for a cluster, whose nodes are asked one by one.
    pub(super) async fn subscriber(&self) -> Option<Result<PubSub, RedisError>> {
        match &self.origin {
            Origin::Server(client) => Some(client.get_async_pubsub().await),
            Origin::Cluster(_) => None,
        }
    }
}
