//! Reads of a named moment are final. The log says how far a view must have read so that its answer can no longer change, and
//! promises that nothing is recorded at that moment or before it any more.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    query_router::QUERY_MS_MAX,
    read_model::{Error, ReadModel},
};
use passbook_event_store::{
    Position,
    moment::{self, Settled},
    with_timeout,
};

/// A moment in the history of an account. Events recorded at that moment are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After the events recorded at this time or before.
    Time(DateTime<Utc>),
    /// After this number of events of the account.
    Version(i64),
}

impl Moment {
    /// The last moment before `time`. Times are recorded in microseconds.
    pub fn before(time: DateTime<Utc>) -> Self {
        Moment::Time(last_moment_before(time))
    }
}

/// The last moment before `time`. Times are recorded in microseconds.
pub(crate) fn last_moment_before(time: DateTime<Utc>) -> DateTime<Utc> {
    time.checked_sub_signed(TimeDelta::microseconds(1)).unwrap_or(time)
}

/// Whether an answer for a moment can be final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finality {
    /// The answer of a view that has read up to this position is final. An account without events has none to wait for.
    Settled(Position),
    /// The moment is in the future: the answer can change.
    Future,
    /// The account has fewer events than the version says. The last one is at this position.
    BeyondLastVersion(Position),
}

impl ReadModel {
    /// Makes a moment of an account final. The position in the result also satisfies `min_position`. It is read from the log at the
    /// primary, because a replica does not know what is recorded next.
    ///
    /// # Errors
    /// `min_position` belongs to another log, or the database failed.
    pub async fn finality(
        &self,
        account_id: Uuid,
        moment: Moment,
        min_position: Option<&Position>,
    ) -> Result<Finality, Error> {
        self.check_position(min_position)?;
        let partition = self.partitions.partition_of(account_id);
        let finality = with_timeout(Duration::from_millis(QUERY_MS_MAX), async {
            let mut connection = self.router.primary().acquire().await?;
            let at = |position| {
                let position = self.partitions.position_in(partition, position);
                min_position.map_or_else(|| position.clone(), |minimum| position.clone().merge(minimum.clone()))
            };
            Ok(match moment {
                Moment::Time(time) => match moment::settle(&mut connection, partition, time).await? {
                    Settled::At(position) => Finality::Settled(at(position)),
                    Settled::Future => Finality::Future,
                },
                Moment::Version(version) => {
                    match moment::last_event_up_to(&mut connection, partition, account_id, version).await? {
                        Some((last, position)) if last < version => Finality::BeyondLastVersion(at(position)),
                        Some((_, position)) => Finality::Settled(at(position)),
                        None => Finality::Settled(at(0)),
                    }
                }
            })
        });
        Ok(finality.await?)
    }

    /// The position that a query for the time before `end` must wait for: `min_position`, and more if the answer can be final.
    /// `None` for `end`, or one in the future, names no moment.
    ///
    /// # Errors
    /// As [`Self::finality`].
    pub async fn settled_before(
        &self,
        account_id: Uuid,
        end: Option<DateTime<Utc>>,
        min_position: Option<Position>,
    ) -> Result<Option<Position>, Error> {
        let Some(end) = end else { return Ok(min_position) };
        Ok(match self.finality(account_id, Moment::before(end), min_position.as_ref()).await? {
            Finality::Settled(position) | Finality::BeyondLastVersion(position) => Some(position),
            Finality::Future => min_position,
        })
    }

    /// As [`Self::settled_before`], for an answer over all partitions.
    ///
    /// # Errors
    /// As [`Self::finality`].
    pub async fn settled_in_all_before(
        &self,
        end: DateTime<Utc>,
        min_position: Option<Position>,
    ) -> Result<Option<Position>, Error> {
        self.check_position(min_position.as_ref())?;
        let moment = last_moment_before(end);
        let settled = with_timeout(Duration::from_millis(QUERY_MS_MAX), async {
            let mut connection = self.router.primary().acquire().await?;
            let mut settled = min_position;
            for partition in self.partitions.all() {
                let Settled::At(position) = moment::settle(&mut connection, partition, moment).await? else { continue };
                let position = self.partitions.position_in(partition, position);
                settled = Some(match settled {
                    Some(minimum) => minimum.merge(position),
                    None => position,
                });
            }
            Ok(settled)
        });
        Ok(settled.await?)
    }
}
