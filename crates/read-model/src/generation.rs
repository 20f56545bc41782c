//! The rows of the table `projection`: which generations of a view there are, how far each has read, and the locks behind
//! which one process at a time moves them.

use sqlx::{Connection, PgConnection, Result, query, query_as, query_scalar};

use super::projection::{Place, cannot_apply, known};
use passbook_event_store::Partitions;

/// A checkpoint that is locked for this transaction.
pub(super) struct Checkpoint {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) position: i64,
    /// The row is to be written even if there is no event: it says why the view stood still.
    pub(super) failed: bool,
    /// Every row is compared before it goes live, and not a sample.
    pub(super) check_all: bool,
}

impl Checkpoint {
    /// The view and its generation.
    pub(super) fn generation(&self) -> (String, i16) {
        (self.name.clone(), self.place.generation)
    }
}

/// A look without a lock whether anything is to be built or deleted.
pub(super) async fn is_work(connection: &mut PgConnection, partition: i16) -> Result<bool> {
    query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM projection
               JOIN unnest($2::text[], $3::smallint[]) AS known(name, schema_version)
                 ON known.name = projection.name AND known.schema_version >= projection.schema_version
               WHERE partition = $1 AND state IN ('building', 'retired')
           ) AS "work!""#,
        partition,
        &known().names,
        &known().schema_versions
    )
    .fetch_one(connection)
    .await
}

/// A view that is new to this log, or whose rows mean something else in this release, is built from position 0. On an
/// empty log there is nothing to build.
pub(super) async fn register(connection: &mut PgConnection, partition: i16) -> Result<()> {
    for (name, schema_version) in known().names.iter().zip(&known().schema_versions) {
        query!(
            "INSERT INTO projection (partition, name, generation, schema_version, state, position)
             SELECT
                 $1,
                 $2,
                 (SELECT coalesce(max(generation), 0) + 1 FROM projection WHERE partition = $1 AND name = $2),
                 $3,
                 CASE WHEN position = 0 AND NOT EXISTS (
                     SELECT FROM projection WHERE partition = $1 AND name = $2 AND state = 'live'
                 ) THEN 'live' ELSE 'building' END,
                 0
             FROM log_head
             WHERE partition = $1
               AND NOT EXISTS (
                   SELECT FROM projection WHERE partition = $1 AND name = $2 AND schema_version >= $3
               )
             ON CONFLICT DO NOTHING",
            partition,
            name,
            schema_version
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The next generation of a view, to be built from position 0 in every partition; `None` where one is being built. One
/// whose check failed, or which cannot be built, makes way for it.
pub(super) async fn begin(
    connection: &mut PgConnection,
    partitions: Partitions,
    name: &str,
    schema_version: i16,
    check_all: bool,
) -> Result<Option<i16>> {
    let mut transaction = connection.begin().await?;
    let mut generation = 1;
    for partition in partitions.all() {
        generation = generation.max(make_way(&mut transaction, partition, name).await?);
    }
    for partition in partitions.all() {
        let begun = query!(
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
        if begun.rows_affected() == 0 {
            // In all partitions or in none.
            transaction.rollback().await?;
            return Ok(None);
        }
    }
    transaction.commit().await?;
    Ok(Some(generation))
}

/// Retires what hinders the next generation in one partition, and says which number is free there.
async fn make_way(connection: &mut PgConnection, partition: i16, name: &str) -> Result<i16> {
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

/// The generation of a view that is being built.
pub(super) async fn building(connection: &mut PgConnection, partition: i16, name: &str) -> Result<Option<i16>> {
    query_scalar!(
        "SELECT generation FROM projection WHERE partition = $1 AND name = $2 AND state = 'building'",
        partition,
        name
    )
    .fetch_optional(connection)
    .await
}

/// Locks the checkpoints in `state` that no other process has locked, in the order of their positions: those of views that
/// this release can write.
pub(super) async fn claim(connection: &mut PgConnection, partition: i16, state: &str) -> Result<Vec<Checkpoint>> {
    let rows = query_as!(
        Row,
        "SELECT projection.name, generation, projection.schema_version, position, failure, check_all
         FROM projection
         JOIN unnest($3::text[], $4::smallint[]) AS known(name, schema_version)
           ON known.name = projection.name AND known.schema_version >= projection.schema_version
         WHERE partition = $1 AND state = $2
         FOR UPDATE OF projection SKIP LOCKED",
        partition,
        state,
        &known().names,
        &known().schema_versions
    );
    let mut claimed = rows.map(|row| row.checkpoint(partition)).fetch_all(connection).await?;
    claimed.sort_unstable_by_key(|checkpoint| checkpoint.position);
    Ok(claimed)
}

/// The live generation of a view, once whoever moves it has done so.
pub(super) async fn lock_live(connection: &mut PgConnection, partition: i16, name: &str) -> Result<Option<Checkpoint>> {
    let row = query_as!(
        Row,
        "SELECT name, generation, schema_version, position, failure, check_all
         FROM projection
         WHERE partition = $1 AND name = $2 AND state = 'live'
         FOR UPDATE",
        partition,
        name
    );
    Ok(row.fetch_optional(connection).await?.map(|row| row.checkpoint(partition)))
}

/// One generation, where this transaction sees it.
pub(super) async fn read(connection: &mut PgConnection, name: &str, place: Place) -> Result<Checkpoint> {
    let row = query_as!(
        Row,
        "SELECT name, generation, schema_version, position, failure, check_all
         FROM projection
         WHERE partition = $1 AND name = $2 AND generation = $3",
        place.partition,
        name,
        place.generation
    );
    Ok(row.fetch_one(connection).await?.checkpoint(place.partition))
}

/// Moves the checkpoint if it still stands where it was read.
pub(super) async fn advance(connection: &mut PgConnection, checkpoint: &Checkpoint, to: i64) -> Result<()> {
    let updated = query!(
        "UPDATE projection
         SET position = $5, failure = NULL
         WHERE partition = $1 AND name = $2 AND generation = $3 AND position = $4",
        checkpoint.place.partition,
        checkpoint.name,
        checkpoint.place.generation,
        checkpoint.position,
        to
    )
    .execute(connection)
    .await?;
    match updated.rows_affected() {
        1 => Ok(()),
        _ => Err(cannot_apply(format!("the checkpoint of {} is not where it was", checkpoint.name))),
    }
}

/// Changes what a generation is for.
pub(super) async fn turn(connection: &mut PgConnection, name: &str, place: Place, state: &str) -> Result<()> {
    query!(
        "UPDATE projection SET state = $4, failure = NULL WHERE partition = $1 AND name = $2 AND generation = $3",
        place.partition,
        name,
        place.generation,
        state
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What was built is not in order. One that went live meanwhile, found in order by another process, stays.
pub(super) async fn fail(connection: &mut PgConnection, name: &str, place: Place, flaw: &str) -> Result<()> {
    query!(
        "UPDATE projection SET state = 'failed', failure = $4
         WHERE partition = $1 AND name = $2 AND generation = $3 AND state = 'building'",
        place.partition,
        name,
        place.generation,
        flaw
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets a generation whose rows are gone.
pub(super) async fn remove(connection: &mut PgConnection, name: &str, place: Place) -> Result<()> {
    query!(
        "DELETE FROM projection WHERE partition = $1 AND name = $2 AND generation = $3",
        place.partition,
        name,
        place.generation
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
    failure: Option<String>,
    check_all: bool,
}

impl Row {
    fn checkpoint(self, partition: i16) -> Checkpoint {
        let Self { name, generation, schema_version, position, failure, check_all } = self;
        let place = Place { partition, generation, schema_version };
        Checkpoint { name, place, position, failed: failure.is_some(), check_all }
    }
}
