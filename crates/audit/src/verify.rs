//! Checks the books: one pass over the whole log, in one snapshot of the database, in memory that grows with accounts and
//! not with events. What a superuser changed behind the bank's back is found and named by its position.

use std::{collections::HashMap, time::Instant};

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, PgConnection, query, query_scalar, raw_sql};

use super::{Finding, LogHead, Money, Report, Witness, books::Books, receipts::Receipts, transfers::Transfers};
use passbook_domain::account::STATE_VERSION;
use passbook_event_store::{
    Partitions, Primary,
    log::{self, Head},
    whole,
};
use passbook_read_model::{
    DecodedEvent,
    projection::{Check, ViewGeneration},
    views::checks,
};

/// After so many events the progress is told.
const PROGRESS_EVENTS: i64 = 10_000;

/// Why the books were not found in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are not in order.
    #[error(transparent)]
    Broken(#[from] Finding),
    /// They could not be read.
    #[error("the books could not be read: {0}")]
    Storage(#[from] sqlx::Error),
}

/// Three connections that see the same moment: one reads the log, one the keys' receipts, one the views.
struct Snapshot {
    log: PgConnection,
    keys: PgConnection,
    views: PgConnection,
}

/// A view's rows up to a position, to be compared when the pass gets there.
struct Due {
    position: i64,
    name: String,
    place: ViewGeneration,
}

/// Checks everything. `progress` is told how many events were read, and of how many.
///
/// # Errors
/// The first thing found that is not in order, or that the database cannot be read.
pub async fn verify(
    connect: &Primary,
    partitions: Partitions,
    witnesses: &[Witness],
    progress: impl Fn(i64, i64),
) -> Result<Report, Error> {
    let started = Instant::now();
    let mut snapshot = snapshot(connect).await?;
    let mut report = Report::default();
    let mut transfers = Transfers::default();
    if let Some(stray) = witnesses.iter().find(|witness| witness.partition >= partitions.count()) {
        let sentence = format!("a witness saw partition {}, which is not there", stray.partition);
        return Err(Finding { partition: Some(stray.partition), position: stray.position, sentence }.into());
    }
    let mut heads = Vec::new();
    for partition in partitions.all() {
        heads.push(log::head(&mut snapshot.views, partition).await?);
    }
    let events: i64 = heads.iter().map(|head| head.position).sum();
    for (partition, head) in partitions.all().zip(&heads) {
        let witness = witnesses.iter().find(|witness| witness.partition == partition);
        let books = Books::new(
            partitions,
            partition,
            whole::snapshots(&mut snapshot.views, partition, STATE_VERSION).await?,
            witness.cloned(),
        );
        let before = report.events;
        let progress = |read| progress(before + read, events);
        pass(&mut snapshot, (partitions, partition), head, books, &mut transfers, &mut report, progress).await?;
        let hash = hex::encode(head.hash);
        report.partitions.push(LogHead { partition, position: head.position, hash });
    }
    if let Some(finding) = transfers.check(&mut snapshot.log, partitions).await? {
        return Err(finding.into());
    }
    if !partitions.are_several() {
        report.head = report.partitions.pop();
    }
    if let Some((currency, money)) = report.money.iter().find(|(_, money)| !money.adds_up()) {
        let Money { balances, paid_in, paid_out } = money;
        let sentence =
            format!("the accounts hold {balances} {currency}, and {paid_in} was paid in and {paid_out} paid out");
        return Err(Finding { partition: None, position: events, sentence }.into());
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// One pass over a partition, and what it comes to in `report`.
async fn pass(
    snapshot: &mut Snapshot,
    (partitions, partition): (Partitions, i16),
    head: &Head,
    mut books: Books,
    transfers: &mut Transfers,
    report: &mut Report,
    progress: impl Fn(i64),
) -> Result<(), Error> {
    let Snapshot { log: events, keys, views } = snapshot;
    let mut due = due(views, partition).await?;
    let mut checks: HashMap<(&str, i16), Box<dyn Check>> = checks().into_iter().collect();
    let mut receipts = Receipts::new(whole::receipts(keys, partitions, partition));

    compare_views(&mut due, 0, &checks, views, &books).await?;
    let mut log = whole::events(events, partition);
    while let Some(linked) = log.try_next().await? {
        let position = linked.event.position;
        let event = books.record(&linked)?;
        receipts.compare(&books, &linked.event).await?;
        transfers.record(linked.event.stream_id, &event);
        let decoded = DecodedEvent { recorded: linked.event, event };
        checks.values_mut().for_each(|check| check.fold(&decoded));
        compare_views(&mut due, position, &checks, views, &books).await?;
        if position % PROGRESS_EVENTS == 0 {
            progress(position);
        }
        receipts.pass(decoded.recorded);
    }
    books.close(head)?;
    report.receipts += receipts.end(&books).await?;
    if let Some(Due { position, name, .. }) = due.first() {
        let sentence = format!("the view {name} claims to have read up to here, and the log ends before");
        return Err(books.finding(*position, sentence).into());
    }
    progress(head.position);
    books.add_to(report);
    Ok(())
}

async fn snapshot(connect: &Primary) -> sqlx::Result<Snapshot> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let mut log = connect.connect().await?;
    raw_sql(begin).execute(&mut log).await?;
    let id: String = query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut log).await?;
    let join = async || {
        let mut connection = connect.connect().await?;
        raw_sql(begin).execute(&mut connection).await?;
        // The server made the name itself, of hexadecimal digits and dashes; no parameter is taken here.
        raw_sql(AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{id}'"))).execute(&mut connection).await?;
        Ok::<_, sqlx::Error>(connection)
    };
    let (keys, views) = (join().await?, join().await?);
    Ok(Snapshot { log, keys, views })
}

/// Every generation of every view that is read or will be, in the order of the positions up to which they have read.
async fn due(connection: &mut PgConnection, partition: i16) -> sqlx::Result<Vec<Due>> {
    query!(
        "SELECT name, generation, schema_version, position
         FROM projection
         WHERE partition = $1 AND state IN ('building', 'live')
         ORDER BY position",
        partition
    )
    .map(|row| Due {
        position: row.position,
        name: row.name,
        place: ViewGeneration { partition, generation: row.generation, schema_version: row.schema_version },
    })
    .fetch_all(connection)
    .await
}

/// Compares the views that have read up to `position` and no further.
async fn compare_views(
    due: &mut Vec<Due>,
    position: i64,
    checks: &HashMap<(&str, i16), Box<dyn Check>>,
    connection: &mut PgConnection,
    books: &Books,
) -> Result<(), Error> {
    while due.first().is_some_and(|due| due.position == position) {
        let Due { name, place, .. } = due.remove(0);
        // Rows of another release's shape are not ours to judge.
        let Some(check) = checks.get(&(name.as_str(), place.schema_version)) else { continue };
        if let Some(mismatch) = check.compare(connection, place, None).await? {
            return Err(books.finding(mismatch.position, mismatch.message).into());
        }
    }
    Ok(())
}
