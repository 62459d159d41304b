//! A producer that knows Redis and nothing else.

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::cluster::ClusterClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value,
};
use wasmhook_testing::RedisSentinels;

use crate::workload::{Pushed, STREAM};

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for replicas, in milliseconds.
const REPLICATION: u32 = 1000;

/// How Redis is found.
pub(crate) enum Door {
    /// It is there.
    Server(String),
    /// One of these knows where it is.
    Sentinels(Vec<String>),
    /// Some of its nodes are there.
    Cluster(Vec<String>),
}

impl Door {
    async fn open(&self) -> RedisResult<Box<dyn ConnectionLike + Send>> {
        match self {
            Self::Server(url) => connect(url).await,
            Self::Sentinels(urls) => {
                let mut last = None;
                for url in urls {
                    match master(url).await {
                        Ok(url) => return connect(&url).await,
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(|| unexpected("there is no Sentinel")))
            }
            Self::Cluster(urls) => {
                let client = ClusterClient::builder(urls.iter().map(String::as_str))
                    .connection_timeout(PATIENCE)
                    .response_timeout(PATIENCE)
                    .build()?;
                Ok(Box::new(client.get_async_connection().await?))
            }
        }
    }

    /// Whether what is pushed is not acknowledged before the replica has it.
    fn has_replicas(&self) -> bool {
        !matches!(self, Self::Server(_))
    }
}

async fn connect(url: &str) -> RedisResult<Box<dyn ConnectionLike + Send>> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let connection = Client::open(url)?
        .get_multiplexed_async_connection_with_config(&settings)
        .await?;
    Ok(Box::new(connection))
}

/// Where the master is, by a Sentinel's word.
async fn master(sentinel: &str) -> RedisResult<String> {
    let mut connection = connect(sentinel).await?;
    let mut question = Cmd::new();
    question.arg("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME");
    question.arg(RedisSentinels::MASTER);
    let answer = connection.req_packed_command(&question).await?;
    let (host, port): (String, u16) = redis::from_redis_value(answer)?;
    Ok(format!("redis://{host}:{port}"))
}

/// Pushes by `XADD`, on a connection that is made again after an error.
pub(super) struct Stream {
    door: Door,
    connection: Option<Box<dyn ConnectionLike + Send>>,
}

impl Stream {
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            connection: None,
        }
    }

    /// Whether the events were acknowledged. If not, they may be there all the same.
    pub(super) async fn push(&mut self, events: &[Pushed]) -> bool {
        let pushed = self.add(events).await;
        if pushed.is_err() {
            self.connection = None;
        }
        pushed.is_ok()
    }

    async fn add(&mut self, events: &[Pushed]) -> RedisResult<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.door.open().await?),
        };
        let confirmed = self.door.has_replicas();
        // A cluster lets one command through while a slot is on the move, or a transaction as a whole.
        let mut pipeline = Pipeline::new();
        pipeline.cmd("MULTI");
        for event in events {
            pipeline.add_command(xadd(*event));
        }
        pipeline.cmd("EXEC");
        if confirmed {
            pipeline.cmd("WAIT").arg(1).arg(REPLICATION);
        }
        let count = pipeline.len();
        let answers = connection.req_packed_commands(&pipeline, 0, count).await?;
        let mut executed = false;
        let mut replicas = 0;
        for answer in answers {
            match answer.extract_error()? {
                Value::Array(results) => {
                    for result in results {
                        result.extract_error()?;
                    }
                    executed = true;
                }
                Value::Int(reached) => replicas = reached,
                _ => {}
            }
        }
        if executed && (replicas > 0 || !confirmed) {
            return Ok(());
        }
        Err(unexpected(
            "the events are not as durable as they are to be",
        ))
    }
}

fn xadd(event: Pushed) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(STREAM).arg("*");
    command.arg("tenant").arg(event.tenant());
    command.arg("type").arg(event.event_type());
    command.arg("id").arg(event.id());
    command.arg("payload").arg(event.payload());
    if let Some(key) = event.ordering_key() {
        command.arg("ordering_key").arg(key);
    }
    command
}

fn unexpected(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}
