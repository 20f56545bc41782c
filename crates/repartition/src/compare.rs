//! Reads copied events back from the target, and compares them with the source before they count as copied.

use std::collections::HashMap;

use super::{error::Error, session::Session};
use passbook_event_store::{EventWithHash, StreamVersion, import::ImportProgress};

impl Session {
    /// Compares the events that an interrupted process has copied but not compared.
    pub(super) async fn compare_pending(&mut self, partition: i16) -> Result<(), Error> {
        while self.progress_of(partition).compared < self.progress_of(partition).position {
            let ImportProgress { compared, position, .. } = *self.progress_of(partition);
            let mut page = self.read_source_page(partition, compared, None).await?;
            page.retain(|recorded| recorded.event.position <= position);
            if page.is_empty() {
                return Err(Error::BrokenHashChain(self.from.position_in(partition, compared + 1)));
            }
            self.compare_page(partition, &page).await?;
        }
        Ok(())
    }

    /// Compares a page of the source with the target: each event is unchanged, and each target partition has the same order.
    pub(super) async fn compare_page(&mut self, partition: i16, page: &[EventWithHash]) -> Result<(), Error> {
        let wanted = page
            .iter()
            .map(|recorded| StreamVersion { stream_id: recorded.event.stream_id, version: recorded.event.version });
        let copies = self.find_target_events(wanted).await?;
        let mut last_positions: HashMap<i16, i64> = HashMap::new();
        for recorded in page {
            let copy = copies.get(&(recorded.event.stream_id, recorded.event.version));
            let last = last_positions.entry(self.to.partition_of(recorded.event.stream_id)).or_default();
            match copy.filter(|copy| is_unchanged(copy, recorded)) {
                Some(copy) if copy.event.position > *last => *last = copy.event.position,
                Some(_) | None => {
                    return Err(Error::CopyDiffers(self.from.position_in(partition, recorded.event.position)));
                }
            }
        }
        let Some(last) = page.last() else { return Ok(()) };
        let progress = ImportProgress { compared: last.event.position, ..self.progress_of(partition).clone() };
        self.store_progress(progress).await
    }
}

/// Whether two events are equal in everything that a copy preserves: all but position and hash.
fn is_unchanged(copy: &EventWithHash, original: &EventWithHash) -> bool {
    fn preserved(recorded: &EventWithHash) -> impl PartialEq {
        let event = &recorded.event;
        let texts = (&event.event_type, &event.data, &recorded.metadata);
        (event.id, event.stream_id, event.version, event.schema_version, event.recorded_at, texts)
    }
    preserved(copy) == preserved(original)
}
