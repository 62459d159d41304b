//! Writes that replicas confirm before they are acknowledged.

use std::time::Duration;

use redis::{Cmd, Pipeline, RedisError, Value};

use super::{Link, send, target};
use crate::error::StoreError;

/// What a write waits for before it is acknowledged.
#[derive(Clone)]
pub(super) struct Wait {
    pub(super) replicas: u32,
    pub(super) timeout: Duration,
}

/// How many replicas have a write.
#[derive(Debug, Clone, Copy)]
pub(in crate::redis) enum Confirmed {
    /// Nobody asked.
    Unasked,
    /// So many.
    By(i64),
}

impl Confirmed {
    fn read(answer: Option<Value>) -> Result<Self, RedisError> {
        match answer.unwrap_or(Value::Nil).extract_error()? {
            Value::Int(reached) => Ok(Self::By(reached)),
            _ => Err((
                redis::ErrorKind::UnexpectedReturnType,
                "WAIT did not answer a number",
            )
                .into()),
        }
    }
}

impl Link {
    /// How many replicas are to confirm a write, if any.
    pub(in crate::redis) fn wanted_replicas(&self) -> Option<usize> {
        let wait = self.timing.wait.as_ref()?;
        usize::try_from(wait.replicas).ok()
    }

    /// Whether writes wait for replicas.
    pub(in crate::redis) fn confirms(&self) -> bool {
        self.timing.wait.is_some()
    }

    /// One call that writes, and what replicas confirmed of it. `mark` is a key beside those that
    /// are written: a call that finds everything written by an earlier one, whose answer was lost,
    /// would wait for nothing otherwise.
    pub(in crate::redis) async fn confirmed(
        &self,
        command: &Cmd,
        mark: &str,
    ) -> Result<(Value, Confirmed), RedisError> {
        let Some(wait) = &self.timing.wait else {
            return Ok((self.raw(command).await?, Confirmed::Unasked));
        };
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.add_command(command.clone());
        pipeline.cmd("SET").arg(mark).arg(1);
        add_wait(&mut pipeline, wait);
        let answers = send(self.target().confirmed(), &pipeline).await;
        let outcome = answers.and_then(|answers| {
            let mut answers = answers.into_iter();
            let answer = answers.next().unwrap_or(Value::Nil).extract_error()?;
            answers.next().unwrap_or(Value::Nil).extract_error()?;
            Ok((answer, Confirmed::read(answers.next())?))
        });
        self.notice(&outcome);
        outcome
    }

    /// Several commands on one key in one step, confirmed by replicas if that is asked for.
    pub(in crate::redis) async fn write(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<(), StoreError> {
        let Some(wait) = &self.timing.wait else {
            return self.pipeline(operation, pipeline).await;
        };
        let mut whole = target::transaction(pipeline);
        add_wait(&mut whole, wait);
        let answers = send(self.target().confirmed(), &whole).await;
        let confirmed = answers.and_then(|mut answers| {
            let last = answers.pop();
            let results = target::executed(answers)?;
            for result in results {
                result.extract_error()?;
            }
            Confirmed::read(last)
        });
        self.notice(&confirmed);
        self.check(confirmed.map_err(|error| self.failure(operation, &error))?)
    }

    /// Refuses what too few replicas confirmed.
    pub(in crate::redis) fn check(&self, confirmed: Confirmed) -> Result<(), StoreError> {
        match (confirmed, &self.timing.wait) {
            (Confirmed::By(reached), Some(wait)) if reached < i64::from(wait.replicas) => {
                Err(StoreError::NotReplicated {
                    store: self.name.to_string(),
                    reached,
                    wanted: wait.replicas,
                    within: wait.timeout,
                })
            }
            _ => Ok(()),
        }
    }
}

fn add_wait(pipeline: &mut Pipeline, wait: &Wait) {
    let millis = u64::try_from(wait.timeout.as_millis()).unwrap_or(u64::MAX);
    pipeline.cmd("WAIT").arg(wait.replicas).arg(millis.max(1));
}
