//! Verifications that took longer than one request. The next request for the same account at this instance continues them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::account::AccountCheck;

/// How many unfinished checks are kept. The oldest one is dropped for another one.
const CHECKS_MAX: usize = 64;
/// How long an unfinished check is kept.
const KEPT_S_MAX: u64 = 300;

/// The unfinished checks, with the time at which each was last continued. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnfinishedChecks(Arc<Mutex<HashMap<Uuid, (Instant, AccountCheck)>>>);

impl UnfinishedChecks {
    /// Takes the check of an account.
    pub(crate) fn take(&self, account_id: Uuid) -> Option<AccountCheck> {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stored_at, check) = checks.remove(&account_id)?;
        (stored_at.elapsed() < Duration::from_secs(KEPT_S_MAX)).then_some(check)
    }

    fn store(&self, account_id: Uuid, check: AccountCheck) {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two requests at the same time, the check that has come farther is kept.
        if checks.get(&account_id).is_none_or(|(_, kept)| kept.events() <= check.events()) {
            checks.insert(account_id, (Instant::now(), check));
        }
        if checks.len() > CHECKS_MAX
            && let Some(oldest) = checks.iter().min_by_key(|(_, (stored_at, _))| *stored_at).map(|(id, _)| *id)
        {
            checks.remove(&oldest);
        }
    }
}

/// A check in progress. It is kept if the request ends before the check, also because the client hung up.
pub(crate) struct CheckInProgress {
    account_id: Uuid,
    unfinished: UnfinishedChecks,
    check: Option<AccountCheck>,
}

impl CheckInProgress {
    pub(crate) fn new(unfinished: UnfinishedChecks, account_id: Uuid, check: AccountCheck) -> Self {
        Self { account_id, unfinished, check: Some(check) }
    }

    /// The check; `None` after [`Self::finish`].
    pub(crate) fn check(&mut self) -> Option<&mut AccountCheck> {
        self.check.as_mut()
    }

    /// Drops the check, because it has a result.
    pub(crate) fn finish(mut self) {
        self.check = None;
    }
}

impl Drop for CheckInProgress {
    fn drop(&mut self) {
        if let Some(check) = self.check.take().filter(|check| check.events() > 0) {
            self.unfinished.store(self.account_id, check);
        }
    }
}
