//! Checks every reversal against its original, which is read from the log: the reversals of a movement are never more than its amount in
//! sum, and the rows that decisions rest on say the same. Memory grows with reversals.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    log_fold::LogFold,
    report::{Error, Finding},
};
use passbook_domain::{
    Event,
    event::MovementReversed,
    reversal::{Effect, MovementKind, RecordedMovement},
};
use passbook_event_store::{StreamVersion, log::Reversal, reader, reversals};
use passbook_read_model::DecodedEvent;

/// How many rows are read at once.
const PAGE_ROWS: i64 = 2_000;

/// The reversals of a partition.
#[derive(Default)]
pub(super) struct Reversals(BTreeMap<StreamVersion, Vec<Reversal>>);

impl Reversals {
    /// Checks `event`, if it is a reversal.
    pub(super) async fn check(
        &mut self,
        connection: &mut PgConnection,
        fold: &LogFold,
        DecodedEvent { recorded, event, .. }: &DecodedEvent,
    ) -> Result<(), Error> {
        let Event::MovementReversed(reversed) = event else { return Ok(()) };
        let movement = StreamVersion { stream_id: recorded.stream_id, version: reversed.reverses_version };
        let original = read_original(connection, fold.partition(), movement).await?;
        let Some(original) = original.filter(|original| is_reversed_by(original, reversed)) else {
            let message = format!("the event reverses version {}, which does not match", movement.version);
            return Err(fold.finding(recorded.position, message).into());
        };
        if !reversed.is_counted() {
            return Ok(());
        }
        let reversals = self.0.entry(movement).or_default();
        let amount = reversed.amount.minor_units();
        let before = reversals.last().map_or(0, |last| last.reversed);
        let number = i32::try_from(reversals.len() + 1).unwrap_or(i32::MAX);
        let reversing_version = recorded.version;
        reversals.push(Reversal { movement, number, amount, reversed: before + amount, reversing_version });
        if before + amount > original.amount.minor_units() {
            let message = format!(
                "the reversals of version {} of account {} are {} in sum, more than its amount",
                movement.version,
                movement.stream_id,
                before + amount
            );
            return Err(fold.finding(recorded.position, message).into());
        }
        Ok(())
    }

    /// Compares the rows that decisions rest on with the events. `position` is that of the last event.
    pub(super) async fn finish(
        self,
        connection: &mut PgConnection,
        fold: &LogFold,
        position: i64,
    ) -> Result<(), Error> {
        let mut expected = self.0.into_values().flatten();
        let mut after = (StreamVersion { stream_id: Uuid::nil(), version: 0 }, 0);
        loop {
            let page = reversals::page(connection, fold.partition(), after, PAGE_ROWS).await?;
            for row in &page {
                match expected.next() {
                    Some(reversal) if reversal == *row => {}
                    Some(reversal) => return Err(wrong_row(fold, position, reversal.movement.min(row.movement)).into()),
                    None => return Err(wrong_row(fold, position, row.movement).into()),
                }
            }
            match page.last() {
                Some(last) if page.len() as i64 == PAGE_ROWS => after = (last.movement, last.number),
                Some(_) | None => break,
            }
        }
        match expected.next() {
            None => Ok(()),
            Some(reversal) => Err(wrong_row(fold, position, reversal.movement).into()),
        }
    }
}

async fn read_original(
    connection: &mut PgConnection,
    partition: i16,
    movement: StreamVersion,
) -> sqlx::Result<Option<RecordedMovement>> {
    let StreamVersion { stream_id, version } = movement;
    let page = reader::page_of_stream(connection, partition, stream_id, version - 1, 1).await?;
    let original = page.into_iter().map(|read| read.event).find(|original| original.version == version);
    Ok(original.and_then(|original| {
        let event = Event::decode(&original.event_type, original.schema_version, &original.data).ok()?;
        RecordedMovement::of_event(&event, version, original.id)
    }))
}

/// Whether a reversal names this movement, and moves the money back.
fn is_reversed_by(original: &RecordedMovement, reversed: &MovementReversed) -> bool {
    let (effect, transfer_id) = match original.kind {
        MovementKind::Credit => (Effect::Debit, None),
        MovementKind::Debit => (Effect::Credit, None),
        MovementKind::Sent { transfer_id, .. } => (Effect::Credit, Some(transfer_id)),
        MovementKind::Received { transfer_id, .. } => (Effect::Debit, Some(transfer_id)),
        MovementKind::Reversal => return false,
    };
    (original.event_id, effect, transfer_id) == (reversed.reverses_event_id, reversed.effect, reversed.transfer_id)
}

fn wrong_row(fold: &LogFold, position: i64, movement: StreamVersion) -> Finding {
    let StreamVersion { stream_id, version } = movement;
    let message = format!("the rows of reversals of version {version} of account {stream_id} do not match the events");
    fold.finding(position, message)
}
