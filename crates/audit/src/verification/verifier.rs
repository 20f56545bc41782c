//! Verifies the whole log in one pass and in one snapshot of the database, while the service runs. Memory grows with accounts
//! and with the keys of transfers and batches over partitions, not with events. It finds changes that a superuser made to the tables, and
//! reports the position of the first one.

use std::time::Instant;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, PgConnection, query_scalar, raw_sql};

use super::{
    foreign_receipts::ForeignReceipts,
    log_fold::LogFold,
    pinned_head::PinnedHead,
    receipts::Receipts,
    report::{Error, Finding, Money, Report},
    reversals::Reversals,
    transfers::Transfers,
    views::ViewChecks,
};
use crate::event_log::LogHead;
use passbook_domain::account::STATE_VERSION;
use passbook_event_store::{
    Partitions, PrimaryConnector,
    log::{self, Head},
    scan,
};
use passbook_read_model::DecodedEvent;

/// How many events are read between two reports of the progress.
const PROGRESS_EVENTS: i64 = 10_000;

/// Verifies the log, the snapshots, the receipts, the views and the balances. `pinned_heads` must be part of the log. `progress`
/// gets the number of events read and the number of all events.
///
/// # Errors
/// The first inconsistency, or a failure of the database.
pub async fn verify(
    primary: &PrimaryConnector,
    partitions: Partitions,
    pinned_heads: &[PinnedHead],
    progress: impl Fn(i64, i64),
) -> Result<Report, Error> {
    let started = Instant::now();
    check_partitions_exist(pinned_heads, partitions)?;
    let mut snapshot = Snapshot::open(primary).await?;
    let mut heads = Vec::new();
    for partition in partitions.all() {
        heads.push(log::head(&mut snapshot.views, partition).await?);
    }
    let events: i64 = heads.iter().map(|head| head.position).sum();
    let mut verifier = Verifier {
        partitions,
        transfers: Transfers::default(),
        foreign_receipts: ForeignReceipts::load(&mut snapshot.keys, partitions).await?,
        report: Report::default(),
        progress: |read| progress(read, events),
    };
    for (partition, head) in partitions.all().zip(&heads) {
        let pinned_head = pinned_heads.iter().find(|pinned| pinned.partition == partition);
        verifier.verify_partition(&mut snapshot, partition, head, pinned_head.cloned()).await?;
        verifier.report.partitions.push(LogHead::new(partitions, partition, head));
    }
    let Verifier { transfers, foreign_receipts, mut report, .. } = verifier;
    if let Some(finding) = transfers.find_unmatched(&mut snapshot.log, partitions).await? {
        return Err(finding.into());
    }
    if let Some(finding) = foreign_receipts.find_unnamed(events) {
        return Err(finding.into());
    }
    if !partitions.is_partitioned() {
        report.head = report.partitions.pop();
    }
    check_money(&report, events)?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn check_partitions_exist(pinned_heads: &[PinnedHead], partitions: Partitions) -> Result<(), Finding> {
    match pinned_heads.iter().find(|pinned| pinned.partition >= partitions.count()) {
        None => Ok(()),
        Some(PinnedHead { partition, position, .. }) => {
            let message = format!("the expected head is in partition {partition}, which does not exist");
            Err(Finding { partition: Some(*partition), position: *position, message })
        }
    }
}

fn check_money(report: &Report, events: i64) -> Result<(), Finding> {
    match report.money.iter().find(|(_, money)| !money.is_balanced()) {
        None => Ok(()),
        Some((currency, Money { balances, paid_in, paid_out })) => {
            let message = format!(
                "the sum of all {currency} balances is {balances}, but {paid_in} was paid in and {paid_out} paid out"
            );
            Err(Finding { partition: None, position: events, message })
        }
    }
}

/// The results that span all partitions.
struct Verifier<P> {
    partitions: Partitions,
    transfers: Transfers,
    /// Not compared yet.
    foreign_receipts: ForeignReceipts,
    report: Report,
    /// Gets the number of events read.
    progress: P,
}

impl<P: Fn(i64)> Verifier<P> {
    /// Reads the log of a partition once, and compares the snapshots, receipts and views with it.
    async fn verify_partition(
        &mut self,
        snapshot: &mut Snapshot,
        partition: i16,
        head: &Head,
        pinned_head: Option<PinnedHead>,
    ) -> Result<(), Error> {
        let Snapshot { log, keys, views } = snapshot;
        let snapshots = scan::snapshots(views, partition, STATE_VERSION).await?;
        let mut fold = LogFold::new(self.partitions, partition, snapshots, pinned_head);
        let mut view_checks = ViewChecks::load(views, partition).await?;
        let mut receipts = Receipts::new(scan::keys(keys, partition));
        let mut claims = self.foreign_receipts.take(partition);
        let mut reversals = Reversals::default();
        let read_before = self.report.events;

        view_checks.compare_at(0, views, &fold).await?;
        let mut events = scan::events(log, partition);
        while let Some(linked) = events.try_next().await? {
            let position = linked.event.position;
            let event = fold.apply(&linked)?;
            receipts.compare(&fold, &linked).await?;
            claims.compare(views, &fold, &linked).await?;
            self.foreign_receipts.count(&linked);
            self.transfers.add(linked.event.stream_id, &event);
            reversals.check(views, &fold, (&linked.event, &event)).await?;
            let decoded = DecodedEvent { recorded: linked.event, event };
            view_checks.fold(&decoded);
            view_checks.compare_at(position, views, &fold).await?;
            if position % PROGRESS_EVENTS == 0 {
                (self.progress)(read_before + position);
            }
        }
        fold.finish(head)?;
        self.report.receipts += receipts.finish(&fold).await?;
        claims.finish(views, &fold).await?;
        reversals.finish(views, &fold, head.position).await?;
        view_checks.finish(&fold)?;
        (self.progress)(read_before + head.position);
        fold.add_to(&mut self.report);
        Ok(())
    }
}

/// Three connections that share one snapshot of the database, because each of them streams rows.
struct Snapshot {
    log: PgConnection,
    keys: PgConnection,
    views: PgConnection,
}

impl Snapshot {
    async fn open(primary: &PrimaryConnector) -> sqlx::Result<Self> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut log = primary.connect().await?;
        raw_sql(begin).execute(&mut log).await?;
        let id: String = query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut log).await?;
        let join = async || {
            let mut connection = primary.connect().await?;
            raw_sql(begin).execute(&mut connection).await?;
            // The statement takes no parameters. The id comes from the server and contains only hex digits and dashes.
            raw_sql(AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{id}'"))).execute(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let (keys, views) = (join().await?, join().await?);
        Ok(Self { log, keys, views })
    }
}
