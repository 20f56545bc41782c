//! The rows that a batch appends: events, counts of reversals and snapshots.

use uuid::Uuid;

use super::{Decision, Failure};
use crate::{command::CommandContext, receipt::RecordedFact};
use passbook_domain::{Event, event::MovementReversed};
use passbook_event_store::{NewEvent, StreamVersion, log};

impl Decision<'_> {
    /// Adds an event to the append unless this is a dry run, and returns what the receipt says about it.
    pub(super) fn append_event(
        &mut self,
        partition: i16,
        (stream_id, version): (Uuid, i64),
        event: &Event,
        context: &CommandContext,
    ) -> Result<RecordedFact, Failure> {
        let event_type = event.name().to_owned();
        let id = Uuid::now_v7();
        // A later command of the same dry run is decided on the state that this one would leave.
        let reversal = match self.is_kept(context) {
            true => self.keep_event((stream_id, version), id, event),
            false => None,
        };
        if context.dry_run {
            return Ok(RecordedFact { id: None, event_type, version, recorded_at: None });
        }
        let new = NewEvent {
            id,
            stream_id,
            version,
            event_type: event.name(),
            schema_version: event.schema_version(),
            data: serde_json::to_string(event).map_err(|_| Failure::Internal)?,
            metadata: context.metadata().map_err(|_| Failure::Internal)?,
        };
        let append = self.append_to(partition)?;
        append.events.push(new);
        append.reversals.extend(reversal);
        Ok(RecordedFact { id: Some(id), event_type, version, recorded_at: Some(self.now) })
    }

    /// Keeps what later reversals need of an event. Returns the row that keeps what is reversed of a movement; `None` if the event
    /// does not count as a reversal.
    fn keep_event(&mut self, (stream_id, version): (Uuid, i64), id: Uuid, event: &Event) -> Option<log::Reversal> {
        self.keep_for_reversal(StreamVersion { stream_id, version }, id, event);
        match event {
            Event::MovementReversed(reversed) if reversed.is_counted() => {
                Some(self.count_reversal((stream_id, version), reversed))
            }
            Event::MovementReversed(_)
            | Event::AccountOpened(_)
            | Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferSent(_)
            | Event::TransferReceived(_)
            | Event::HoldPlaced(_)
            | Event::HoldCaptured(_)
            | Event::HoldReleased(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => None,
        }
    }

    fn count_reversal(&mut self, (stream_id, version): (Uuid, i64), event: &MovementReversed) -> log::Reversal {
        let movement = StreamVersion { stream_id, version: event.reverses_version };
        let (number, before) = self.last_reversal(movement).map_or((0, 0), |last| (last.number, last.reversed));
        let amount = event.amount.minor_units();
        let reversal = log::Reversal {
            movement,
            number: number + 1,
            amount,
            reversed: before + amount,
            reversing_version: version,
        };
        self.change_reversal(reversal);
        reversal
    }

    /// Adds a snapshot of each account that passed a multiple of `every` versions.
    pub(super) fn take_snapshots(&mut self, every: i64) {
        for (stream_id, changed) in &self.changed {
            let version_before = match self.basis.accounts.get(stream_id) {
                Some(Ok(loaded)) => loaded.version,
                Some(Err(_)) | None => 0,
            };
            if version_before / every < changed.version / every
                && let Ok(state) = serde_json::to_string(&changed.account)
                && let Some(append) = self.appends.get_mut(&self.partitions.partition_of(*stream_id))
            {
                append.snapshots.push(log::Snapshot { stream_id: *stream_id, version: changed.version, state });
            }
        }
        // Two instances that write the same snapshots lock the rows in the same order.
        for append in self.appends.values_mut() {
            append.snapshots.sort_unstable_by_key(|snapshot| snapshot.stream_id);
        }
    }
}
