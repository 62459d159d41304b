//! Opening connections, and the tables with their version.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::folder::{Folder, unusable};
use super::thread::Fault;
use crate::error::StoreError;

/// The newest version of the tables that this code knows. Version `n` is what the first `n`
/// migrations make.
const VERSION: i64 = 4;

const MIGRATIONS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("kv.sql"),
    include_str!("schema_4.sql"),
];

/// How long to wait for another process, such as a command-line tool, to end its transaction.
const BUSY: Duration = Duration::from_secs(10);

/// Bytes of a page, of new files: with payloads of a kilobyte a commit then writes a third fewer pages than
/// with the 4 KiB that `SQLite` takes by itself, and with twice as many it takes longer again.
const PAGE: i64 = 8192;

/// The write-ahead log is cut to this once it has been copied into the database.
const LOG_BYTES: i64 = 64 << 20;

/// After so many pages the write-ahead log is copied into the database: pages that are
/// written again and again, as those of an index's end are, are then copied once for many writes.
const LOG_PAGES: i64 = 8_000;

/// Pages kept in memory by the connection that writes: room for the ends of all indexes and some
/// thousand rows. A commit after which a page was balanced looks at every page kept (a seventh of the
/// writer's time with 64 MiB), and what is read beyond comes from the system's cache.
const CACHE_KIB: i64 = 16 << 10;

/// More statements than the store has, so that each is prepared once.
const STATEMENTS: usize = 128;

/// Opens the connection that writes, with the tables as this version wants them. Tools bring them there
/// only when no host is using them.
pub(super) fn open_writer(folder: &Folder) -> Result<Connection, StoreError> {
    let path = &folder.database;
    let mut connection = connect(path).map_err(|error| failed(path, &error))?;
    prepare_writer(&connection).map_err(|error| failed(path, &error))?;
    migrate(&mut connection, folder)?;
    Ok(connection)
}

/// Makes a database of an empty file, without tables.
pub(super) fn begin(path: &Path) -> Result<(), StoreError> {
    let connection = connect(path).map_err(|error| failed(path, &error))?;
    prepare_writer(&connection).map_err(|error| failed(path, &error))?;
    connection
        .close()
        .map_err(|(_, error)| failed(path, &error))
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path).map_err(|error| failed(path, &error))?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(|error| failed(path, &error))?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise a statement that compares a parameter with what a partial index is about is prepared
    // again whenever the parameter changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The references in the schema tell readers what belongs together. They are kept by the code,
    // for to check them SQLite would want indexes that nothing else needs.
    connection.pragma_update(None, "foreign_keys", false)?;
    Ok(connection)
}

fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    // Has no effect on a file that has pages already.
    connection.pragma_update(None, "page_size", PAGE)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A commit returns once it is on the disk.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    // Each task is a savepoint; what undoes it would otherwise be written to a file, a fifth of the
    // writer's time.
    connection.pragma_update(None, "temp_store", "memory")?;
    // Negative: in KiB.
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

fn migrate(connection: &mut Connection, folder: &Folder) -> Result<(), StoreError> {
    let path = &folder.database;
    let version = version(connection).map_err(|error| failed(path, &error))?;
    if version > VERSION {
        return Err(unusable(
            path,
            format!(
                "it was written by a newer wasmhook (its tables have version {version}, this \
                 wasmhook knows versions up to {VERSION}); update wasmhook, or choose another data \
                 folder"
            ),
        ));
    }
    if version == VERSION {
        return Ok(());
    }
    if folder.is_anothers()? {
        return Err(unusable(
            path,
            "a host of an older wasmhook is using it; start the host again with this version first",
        ));
    }
    upgrade(connection).map_err(|error| failed(path, &error))
}

/// A file in which pages are not as they were written.
pub(super) const DAMAGED: &str = "the database file is damaged; put a backup in its place";

/// What is due could not be read when the store was opened.
pub(super) fn unreadable(folder: &Folder, fault: Fault) -> StoreError {
    match fault {
        Fault::Sql(error) => failed(&folder.database, &error),
        Fault::Store(error) => error,
    }
}

/// Brings the tables to [`VERSION`] in one transaction. The version is read again within it, for
/// another process may have been faster.
fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = usize::try_from(version(&transaction)?).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(from) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not an SQLite database".to_owned(),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "this user may not write there".to_owned()
        }
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => DAMAGED.to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has had it locked for too long".to_owned()
        }
        _ => error.to_string(),
    };
    unusable(path, reason)
}
