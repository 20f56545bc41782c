//! Undoes the commands of a batch that is not executed.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Decision;
use crate::{account_cache::CachedAccount, command::CommandContext};
use passbook_domain::Event;
use passbook_event_store::{StreamVersion, log};

/// The state before a batch, as far as its commands have changed it.
#[derive(Debug, Default)]
pub(super) struct Savepoint {
    /// The earlier states of accounts, in the order of the changes; `None`: no earlier command had changed the account.
    accounts: Vec<(Uuid, Option<CachedAccount>)>,
    /// The earlier reversals of movements, in the order of the changes.
    reversals: Vec<(StreamVersion, Option<log::Reversal>)>,
    /// How many events and reversals each partition gets from earlier commands.
    appended: BTreeMap<i16, (usize, usize)>,
    /// The events that a later command may reverse.
    recorded: Vec<StreamVersion>,
}

impl Decision<'_> {
    /// Begins a batch that may be undone.
    pub(super) fn set_savepoint(&mut self) {
        let rows = |append: &log::Batch| (append.events.len(), append.reversals.len());
        let appended = self.appends.iter().map(|(partition, append)| (*partition, rows(append))).collect();
        self.savepoint = Some(Savepoint { appended, ..Savepoint::default() });
    }

    /// Whether later commands are decided on what this command changes: all do, except dry runs of one command.
    pub(super) fn is_kept(&self, context: &CommandContext) -> bool {
        !context.dry_run || self.savepoint.is_some()
    }

    /// Keeps the state of an account after a command.
    pub(super) fn change_account(&mut self, account_id: Uuid, after: CachedAccount) {
        let before = self.changed.insert(account_id, after);
        if let Some(savepoint) = &mut self.savepoint {
            savepoint.accounts.push((account_id, before));
        }
    }

    /// Keeps the last reversal of a movement.
    pub(super) fn change_reversal(&mut self, reversal: log::Reversal) {
        let before = self.reversals.insert(reversal.movement, reversal);
        if let Some(savepoint) = &mut self.savepoint {
            savepoint.reversals.push((reversal.movement, before));
        }
    }

    /// Keeps an event, so that a later command of the batch can reverse it.
    pub(super) fn keep_for_reversal(&mut self, at: StreamVersion, event_id: Uuid, event: &Event) {
        if !self.keeps_events {
            return;
        }
        self.recorded.insert(at, (event_id, event.clone()));
        if let Some(savepoint) = &mut self.savepoint {
            savepoint.recorded.push(at);
        }
    }

    /// Undoes what was decided since the savepoint, if there is one.
    pub(super) fn roll_back(&mut self) {
        let Some(Savepoint { accounts, reversals, appended, recorded }) = self.savepoint.take() else { return };
        for (account_id, before) in accounts.into_iter().rev() {
            match before {
                Some(before) => self.changed.insert(account_id, before),
                None => self.changed.remove(&account_id),
            };
        }
        for (movement, before) in reversals.into_iter().rev() {
            match before {
                Some(before) => self.reversals.insert(movement, before),
                None => self.reversals.remove(&movement),
            };
        }
        for (partition, (events, reversals)) in appended {
            if let Some(append) = self.appends.get_mut(&partition) {
                append.events.truncate(events);
                append.reversals.truncate(reversals);
            }
        }
        for event in recorded {
            self.recorded.remove(&event);
        }
    }
}
