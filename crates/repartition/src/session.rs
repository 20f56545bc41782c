//! The connections and the progress of a copy, with the operations that all its steps share.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::Error;
use passbook_event_store::{
    EventWithHash, Partitions, StreamVersion, hash_chain,
    import::{self, ImportProgress},
    reader,
};

/// The number of events, keys or snapshots that one transaction copies.
pub(super) const PAGE_ROWS_MAX: i64 = 2_000;

/// A copy in progress.
pub(super) struct Session {
    pub(super) source: PgConnection,
    pub(super) target: PgConnection,
    pub(super) from: Partitions,
    pub(super) to: Partitions,
    /// The stored progress of each source partition, in their order.
    pub(super) progress: Vec<ImportProgress>,
}

impl Session {
    pub(super) fn progress_of(&self, partition: i16) -> &ImportProgress {
        // `Repartition::open` loads one entry for each source partition.
        &self.progress[usize::from(partition.unsigned_abs())]
    }

    /// Replaces the progress of one source partition, after it was stored.
    pub(super) fn set_progress(&mut self, progress: ImportProgress) {
        let index = usize::from(progress.source_partition.unsigned_abs());
        self.progress[index] = progress;
    }

    /// Stores a progress that leaves the position of the copied events unchanged.
    pub(super) async fn store_progress(&mut self, progress: ImportProgress) -> Result<(), Error> {
        if !import::advance(&mut self.target, progress.position, &progress).await? {
            return Err(Error::ConcurrentCopy);
        }
        self.set_progress(progress);
        Ok(())
    }

    /// Groups items by the target partition of their stream, in ascending order of the partitions.
    pub(super) fn by_target_partition<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        stream_id: impl Fn(&T) -> Uuid,
    ) -> BTreeMap<i16, Vec<T>> {
        let mut groups: BTreeMap<i16, Vec<T>> = BTreeMap::new();
        for item in items {
            groups.entry(self.to.partition_of(stream_id(&item))).or_default().push(item);
        }
        groups
    }

    /// Reads the source's page after `position`, and verifies its hash chain.
    ///
    /// # Errors
    /// The hash chain is broken, or the event at `position` does not have the hash `expected_hash`.
    pub(super) async fn read_source_page(
        &mut self,
        partition: i16,
        position: i64,
        expected_hash: Option<&[u8]>,
    ) -> Result<Vec<EventWithHash>, Error> {
        // The page begins with the event at `position`, whose hash is the start of the chain.
        let overlap = i64::from(position > 0);
        let mut page = reader::page(&mut self.source, partition, position, PAGE_ROWS_MAX + overlap).await?;
        let broken = |position| Error::BrokenHashChain(self.from.position_in(partition, position));
        let mut previous_hash = vec![0; 32];
        if position > 0 {
            previous_hash = match page.first() {
                Some(first) if first.event.position == position => page.remove(0).hash,
                Some(_) | None => return Err(broken(position)),
            };
            if expected_hash.is_some_and(|expected| expected != previous_hash) {
                return Err(Error::LostEvent(self.from.position_in(partition, position)));
            }
        }
        for (expected, recorded) in (position + 1..).zip(&page) {
            let previous: [u8; 32] = previous_hash.try_into().map_err(|_| broken(expected))?;
            if recorded.event.position != expected
                || *recorded.hash != hash_chain::hash(&previous, recorded.hashed_fields(partition))
            {
                return Err(broken(expected));
            }
            previous_hash = recorded.hash.clone();
        }
        Ok(page)
    }

    /// Finds events of the target by their streams and versions.
    pub(super) async fn find_target_events(
        &mut self,
        wanted: impl IntoIterator<Item = StreamVersion>,
    ) -> Result<HashMap<(Uuid, i64), EventWithHash>, Error> {
        let mut found = HashMap::new();
        for (partition, wanted) in self.by_target_partition(wanted, |wanted| wanted.stream_id) {
            let events = import::find_events(&mut self.target, partition, &wanted).await?;
            found.extend(
                events.into_iter().map(|recorded| ((recorded.event.stream_id, recorded.event.version), recorded)),
            );
        }
        Ok(found)
    }
}
