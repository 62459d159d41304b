//! Following the master that Sentinels watch.
//!
//! A task asks the Sentinels again whenever a call failed in a way that a failover explains, when a
//! Sentinel announces one, and now and then. What it finds is what calls use from then on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use redis::aio::{PubSub, PubSubStream};
use redis::{AsyncConnectionConfig, Client, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::address::Servers;
use super::greeting::{Expected, greet};
use super::target::Target;
use super::{Timing, failure};
use crate::error::StoreError;

/// How often the Sentinels are asked although nothing happened.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How long to wait before asking again when there was no master to be found, or right after asking.
const PAUSE: Duration = Duration::from_millis(100);
/// Tries of one reconnection: a master that is gone is looked for elsewhere soon.
const RETRIES: usize = 1;
/// How long a Sentinel may take: they are asked all at once, and one that hangs must not hold up
/// the others for long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the master is now. Ends following when dropped.
pub(super) struct Followed {
    target: watch::Receiver<Arc<Target>>,
    doubt: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    /// The connections to the master as it is known.
    pub(super) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target.borrow())
    }

    /// The master may be another one.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Tells of the next change of the master.
    pub(super) fn switch(&self) -> watch::Receiver<Arc<Target>> {
        let mut target = self.target.clone();
        target.mark_unchanged();
        target
    }
}

/// Finds the master, connects to it, and follows it from then on.
pub(super) async fn connect(
    servers: Servers,
    master: String,
    name: &str,
    timing: Timing,
) -> Result<Followed, StoreError> {
    let watched = Watched {
        servers,
        master,
        name: name.to_owned(),
        timing,
    };
    let place = watched.find().await?;
    let target = watched.open(&place).await?;
    let (sender, target) = watch::channel(Arc::new(target));
    let doubt = Arc::new(Notify::new());
    let task = tokio::spawn(watched.follow(place, sender, Arc::clone(&doubt)));
    Ok(Followed {
        target,
        doubt,
        task,
    })
}

/// What one Sentinel says.
enum Answer {
    /// The master is there, according to a configuration of this age.
    Master(u64, Place),
    /// There is no such master.
    Unknown,
}

type Place = (String, u16);

struct Watched {
    servers: Servers,
    master: String,
    name: String,
    timing: Timing,
}

impl Watched {
    fn failure(&self, error: &RedisError) -> StoreError {
        failure::failure(&self.name, "connect", error)
    }

    fn patience(&self) -> Duration {
        self.timing.connect.min(PATIENCE)
    }

    /// The master of the newest configuration that any Sentinel knows, if it is one.
    async fn find(&self) -> Result<Place, StoreError> {
        let sentinels = self
            .servers
            .clients()
            .map_err(|error| self.failure(&error))?;
        let answers = join_all(sentinels.iter().map(|sentinel| self.ask(sentinel))).await;
        let mut newest: Option<(u64, Place)> = None;
        let mut unknown = false;
        let mut last = None;
        for answer in answers {
            match answer {
                Ok(Answer::Master(epoch, place)) => {
                    if newest.as_ref().is_none_or(|(known, _)| epoch > *known) {
                        newest = Some((epoch, place));
                    }
                }
                Ok(Answer::Unknown) => unknown = true,
                Err(error) => last = Some(error),
            }
        }
        let Some((_, place)) = newest else {
            return Err(match last {
                Some(error) if !unknown => error,
                _ => StoreError::Configuration(format!(
                    "the Sentinels at {} know no master by the name {}; set redis.sentinel_master to one that they watch",
                    self.servers, self.master
                )),
            });
        };
        let server = self
            .servers
            .server(&place.0, place.1)
            .map_err(|error| self.failure(&error))?;
        let greeting = greet(&server, self.patience())
            .await
            .map_err(|error| self.failure(&error))?;
        if !greeting.is_master() {
            return Err(StoreError::Unavailable {
                store: self.name.clone(),
                reason: format!("{}:{} is not a master yet", place.0, place.1),
            });
        }
        greeting.check(&self.name, Expected::Single)?;
        Ok(place)
    }

    /// Asks one Sentinel.
    async fn ask(&self, sentinel: &Client) -> Result<Answer, StoreError> {
        let name = || format!("the Sentinel at {}", sentinel.get_connection_info().addr());
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience()))
            .set_response_timeout(Some(self.patience()));
        let question = async {
            let mut connection = sentinel
                .get_multiplexed_async_connection_with_config(&settings)
                .await?;
            redis::cmd("SENTINEL")
                .arg("MASTER")
                .arg(&self.master)
                .query_async::<Value>(&mut connection)
                .await
        };
        match question.await {
            Ok(answer) => place_of(answer).ok_or_else(|| StoreError::Unavailable {
                store: name(),
                reason: "its answer has an unexpected form".to_owned(),
            }),
            Err(error) if error.to_string().contains("No such master") => Ok(Answer::Unknown),
            Err(error) if error.to_string().contains("unknown command") => {
                greet(sentinel, self.patience())
                    .await
                    .map_err(|error| failure::failure(&name(), "connect", &error))?
                    .check(&name(), Expected::Sentinel)?;
                Err(failure::failure(&name(), "SENTINEL MASTER", &error))
            }
            Err(error) => Err(failure::failure(&name(), "SENTINEL MASTER", &error)),
        }
    }

    async fn open(&self, place: &Place) -> Result<Target, StoreError> {
        let opening = async {
            let server = self.servers.server(&place.0, place.1)?;
            Target::server(server, &self.timing, RETRIES).await
        };
        opening.await.map_err(|error| self.failure(&error))
    }

    /// Listens to one Sentinel for failovers.
    async fn announcements(&self) -> Option<PubSubStream> {
        for sentinel in self.servers.clients().ok()? {
            let subscribing = async {
                let mut subscription: PubSub = sentinel.get_async_pubsub().await?;
                subscription.subscribe("+switch-master").await?;
                Ok::<_, RedisError>(subscription.into_on_message())
            };
            if let Ok(Ok(stream)) = tokio::time::timeout(self.patience(), subscribing).await {
                return Some(stream);
            }
        }
        None
    }

    async fn follow(
        self,
        mut place: Place,
        target: watch::Sender<Arc<Target>>,
        doubt: Arc<Notify>,
    ) {
        let mut announcements = self.announcements().await;
        let mut lost = false;
        loop {
            let wait = if lost { PAUSE } else { CHECK_EVERY };
            tokio::select! {
                () = doubt.notified() => {}
                heard = next(&mut announcements) => {
                    if heard.is_none() {
                        announcements = None;
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            if announcements.is_none() {
                announcements = self.announcements().await;
            }
            lost = match self.turn(&mut place, &target).await {
                Ok(()) => false,
                Err(error) => {
                    tracing::debug!(%error, "looking for the master");
                    true
                }
            };
            // Many calls fail at once.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks where the master is, and goes there if it is another one.
    async fn turn(
        &self,
        place: &mut Place,
        target: &watch::Sender<Arc<Target>>,
    ) -> Result<(), StoreError> {
        let found = self.find().await?;
        if found != *place {
            let opened = self.open(&found).await?;
            tracing::warn!(
                master = self.master,
                from = format!("{}:{}", place.0, place.1),
                to = format!("{}:{}", found.0, found.1),
                "the Sentinels have another master"
            );
            *place = found;
            target.send_replace(Arc::new(opened));
        }
        Ok(())
    }
}

/// The next message; never when there is no subscription.
async fn next(announcements: &mut Option<PubSubStream>) -> Option<()> {
    match announcements {
        Some(stream) => stream.next().await.map(|_| ()),
        None => std::future::pending().await,
    }
}

/// Reads the answer of SENTINEL MASTER: names and values in turn.
fn place_of(answer: Value) -> Option<Answer> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let (mut host, mut port, mut epoch) = (None, None, 0);
    let mut parts = parts.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) =
        (parts.next(), parts.next())
    {
        let value = String::from_utf8(value).ok()?;
        match name.as_slice() {
            b"ip" => host = Some(value),
            b"port" => port = Some(value.parse().ok()?),
            b"config-epoch" => epoch = value.parse().ok()?,
            _ => {}
        }
    }
    Some(Answer::Master(epoch, (host?, port?)))
}
