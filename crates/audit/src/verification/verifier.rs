//! Verifies the whole log in one pass and in one snapshot of the database, while the service runs. Memory grows with accounts
//! and with the keys of transfers and batches over partitions, not with events. It finds changes that a superuser made to the tables, and
//! reports the position of the first one.

use std::{sync::Arc, time::Instant};

use sqlx::PgConnection;

use super::{
    checked_events::{CheckedEvent, CheckedEvents, Content},
    foreign_receipts::{ForeignReceipts, PartitionClaims},
    log_fold::LogFold,
    pinned_head::PinnedHead,
    receipts::Receipts,
    report::{Error, Finding, Report},
    reversals::Reversals,
    snapshot::Snapshot,
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
        heads.push(log::head(&mut snapshot.lookups, partition).await?);
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
        let pinned = pinned_heads.iter().filter(|pinned| pinned.partition == partition).cloned();
        verifier.verify_partition(&mut snapshot, partition, head, pinned.collect()).await?;
        verifier.report.partitions.push(LogHead::new(partitions, partition, head));
    }
    let Verifier { transfers, foreign_receipts, mut report, .. } = verifier;
    if let Some(finding) = transfers.find_unmatched(&mut snapshot.lookups, partitions).await? {
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
        Some((currency, money)) => {
            let [paid_in, paid_out, balances] = money.in_major_units(currency);
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
        pinned_heads: Vec<PinnedHead>,
    ) -> Result<(), Error> {
        let snapshots = scan::snapshots(&mut snapshot.lookups, partition, STATE_VERSION).await?;
        let mut fold = LogFold::new(self.partitions, partition, snapshots, pinned_heads);
        let view_checks = ViewChecks::start(snapshot, partition).await?;
        let events = CheckedEvents::read(snapshot.join().await?, partition);
        let Snapshot { keys, lookups, .. } = snapshot;
        let mut checks = PartitionChecks {
            receipts: Receipts::new(scan::keys(keys, partition)),
            claims: self.foreign_receipts.take(partition),
            reversals: Reversals::default(),
        };
        let verified = self.verify_events(&mut fold, events, &mut checks, (lookups, &view_checks)).await;
        // A view that does not match at an earlier position comes first.
        let beyond_the_log = view_checks.finish(&fold).await?;
        verified?;
        let PartitionChecks { receipts, claims, reversals } = checks;
        fold.finish(head)?;
        self.report.receipts += receipts.finish(&fold).await?;
        claims.finish(lookups, &fold).await?;
        reversals.finish(lookups, &fold, head.position).await?;
        beyond_the_log.map_or(Ok(()), Err)?;
        (self.progress)(self.report.events + head.position);
        fold.add_to(&mut self.report);
        Ok(())
    }

    /// Verifies the events in order, and passes those that are consistent on to the views.
    async fn verify_events(
        &mut self,
        fold: &mut LogFold,
        mut events: CheckedEvents,
        checks: &mut PartitionChecks<'_>,
        (lookups, view_checks): (&mut PgConnection, &ViewChecks),
    ) -> Result<(), Error> {
        while let Some(mut chunk) = events.next().await? {
            let mut verified = 0;
            let mut result = Ok(());
            for checked in &mut chunk.events {
                result = self.verify_event(fold, checked, checks, lookups).await;
                if result.is_err() {
                    break;
                }
                verified += 1;
            }
            let chunk = Arc::new(chunk);
            let goes_on = view_checks.fold(&chunk, verified).await;
            result?;
            if let Some(undecodable) = &chunk.undecodable {
                return Err(fold.undecodable(undecodable).into());
            }
            if !goes_on {
                return Ok(());
            }
            (self.progress)(self.report.events + fold.position());
        }
        Ok(())
    }

    async fn verify_event(
        &mut self,
        fold: &mut LogFold,
        checked: &mut CheckedEvent,
        checks: &mut PartitionChecks<'_>,
        lookups: &mut PgConnection,
    ) -> Result<(), Error> {
        fold.apply(checked)?;
        checks.receipts.compare(fold, checked).await?;
        checks.claims.compare(lookups, fold, checked).await?;
        self.foreign_receipts.count(checked);
        let Content::Account(decoded) = &checked.content else { return Ok(()) };
        self.transfers.add(decoded.recorded.stream_id, &decoded.event);
        checks.reversals.check(lookups, fold, decoded).await
    }
}

/// The checks of a partition besides the fold of its accounts and the views.
struct PartitionChecks<'a> {
    receipts: Receipts<'a>,
    claims: PartitionClaims,
    reversals: Reversals,
}
