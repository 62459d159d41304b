//! Hearing of work without asking.
//!
//! The functions publish one message whenever a shard that had nothing to serve has something, and
//! when a retry becomes the next one due. Who hears it leases until it gets less than it asked for,
//! so no message is needed while work goes on, and an idle deployment is silent. A message lost with
//! the connection is made up for by waking once when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::connection::Link;

/// How often a silent connection is asked for a sign of life.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Whether there may be work.
#[derive(Default)]
pub(super) struct Waker {
    /// Set since the last lease began.
    woken: AtomicBool,
    notify: Notify,
}

impl Waker {
    /// There may be work.
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    /// A lease begins: it will see all work that was announced so far.
    pub(super) fn looking(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Returns when there may be work, or after `timeout`.
    pub(super) async fn wait(&self, timeout: Duration) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.woken.load(Ordering::SeqCst) {
            let _ = tokio::time::timeout(timeout, notified).await;
        }
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
    pub(super) fn start(link: Link, channel: String, waker: Arc<Waker>) -> Self {
        Self(tokio::spawn(async move {
            let mut pause = Duration::from_millis(50);
            loop {
                if listen(&link, &channel, &waker).await {
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
async fn listen(link: &Link, channel: &str, waker: &Waker) -> bool {
    let subscribing = async {
        let mut subscription = link.client().get_async_pubsub().await?;
        subscription.subscribe(channel).await?;
        Ok::<_, redis::RedisError>(subscription)
    };
    let Ok(Ok(subscription)) = tokio::time::timeout(link.connect_timeout(), subscribing).await
    else {
        return false;
    };
    let (mut sink, mut messages) = subscription.split();
    waker.wake();
    loop {
        match tokio::time::timeout(CHECK_EVERY, messages.next()).await {
            Ok(Some(_)) => waker.wake(),
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
