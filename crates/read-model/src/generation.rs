//! The rows of the table `projection`: the generations of each view, their checkpoints, and the row locks that let one process at
//! a time move them.

use sqlx::{Connection, PgConnection, Result, query, query_as, query_scalar};

use crate::{decoded_event::cannot_apply, projection::ViewGeneration, views::known_views};
use passbook_event_store::{Partitions, PrimaryConnector};

/// The checkpoint of one generation of a view.
pub(crate) struct Checkpoint {
    pub(crate) name: String,
    pub(crate) view: ViewGeneration,
    pub(crate) position: i64,
    /// Whether the row contains the reason of a failure. The next batch clears it, even without events.
    pub(crate) has_failure: bool,
    /// Whether the check before going live compares every row instead of a sample.
    pub(crate) check_all: bool,
}

impl Checkpoint {
    /// Name and number of the generation.
    pub(crate) fn key(&self) -> (String, i16) {
        (self.name.clone(), self.view.generation)
    }
}

/// Registers the views of this release in every partition. A view of an empty log is live at once, so a service calls this before
/// its first command.
///
/// # Errors
/// The database cannot be reached or refuses the rows.
pub async fn register(primary: &PrimaryConnector, partitions: Partitions) -> Result<()> {
    let mut connection = primary.connect().await?;
    for partition in partitions.all() {
        register_views(&mut connection, partition).await?;
    }
    connection.close().await
}

/// Whether a generation is to be built or deleted. Takes no lock.
pub(crate) async fn has_pending_work(connection: &mut PgConnection, partition: i16) -> Result<bool> {
    query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM projection
               JOIN unnest($2::text[], $3::smallint[]) AS known(name, schema_version)
                 ON known.name = projection.name AND known.schema_version >= projection.schema_version
               WHERE partition = $1 AND state IN ('building', 'retired')
           ) AS "work!""#,
        partition,
        &known_views().names,
        &known_views().schema_versions
    )
    .fetch_one(connection)
    .await
}

/// Registers views that are new to this log, and new generations of views whose shape has changed in this release. They start at
/// position 0: as `building`, or as `live` on an empty log.
pub(crate) async fn register_views(connection: &mut PgConnection, partition: i16) -> Result<()> {
    let registered =
        query!("SELECT name, generation, schema_version, state FROM projection WHERE partition = $1", partition)
            .fetch_all(&mut *connection)
            .await?;
    for (name, schema_version) in known_views().names.iter().zip(&known_views().schema_versions) {
        let generations = || registered.iter().filter(|row| row.name == *name);
        if generations().any(|row| row.schema_version >= *schema_version) {
            continue;
        }
        let generation = generations().map(|row| row.generation).max().unwrap_or(0) + 1;
        let has_live = generations().any(|row| row.state == "live");
        let head = query_scalar!("SELECT position FROM log_head WHERE partition = $1", partition);
        let Some(head) = head.fetch_optional(&mut *connection).await? else { return Ok(()) };
        let state = if head == 0 && !has_live { "live" } else { "building" };
        // Another instance may have registered the view since.
        query!(
            "INSERT INTO projection (partition, name, generation, schema_version, state, position)
             VALUES ($1, $2, $3, $4, $5, 0)
             ON CONFLICT DO NOTHING",
            partition,
            name,
            generation,
            schema_version,
            state
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Registers the next generation of a view, to be built from position 0 in every partition, and returns its number. Returns
/// `None` if one is being built already. A generation that failed is retired first.
pub(crate) async fn start_rebuild(
    connection: &mut PgConnection,
    partitions: Partitions,
    name: &str,
    schema_version: i16,
    check_all: bool,
) -> Result<Option<i16>> {
    let mut transaction = connection.begin().await?;
    let mut generation = 1;
    for partition in partitions.all() {
        generation = generation.max(retire_stale(&mut transaction, partition, name).await?);
    }
    for partition in partitions.all() {
        let inserted = query!(
            "INSERT INTO projection (partition, name, generation, schema_version, state, position, check_all)
             VALUES ($1, $2, $3, $4, 'building', 0, $5)
             ON CONFLICT DO NOTHING",
            partition,
            name,
            generation,
            schema_version,
            check_all
        )
        .execute(&mut *transaction)
        .await?;
        if inserted.rows_affected() == 0 {
            // A rebuild starts in all partitions or in none.
            transaction.rollback().await?;
            return Ok(None);
        }
    }
    transaction.commit().await?;
    Ok(Some(generation))
}

/// Retires generations of a view that failed, in one partition, and returns the next free number there.
async fn retire_stale(connection: &mut PgConnection, partition: i16, name: &str) -> Result<i16> {
    query!(
        "UPDATE projection SET state = 'retired'
         WHERE partition = $1 AND name = $2
           AND (state = 'failed' OR state = 'building' AND failure IS NOT NULL)",
        partition,
        name
    )
    .execute(&mut *connection)
    .await?;
    query_scalar!(
        r#"SELECT (coalesce(max(generation), 0) + 1)::smallint AS "next!"
           FROM projection
           WHERE partition = $1 AND name = $2"#,
        partition,
        name
    )
    .fetch_one(connection)
    .await
}

/// The number of the generation that is being built, if any.
pub(crate) async fn building_generation(
    connection: &mut PgConnection,
    partition: i16,
    name: &str,
) -> Result<Option<i16>> {
    query_scalar!(
        "SELECT generation FROM projection WHERE partition = $1 AND name = $2 AND state = 'building'",
        partition,
        name
    )
    .fetch_optional(connection)
    .await
}

/// Reads the checkpoints in `state` whose shape this release can write, without locks. They are sorted by position.
pub(crate) async fn read_checkpoints(
    connection: &mut PgConnection,
    partition: i16,
    state: &str,
) -> Result<Vec<Checkpoint>> {
    let rows = query_as!(
        Row,
        r#"SELECT projection.name, generation, projection.schema_version, position, check_all,
                  failure IS NOT NULL AS "has_failure!"
           FROM projection
           JOIN unnest($3::text[], $4::smallint[]) AS known(name, schema_version)
             ON known.name = projection.name AND known.schema_version >= projection.schema_version
           WHERE partition = $1 AND state = $2"#,
        partition,
        state,
        &known_views().names,
        &known_views().schema_versions
    );
    Ok(sorted_checkpoints(partition, rows.fetch_all(connection).await?))
}

fn sorted_checkpoints(partition: i16, rows: Vec<Row>) -> Vec<Checkpoint> {
    let mut checkpoints: Vec<Checkpoint> = rows.into_iter().map(|row| row.checkpoint(partition)).collect();
    checkpoints.sort_unstable_by_key(|checkpoint| checkpoint.position);
    checkpoints
}

/// Locks the checkpoints in `state` that no other process has locked and whose shape this release can write. They are sorted by
/// position.
pub(crate) async fn claim(connection: &mut PgConnection, partition: i16, state: &str) -> Result<Vec<Checkpoint>> {
    let rows = query_as!(
        Row,
        r#"SELECT projection.name, generation, projection.schema_version, position, check_all,
                  failure IS NOT NULL AS "has_failure!"
           FROM projection
           JOIN unnest($3::text[], $4::smallint[]) AS known(name, schema_version)
             ON known.name = projection.name AND known.schema_version >= projection.schema_version
           WHERE partition = $1 AND state = $2
           FOR UPDATE OF projection SKIP LOCKED"#,
        partition,
        state,
        &known_views().names,
        &known_views().schema_versions
    );
    Ok(sorted_checkpoints(partition, rows.fetch_all(connection).await?))
}

/// Locks the checkpoint of a generation that is being built. `None` if another process has locked it, if it is no longer built, or if
/// its position is not `checkpoint.position` any more.
pub(crate) async fn claim_building(
    connection: &mut PgConnection,
    checkpoint: &Checkpoint,
) -> Result<Option<Checkpoint>> {
    let row = query_as!(
        Row,
        r#"SELECT name, generation, schema_version, position, check_all, failure IS NOT NULL AS "has_failure!"
           FROM projection
           WHERE partition = $1 AND name = $2 AND generation = $3 AND state = 'building' AND position = $4
           FOR UPDATE SKIP LOCKED"#,
        checkpoint.view.partition,
        checkpoint.name,
        checkpoint.view.generation,
        checkpoint.position
    );
    Ok(row.fetch_optional(connection).await?.map(|row| row.checkpoint(checkpoint.view.partition)))
}

/// Locks the checkpoint of the live generation of a view. Waits for a projector that holds the lock.
pub(crate) async fn lock_live(connection: &mut PgConnection, partition: i16, name: &str) -> Result<Option<Checkpoint>> {
    let row = query_as!(
        Row,
        r#"SELECT name, generation, schema_version, position, check_all, failure IS NOT NULL AS "has_failure!"
           FROM projection
           WHERE partition = $1 AND name = $2 AND state = 'live'
           FOR UPDATE"#,
        partition,
        name
    );
    Ok(row.fetch_optional(connection).await?.map(|row| row.checkpoint(partition)))
}

/// Reads the checkpoint of one generation without a lock.
pub(crate) async fn read_checkpoint(
    connection: &mut PgConnection,
    name: &str,
    view: ViewGeneration,
) -> Result<Checkpoint> {
    let row = query_as!(
        Row,
        r#"SELECT name, generation, schema_version, position, check_all, failure IS NOT NULL AS "has_failure!"
           FROM projection
           WHERE partition = $1 AND name = $2 AND generation = $3"#,
        view.partition,
        name,
        view.generation
    );
    Ok(row.fetch_one(connection).await?.checkpoint(view.partition))
}

/// Moves the checkpoint to `to` and clears its failure. It must still be at the position at which it was read.
pub(crate) async fn advance_checkpoint(connection: &mut PgConnection, checkpoint: &Checkpoint, to: i64) -> Result<()> {
    let updated = query!(
        "UPDATE projection
         SET position = $5, failure = NULL
         WHERE partition = $1 AND name = $2 AND generation = $3 AND position = $4",
        checkpoint.view.partition,
        checkpoint.name,
        checkpoint.view.generation,
        checkpoint.position,
        to
    )
    .execute(connection)
    .await?;
    match updated.rows_affected() {
        1 => Ok(()),
        _ => Err(cannot_apply(format!(
            "the checkpoint of {} is no longer at position {}: another process moved it",
            checkpoint.name, checkpoint.position
        ))),
    }
}

/// Stores why a view cannot apply its next batch.
pub(crate) async fn store_failure(connection: &mut PgConnection, checkpoint: &Checkpoint, reason: &str) -> Result<()> {
    query!(
        "UPDATE projection SET failure = $4
         WHERE partition = $1 AND name = $2 AND generation = $3 AND failure IS DISTINCT FROM $4",
        checkpoint.view.partition,
        checkpoint.name,
        checkpoint.view.generation,
        reason
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Sets the state of a generation and clears its failure.
pub(crate) async fn set_state(
    connection: &mut PgConnection,
    name: &str,
    view: ViewGeneration,
    state: &str,
) -> Result<()> {
    query!(
        "UPDATE projection SET state = $4, failure = NULL WHERE partition = $1 AND name = $2 AND generation = $3",
        view.partition,
        name,
        view.generation,
        state
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks a generation as failed, with the reason. If it went live meanwhile, after the check of another process, it stays live.
pub(crate) async fn mark_failed(
    connection: &mut PgConnection,
    name: &str,
    view: ViewGeneration,
    reason: &str,
) -> Result<()> {
    query!(
        "UPDATE projection SET state = 'failed', failure = $4
         WHERE partition = $1 AND name = $2 AND generation = $3 AND state = 'building'",
        view.partition,
        name,
        view.generation,
        reason
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the checkpoint of a generation whose rows are deleted.
pub(crate) async fn delete_generation(connection: &mut PgConnection, name: &str, view: ViewGeneration) -> Result<()> {
    query!(
        "DELETE FROM projection WHERE partition = $1 AND name = $2 AND generation = $3",
        view.partition,
        name,
        view.generation
    )
    .execute(connection)
    .await?;
    Ok(())
}

struct Row {
    name: String,
    generation: i16,
    schema_version: i16,
    position: i64,
    has_failure: bool,
    check_all: bool,
}

impl Row {
    fn checkpoint(self, partition: i16) -> Checkpoint {
        let Self { name, generation, schema_version, position, has_failure, check_all } = self;
        let view = ViewGeneration { partition, generation, schema_version };
        Checkpoint { name, view, position, has_failure, check_all }
    }
}
