//! The threads that own the connections. Callers send a task and await its answer.
//!
//! The writer takes every task that waits, runs each in a savepoint of one transaction, commits
//! once and only then answers: the cost of a durable commit is shared by all who wait for one.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::schema::DAMAGED;
use crate::error::StoreError;

/// At most this many tasks share a commit, so that none waits for very many others.
const GROUP: usize = 256;

/// Why a task failed: the database's error, or one of the store's own.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl Fault {
    /// Whether what was read is a row that makes no sense, damaged by hand or of a version to come, which says
    /// nothing of any other.
    pub(super) fn is_of_row(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Corrupt(_)),
            Self::Sql(error) => is_of_row(error),
        }
    }
}

/// Whether the database gave a value that is none of its column's.
pub(super) fn is_of_row(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::InvalidColumnType(..) | E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..)
    )
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a thread needs of the state its tasks share.
pub(super) trait Session {
    /// The connection.
    fn connection(&self) -> &Connection;

    /// Called after each task that did its work.
    fn kept(&self) {}

    /// Called after each task that failed and whose work was undone.
    fn undone(&self) {}

    /// Called after each transaction, before the answers.
    fn after(&self, _committed: bool) {}
}

trait Task<S>: Send {
    /// Runs it; false when it failed and must leave no trace.
    fn run(&mut self, session: &S) -> bool;

    /// Tells the caller. `lost` says that the transaction it was in failed, and how.
    fn answer(self: Box<Self>, lost: Option<&rusqlite::Error>);
}

struct Call<T, F> {
    operation: &'static str,
    work: Option<F>,
    result: Option<Result<T, Fault>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<S, T, F> Task<S> for Call<T, F>
where
    T: Send,
    F: FnOnce(&S) -> Result<T, Fault> + Send,
{
    fn run(&mut self, session: &S) -> bool {
        self.result = self.work.take().map(|work| work(session));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, lost: Option<&rusqlite::Error>) {
        let result = match (self.result, lost) {
            (Some(Err(fault)), _) => Err(fault),
            (_, Some(lost)) => {
                let error = described(self.operation, lost);
                _ = self.reply.send(Err(error));
                return;
            }
            (Some(Ok(answer)), None) => Ok(answer),
            (None, None) => Err(Fault::Store(stopped())),
        };
        // Who no longer waits does not hear the answer; what was done stays done.
        _ = self.reply.send(result.map_err(|fault| match fault {
            Fault::Sql(error) => described(self.operation, &error),
            Fault::Store(error) => error,
        }));
    }
}

/// A thread with its connection. Dropping it ends the work that was sent, then closes the
/// connection.
pub(super) struct Worker<S> {
    tasks: Option<Sender<Box<dyn Task<S>>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Session + Send + 'static> Worker<S> {
    /// Starts the thread. `transaction` is the statement that its transactions begin with; without one
    /// each statement sees what is committed by then.
    pub(super) fn start(
        name: &str,
        transaction: Option<&'static str>,
        session: S,
    ) -> Result<Self, StoreError> {
        let (tasks, queue) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&queue, &session, transaction))
            .map_err(|error| unavailable(format!("no thread can be started: {error}")))?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
        })
    }

    /// Has the thread do something, and returns its answer once that is committed.
    pub(super) async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&S) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            operation,
            work: Some(work),
            result: None,
            reply,
        };
        self.tasks
            .as_ref()
            .ok_or_else(stopped)?
            .send(Box::new(call))
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            _ = thread.join();
        }
    }
}

fn serve<S: Session>(queue: &Receiver<Box<dyn Task<S>>>, session: &S, transaction: Option<&str>) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        let lost = run_group(session, transaction, &mut group).err();
        session.after(lost.is_none());
        for task in group {
            task.answer(lost.as_ref());
        }
    }
}

fn run_group<S: Session>(
    session: &S,
    transaction: Option<&str>,
    group: &mut [Box<dyn Task<S>>],
) -> rusqlite::Result<()> {
    let connection = session.connection();
    let Some(transaction) = transaction else {
        for task in group {
            task.run(session);
        }
        return Ok(());
    };
    execute(connection, transaction)?;
    let done = match group {
        [task] => run_alone(session, task),
        tasks => run_tasks(session, tasks).and_then(|()| execute(connection, "COMMIT")),
    };
    if done.is_err() && !connection.is_autocommit() {
        // Nothing more can be done when even this fails; the next transaction will say so.
        _ = execute(connection, "ROLLBACK");
    }
    done
}

/// One that nobody shares the transaction with needs no savepoint.
fn run_alone<S: Session>(session: &S, task: &mut Box<dyn Task<S>>) -> rusqlite::Result<()> {
    let connection = session.connection();
    if task.run(session) {
        session.kept();
        return execute(connection, "COMMIT");
    }
    session.undone();
    // After some errors, such as a full disk, SQLite has undone it already.
    if connection.is_autocommit() {
        return Ok(());
    }
    execute(connection, "ROLLBACK")
}

fn run_tasks<S: Session>(session: &S, group: &mut [Box<dyn Task<S>>]) -> rusqlite::Result<()> {
    let connection = session.connection();
    for task in group {
        execute(connection, "SAVEPOINT task")?;
        if task.run(session) {
            session.kept();
        } else {
            session.undone();
            // After some errors, such as a full disk, SQLite has undone the whole transaction;
            // then this fails, and with it the group.
            execute(connection, "ROLLBACK TO task")?;
        }
        execute(connection, "RELEASE task")?;
    }
    Ok(())
}

fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

const STORE: &str = "the embedded store";

pub(super) fn described(operation: &'static str, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            unavailable("another process has had it locked for too long".to_owned())
        }
        Some(ErrorCode::DiskFull) => unavailable("the disk is full".to_owned()),
        code => StoreError::Refused {
            store: STORE.to_owned(),
            operation,
            reason: match code {
                Some(ErrorCode::DatabaseCorrupt) => DAMAGED.to_owned(),
                _ => error.to_string(),
            },
        },
    }
}

pub(super) fn unavailable(reason: String) -> StoreError {
    StoreError::Unavailable {
        store: STORE.to_owned(),
        reason,
    }
}

pub(super) fn stopped() -> StoreError {
    unavailable("its thread has stopped".to_owned())
}
