//! The parts of a host, none of which outlives another.
//!
//! A host that takes events in while nothing delivers them looks sound to its producers. So when a part
//! ends before it was told to, by a bug, the others stop in good order and the host ends with an error:
//! whoever runs it starts it again.

use anyhow::{Context as _, anyhow};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Parts that run.
pub(crate) struct Parts {
    running: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Parts {
    /// None yet. They run until `stop`, which is cancelled when one ends before.
    pub(crate) fn new(stop: &CancellationToken) -> Self {
        Self {
            running: JoinSet::new(),
            stop: stop.clone(),
        }
    }

    /// Starts one, which is to end when the token that it is given is cancelled, and not before.
    pub(crate) fn start<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let part = tokio::spawn(run(self.stop.child_token()));
        self.running.spawn(watched(name, part, self.stop.clone()));
    }

    /// Waits for the end of all, and says which one ended first if nobody told it to.
    pub(crate) async fn ended(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended.context("a part cannot be watched").flatten() {
                tracing::error!("{error:#}; the host stops");
                self.stop.cancel();
                first = first.and(Err(error));
            }
        }
        first
    }
}

async fn watched(
    name: &'static str,
    part: JoinHandle<()>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    part.await.with_context(|| format!("{name} failed"))?;
    if stop.is_cancelled() {
        Ok(())
    } else {
        Err(anyhow!("{name} ended by itself"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_fails_takes_the_others_along_and_is_named() {
        let stop = CancellationToken::new();
        let mut parts = Parts::new(&stop);
        parts.start("the one", CancellationToken::cancelled_owned);
        parts.start("the other", |_| async { panic!("broken") });
        let error = parts.ended().await.unwrap_err();
        assert!(stop.is_cancelled());
        assert!(error.to_string().contains("the other failed"), "{error:#}");
    }

    #[tokio::test]
    async fn a_part_may_not_end_before_it_is_told_to() {
        let stop = CancellationToken::new();
        let mut parts = Parts::new(&stop);
        parts.start("the one", |_| async {});
        parts.start("the other", CancellationToken::cancelled_owned);
        let error = parts.ended().await.unwrap_err();
        assert_eq!(error.to_string(), "the one ended by itself");
    }

    #[tokio::test]
    async fn an_orderly_stop_is_no_failure() {
        let stop = CancellationToken::new();
        let mut parts = Parts::new(&stop);
        parts.start("the one", CancellationToken::cancelled_owned);
        stop.cancel();
        parts.ended().await.unwrap();
    }
}
