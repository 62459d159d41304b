//! Hearing of work without asking.
//!
//! The functions publish one message whenever a shard that had nothing to serve has something, and
//! when a retry becomes the next one due. Who hears it leases until it gets less than it asked for,
//! so no message is needed while work goes on, and an idle deployment is silent. A message lost with
//! the connection is made up for by waking once when it is back. The nodes of a cluster pass messages
//! on to each other, so it does not matter which of them is listened to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::connection::Link;
use super::keys::Keys;
use super::outlook::Outlook;
use crate::error::StoreError;

/// How often a silent connection is asked for a sign of life.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// What messages say, and to whom.
pub(super) struct News {
    keys: Keys,
    me: String,
    outlook: Arc<Outlook>,
}

impl News {
    pub(super) fn new(keys: Keys, me: String, outlook: Arc<Outlook>) -> Self {
        Self { keys, me, outlook }
    }

    /// A message: a shard's prefix, and the mark of the store that caused it, if it knows already.
    fn heard(&self, message: &str) {
        match self.keys.shard_named(message) {
            Some((_, by)) if by == self.me => {}
            Some((shard, _)) => self.outlook.work(shard),
            None => self.outlook.work_anywhere(),
        }
    }

    /// Messages may have been missed.
    fn unsure(&self) {
        self.outlook.work_anywhere();
    }
}

/// Listens until it is dropped.
pub(super) struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listener {
    pub(super) fn start(link: Link, channel: String, news: News) -> Self {
        Self(tokio::spawn(async move {
            let mut pause = Duration::from_millis(50);
            loop {
                if listen(&link, &channel, &news).await {
                    pause = Duration::from_millis(50);
                } else {
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                tokio::time::sleep(pause).await;
            }
        }))
    }
}

/// Listens while the connection lasts; says whether there was one.
async fn listen(link: &Link, channel: &str, news: &News) -> bool {
    let switched = link.switched();
    tokio::pin!(switched);
    let subscribing = async {
        let mut subscription = link.subscriber().await?;
        subscription
            .subscribe(channel)
            .await
            .map_err(|error| link.failure("SUBSCRIBE", &error))?;
        Ok::<_, StoreError>(subscription)
    };
    let Ok(Ok(subscription)) = tokio::time::timeout(link.connect_timeout(), subscribing).await
    else {
        return false;
    };
    let (mut sink, mut messages) = subscription.split();
    news.unsure();
    loop {
        let message = tokio::select! {
            message = tokio::time::timeout(CHECK_EVERY, messages.next()) => message,
            () = &mut switched => return true,
        };
        match message {
            Ok(Some(message)) => news.heard(&String::from_utf8_lossy(message.get_payload_bytes())),
            Ok(None) => return true,
            Err(_) => {
                let ping = sink.ping::<redis::Value>();
                match tokio::time::timeout(link.connect_timeout(), ping).await {
                    Ok(Ok(_)) => {}
                    _ => return true,
                }
            }
        }
    }
}
