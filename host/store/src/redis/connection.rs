//! Reaching the servers: connecting with a bound, reconnecting, following a failover, and what
//! errors mean.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike as _, PubSub};
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::OnceCell;
use tokio::time::Instant;

pub(super) mod address;
mod cluster;
mod confirm;
mod failure;
mod greeting;
mod scan;
mod sentinel;
mod target;

use super::config::{RedisConfig, Topology};
use crate::error::StoreError;
use address::{Addresses, Servers};
pub(super) use confirm::Confirmed;
use confirm::Wait;
use failure::failure;
use greeting::{Expected, greet};
pub(super) use scan::Holder;
use sentinel::Followed;
pub(super) use target::Connection;
use target::Target;

/// Tries of one reconnection to a server that is the only one.
const RETRIES: usize = 4;

/// How long things may take.
#[derive(Clone)]
struct Timing {
    /// Making one connection.
    connect: Duration,
    /// One answer.
    response: Duration,
    wait: Option<Wait>,
}

/// Where calls go.
#[derive(Clone)]
enum Way {
    /// Always to the same server or cluster.
    Fixed(Arc<Target>),
    /// To the master of the moment.
    Followed(Arc<Followed>),
}

/// The servers and connections to them that heal themselves.
#[derive(Clone)]
pub(super) struct Link {
    way: Way,
    name: Arc<str>,
    timing: Timing,
    names: Arc<Names>,
    /// For the nodes of a cluster, if it is one.
    cluster: Option<Arc<Servers>>,
    /// For questions to servers that may be away, once there have been some.
    apart: Arc<OnceCell<Connection>>,
}

/// What the deployment is called on the servers.
pub(super) struct Names {
    /// The beginning of every key.
    pub(super) prefix: String,
}

impl Link {
    /// Connects, trying for as long as the settings say.
    pub(super) async fn connect(config: &RedisConfig) -> Result<Self, StoreError> {
        config.check()?;
        let deadline = Instant::now() + config.connect_timeout;
        let mut pause = Duration::from_millis(50);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match tokio::time::timeout(left, Self::open(config)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => error,
                Err(_) => StoreError::Unavailable {
                    store: name_of(config, &Addresses::of(config)?),
                    reason: format!("no answer within {:?}", config.connect_timeout),
                },
            };
            let permanent = !matches!(error, StoreError::Unavailable { .. });
            if permanent || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Connects once.
    async fn open(config: &RedisConfig) -> Result<Self, StoreError> {
        let addresses = Addresses::of(config)?;
        let name = name_of(config, &addresses);
        let servers = addresses.open()?;
        let mut timing = Timing {
            connect: config.connect_timeout,
            response: config.response_timeout,
            wait: (config.wait_replicas > 0).then_some(Wait {
                replicas: config.wait_replicas,
                timeout: config.wait_timeout,
            }),
        };
        let mut cluster = None;
        let way = match &config.topology {
            Topology::Single(_) => {
                let wrong = |error: RedisError| failure(&name, "connect", &error);
                let clients = servers.clients().map_err(wrong)?;
                let client = clients.into_iter().next().ok_or_else(|| {
                    StoreError::Configuration("there is no Redis address".to_owned())
                })?;
                greet(&client, timing.connect)
                    .await
                    .map_err(wrong)?
                    .check(&name, Expected::Single)?;
                let target = Target::server(client, &timing, RETRIES).await;
                Way::Fixed(Arc::new(target.map_err(wrong)?))
            }
            Topology::Cluster(_) => {
                // So that a node that hangs leaves time for the others.
                timing.connect /= 2;
                let target = cluster::connect(&servers, &name, &timing).await?;
                cluster = Some(Arc::new(servers));
                Way::Fixed(Arc::new(target))
            }
            Topology::Sentinel(sentinels) => {
                timing.connect /= 2;
                let master = sentinels.master.clone();
                let followed = sentinel::connect(servers, master, &name, timing.clone()).await?;
                Way::Followed(Arc::new(followed))
            }
        };
        Ok(Self {
            way,
            name: name.into(),
            timing,
            names: Arc::new(Names {
                prefix: config.prefix.clone(),
            }),
            cluster,
            apart: Arc::default(),
        })
    }

    /// The servers, without credentials.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the deployment is called on the servers.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// How long an answer may take that waits for no replica.
    pub(super) fn response_timeout(&self) -> Duration {
        self.timing.response
    }

    /// How long replicas may take to confirm a write, if they are to.
    pub(super) fn wait_timeout(&self) -> Duration {
        let wait = self.timing.wait.as_ref();
        wait.map_or(Duration::ZERO, |wait| wait.timeout)
    }

    /// How long making a connection may take.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.timing.connect
    }

    /// Whether this is a cluster, whose nodes fail one by one.
    pub(super) fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    fn target(&self) -> Arc<Target> {
        match &self.way {
            Way::Fixed(target) => Arc::clone(target),
            Way::Followed(followed) => followed.target(),
        }
    }

    /// Looks whether the master moved when an error makes that likely.
    fn notice<T>(&self, answer: &Result<T, RedisError>) {
        if let (Way::Followed(followed), Err(error)) = (&self.way, answer)
            && failure::casts_doubt(error)
        {
            followed.doubt();
        }
    }

    /// A connection of its own whose answers may take any time: for commands that block.
    pub(super) async fn blocking(&self) -> Result<Connection, StoreError> {
        let connection = self.target().blocking(&self.timing).await;
        self.notice(&connection);
        connection.map_err(|error| self.failure("connect", &error))
    }

    /// A connection for questions to servers that may be away: what finding them again takes holds up nothing
    /// else. Its answers may take any time.
    pub(super) async fn apart(&self) -> Result<Connection, StoreError> {
        self.apart
            .get_or_try_init(|| self.blocking())
            .await
            .cloned()
    }

    /// A connection of its own for subscriptions. In a cluster any node will do, for they pass
    /// messages on.
    pub(super) async fn subscriber(&self) -> Result<PubSub, StoreError> {
        let target = self.target();
        let connection = match target.subscriber().await {
            Some(connection) => connection,
            None => self.cluster_subscriber(&target).await,
        };
        self.notice(&connection);
        connection.map_err(|error| self.failure("connect", &error))
    }

    async fn cluster_subscriber(&self, target: &Target) -> Result<PubSub, RedisError> {
        let mut last = RedisError::from((
            redis::ErrorKind::ClusterConnectionNotFound,
            "the cluster names no node",
        ));
        let Some(servers) = &self.cluster else {
            return Err(last);
        };
        for (host, port) in cluster::nodes(target.general(), servers.first_host()).await? {
            let connecting = async { servers.server(&host, port)?.get_async_pubsub().await };
            match tokio::time::timeout(self.timing.connect, connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Returns once calls go to another server than when this was called, which may be never.
    pub(super) fn switched(&self) -> impl Future<Output = ()> + use<> {
        let switch = match &self.way {
            Way::Fixed(_) => None,
            Way::Followed(followed) => Some(followed.switch()),
        };
        async move {
            if let Some(mut switch) = switch
                && switch.changed().await.is_ok()
            {
                return;
            }
            std::future::pending::<()>().await;
        }
    }

    /// One command, as the server answers it, on a connection that is never busy for long: for new work, which
    /// is not to wait for the batches of all other.
    pub(super) async fn prompt(&self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = command.query_async(&mut self.target().prompt()).await;
        self.notice(&answer);
        answer
    }

    /// Commands on keys of one shard in one step, and what the server answers to each, on the connection of
    /// [`Self::prompt`]. An error of one of them is that of all, though the others were run.
    pub(super) async fn prompt_together(
        &self,
        commands: [Cmd; 2],
    ) -> Result<Vec<Value>, RedisError> {
        let mut transaction = Pipeline::with_capacity(commands.len() + 2);
        transaction.add_command(redis::cmd("MULTI"));
        for command in commands {
            transaction.add_command(command);
        }
        transaction.add_command(redis::cmd("EXEC"));
        let answers = send(self.target().prompt(), &transaction).await;
        let answers = answers.and_then(target::executed);
        self.notice(&answers);
        answers
    }

    /// One command, as the server answers it.
    pub(super) async fn raw(&self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match &self.way {
            Way::Fixed(target) => command.query_async(&mut target.general()).await,
            Way::Followed(followed) => command.query_async(&mut followed.target().general()).await,
        };
        self.notice(&answer);
        answer
    }

    /// One command without a key, to the server that has this key.
    pub(super) async fn raw_at(&self, key: &str, command: &Cmd) -> Result<Value, RedisError> {
        match self.target().general() {
            Connection::Cluster(mut connection) => {
                let route = RoutingInfo::SingleNode(master_of(key));
                connection
                    .route_command(command.clone(), route)
                    .await?
                    .extract_error()
            }
            _ => self.raw(command).await,
        }
    }

    /// What each server answers to a question, with what it is called.
    pub(super) async fn every(
        &self,
        question: &Cmd,
    ) -> Result<Vec<(String, Result<Value, RedisError>)>, RedisError> {
        let Connection::Cluster(mut connection) = self.target().general() else {
            return Ok(vec![(self.name.to_string(), self.raw(question).await)]);
        };
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, None));
        let answers = connection.route_command(question.clone(), all).await?;
        let Value::Map(answers) = answers.extract_error()? else {
            return Ok(Vec::new());
        };
        Ok(answers
            .into_iter()
            .map(|(address, answer)| {
                let address: String = redis::from_redis_value(address).unwrap_or_default();
                (format!("Redis at {address}"), answer.extract_error())
            })
            .collect())
    }

    /// One command, as the server answers it.
    pub(super) async fn query<T: redis::FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        let answer = self.raw(command).await;
        answer
            .and_then(|value| Ok(T::from_redis_value(value)?))
            .map_err(|error| self.failure(operation, &error))
    }

    /// Several commands in one go.
    pub(super) async fn pipeline<T: redis::FromRedisValue>(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, StoreError> {
        let answer = pipeline.query_async(&mut self.target().general()).await;
        self.notice(&answer);
        answer.map_err(|error| self.failure(operation, &error))
    }

    /// Which of these commands, on keys of the slot of `key`, the server refuses to take. None is
    /// executed.
    pub(super) async fn rehearse(
        &self,
        key: &str,
        commands: Vec<Cmd>,
    ) -> Result<Vec<RedisError>, RedisError> {
        let discarded = |commands: Vec<Cmd>| {
            let mut pipeline = Pipeline::with_capacity(commands.len() + 2);
            pipeline.add_command(redis::cmd("MULTI"));
            for command in commands {
                pipeline.add_command(command);
            }
            pipeline.add_command(redis::cmd("DISCARD"));
            pipeline
        };
        // Who may not begin a transaction would execute what follows.
        for answer in self.send_to(key, discarded(Vec::new())).await? {
            answer.extract_error()?;
        }
        let answers = self.send_to(key, discarded(commands)).await?;
        let errors = answers.into_iter().map(Value::extract_error);
        Ok(errors.filter_map(Result::err).collect())
    }

    /// Sends commands as they are to the server that has this key.
    async fn send_to(&self, key: &str, pipeline: Pipeline) -> Result<Vec<Value>, RedisError> {
        match self.target().general() {
            Connection::Cluster(mut connection) => {
                let count = pipeline.len();
                connection
                    .route_pipeline(pipeline, 0, count, master_of(key))
                    .await
            }
            connection => send(connection, &pipeline).await,
        }
    }

    /// What an error means to who asked.
    pub(super) fn failure(&self, operation: &'static str, error: &RedisError) -> StoreError {
        failure(&self.name, operation, error)
    }

    /// Whether an error is that of a user who may not do this.
    pub(super) fn is_forbidden(error: &RedisError) -> bool {
        failure::is_forbidden(error)
    }

    /// An answer that makes no sense.
    pub(super) fn unexpected(&self, operation: &'static str) -> StoreError {
        StoreError::Refused {
            store: self.name.to_string(),
            operation,
            reason: "the answer has an unexpected form".to_owned(),
        }
    }
}

/// The way to the master that has this key.
fn master_of(key: &str) -> SingleNodeRoutingInfo {
    SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master))
}

/// Sends commands as they are: not made into a transaction, in which nothing waits.
async fn send(connection: Connection, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
    let count = pipeline.len();
    match connection {
        Connection::Server(mut connection) => {
            connection.req_packed_commands(pipeline, 0, count).await
        }
        Connection::Once(mut connection) => {
            connection.req_packed_commands(pipeline, 0, count).await
        }
        Connection::Cluster(mut connection) => {
            connection.req_packed_commands(pipeline, 0, count).await
        }
    }
}

/// What the servers are called in messages.
fn name_of(config: &RedisConfig, addresses: &Addresses) -> String {
    match &config.topology {
        Topology::Single(_) => format!("Redis at {addresses}"),
        Topology::Cluster(_) => format!("the Redis cluster at {addresses}"),
        Topology::Sentinel(sentinels) => format!(
            "the Redis master {} of the Sentinels at {addresses}",
            sentinels.master
        ),
    }
}
