//! Reversals of movements that an earlier command of the same batch records: the log does not have them yet.

use uuid::Uuid;

use super::Decision;
use crate::reversal_lookup::{Reversal, TransferSide, command_of, transfer_of};
use passbook_domain::{AccountCommand, Command, command::ReversedSide, reversal::RecordedMovement};
use passbook_event_store::StreamVersion;

impl Decision<'_> {
    /// The reversal of an event that an earlier command has recorded; `None` for all other commands.
    pub(super) fn reversal_in_batch(&self, command: &Command) -> Option<Command> {
        let Command::Account { account_id, command: AccountCommand::Reverse(reverse) } = command else { return None };
        if reverse.event_id.is_some() {
            return None;
        }
        let (account_id, version) = (*account_id, reverse.version);
        let (event_id, movement) = self.recorded_movement(StreamVersion { stream_id: account_id, version })?;
        let reversal = Reversal { account_id, version, amount: reverse.amount, reason: reverse.reason.clone() };
        let other = movement.and_then(transfer_of).and_then(|transfer| self.other_side_in_batch(transfer));
        Some(command_of(reversal, Some((event_id, movement)), other))
    }

    /// The id of an event that an earlier command has recorded, and the movement that it records.
    fn recorded_movement(&self, at: StreamVersion) -> Option<(Uuid, Option<RecordedMovement>)> {
        let (event_id, event) = self.recorded.get(&at)?;
        Some((*event_id, RecordedMovement::of_event(event, at.version, *event_id)))
    }

    /// The other side of a transfer, which the same command has recorded.
    fn other_side_in_batch(&self, transfer: TransferSide) -> Option<ReversedSide> {
        let of_other = self.recorded.keys().filter(|at| at.stream_id == transfer.other);
        of_other
            .filter_map(|at| self.recorded_movement(*at)?.1)
            .find(|movement| transfer_of(*movement).is_some_and(|side| side.is_other_of(transfer)))
            .map(|RecordedMovement { version, event_id, .. }| ReversedSide {
                account_id: transfer.other,
                version,
                event_id,
            })
    }
}
