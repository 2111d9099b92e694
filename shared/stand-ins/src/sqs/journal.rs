//! Durable copy of the queues: a SQLite file that is written before each response, so a killed
//! process loses no acknowledged change.
//!
//! Bodies and deliveries are in separate tables, because a receive changes a few numbers and must
//! not rewrite a large body.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{
    message::{Delivery, Message},
    queue::Queue,
    state::{Change, State},
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY, about TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS contents (sequence INTEGER PRIMARY KEY, content TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS deliveries (
        sequence INTEGER PRIMARY KEY, queue TEXT NOT NULL, visible_at_ms INTEGER NOT NULL,
        receive_count INTEGER NOT NULL, first_received_ms INTEGER, last_received_ms INTEGER, source_arn TEXT);
    CREATE TABLE IF NOT EXISTS tasks (started INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL);
";

/// Time for which a process that is stopping may still hold the file.
const MAX_BUSY_WAIT: Duration = Duration::from_millis(500);

/// The open SQLite file.
pub struct Journal {
    connection: Connection,
}

impl Journal {
    /// Opens or creates `sqs.sqlite` in `directory`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be used or another process has it open.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let path = directory.join("sqs.sqlite");
        let connection = Connection::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        connection.busy_timeout(MAX_BUSY_WAIT)?;
        // One process owns the file. A second process must fail instead of delivering the same
        // messages.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(SCHEMA).with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Self { connection })
    }

    /// Loads the content of the file into `state`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn load(&self, state: &mut State, now_ms: u64) -> anyhow::Result<()> {
        let mut statement = self.connection.prepare("SELECT name, about FROM queues")?;
        for row in statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))? {
            let (name, metadata) = row?;
            state.queues.insert(name, Queue::new(serde_json::from_str(&metadata)?));
        }
        let mut statement = self.connection.prepare("SELECT task FROM tasks ORDER BY started")?;
        for task in statement.query_map([], |row| row.get::<_, String>(0))? {
            state.tasks.push(serde_json::from_str(&task?)?);
        }
        self.load_messages(state, now_ms)
    }

    /// Writes the changes of `state` in one transaction. `state` keeps the list of changes, so that
    /// the caller can retry.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&mut self, state: &State) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        for change in &state.changes {
            write_change(&transaction, state, change)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn load_messages(&self, state: &mut State, now_ms: u64) -> anyhow::Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT sequence, queue, content, visible_at_ms, receive_count, first_received_ms, last_received_ms,
                    source_arn
             FROM deliveries JOIN contents USING (sequence) ORDER BY sequence",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let content = Arc::new(serde_json::from_str(&row.get::<_, String>(2)?)?);
            let delivery = Delivery {
                visible_at_ms: row.get(3)?,
                receive_count: row.get(4)?,
                first_received_ms: row.get(5)?,
                last_received_ms: row.get(6)?,
                source_arn: row.get(7)?,
            };
            state.restore(&row.get::<_, String>(1)?, row.get(0)?, Message { content, delivery }, now_ms);
        }
        Ok(())
    }
}

fn write_change(transaction: &Transaction<'_>, state: &State, change: &Change) -> anyhow::Result<()> {
    match change {
        Change::QueueUpdated(name) => {
            if let Some(queue) = state.queues.get(name) {
                let row = serde_json::to_string(&queue.metadata)?;
                execute(transaction, "INSERT OR REPLACE INTO queues VALUES (?1, ?2)", params![name, row])?;
            }
        }
        Change::QueueDeleted(name) => execute(transaction, "DELETE FROM queues WHERE name = ?1", params![name])?,
        Change::MessageAdded(sequence, queue) => {
            if let Some(message) = state.queues.get(queue).and_then(|queue| queue.get(*sequence)) {
                let content = serde_json::to_string(&*message.content)?;
                execute(transaction, "INSERT OR REPLACE INTO contents VALUES (?1, ?2)", params![sequence, content])?;
                write_delivery(transaction, *sequence, queue, &message.delivery)?;
            }
        }
        Change::DeliveryUpdated(sequence, queue) => {
            if let Some(message) = state.queues.get(queue).and_then(|queue| queue.get(*sequence)) {
                write_delivery(transaction, *sequence, queue, &message.delivery)?;
            }
        }
        Change::MessageDeleted(sequence) => {
            execute(transaction, "DELETE FROM contents WHERE sequence = ?1", params![sequence])?;
            execute(transaction, "DELETE FROM deliveries WHERE sequence = ?1", params![sequence])?;
        }
        Change::TaskUpdated(id) => write_task(transaction, state, id)?,
    }
    Ok(())
}

fn write_delivery(
    transaction: &Transaction<'_>,
    sequence: u64,
    queue: &str,
    delivery: &Delivery,
) -> rusqlite::Result<()> {
    let Delivery { visible_at_ms, receive_count, first_received_ms, last_received_ms, source_arn } = delivery;
    execute(
        transaction,
        "INSERT OR REPLACE INTO deliveries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![sequence, queue, visible_at_ms, receive_count, first_received_ms, last_received_ms, source_arn],
    )
}

fn write_task(transaction: &Transaction<'_>, state: &State, id: &str) -> anyhow::Result<()> {
    let Some(task) = state.tasks.iter().find(|task| task.id == id) else { return Ok(()) };
    let row = serde_json::to_string(task)?;
    let existing: Option<i64> = transaction
        .prepare_cached("SELECT started FROM tasks WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    execute(transaction, "INSERT OR REPLACE INTO tasks VALUES (?1, ?2, ?3)", params![existing, id, row])?;
    Ok(())
}

fn execute(transaction: &Transaction<'_>, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<()> {
    transaction.prepare_cached(sql)?.execute(parameters)?;
    Ok(())
}
