//! What was copied is read back and compared before it counts.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Copy, Error};
use passbook_event_store::{
    StreamVersion,
    copied::{self, Progress},
    whole::LinkedEvent,
};

impl Copy {
    /// What was copied and not compared before this process began.
    pub(super) async fn catch_up_comparing(&mut self, partition: i16) -> Result<(), Error> {
        while self.of(partition).compared < self.of(partition).position {
            let Progress { compared, position, .. } = *self.of(partition);
            let mut page = self.read(partition, compared, None).await?;
            page.retain(|linked| linked.event.position <= position);
            if page.is_empty() {
                return Err(Error::Broken(self.from.position(partition, compared + 1)));
            }
            self.compare(partition, &page).await?;
        }
        Ok(())
    }

    /// Reads back what was copied: every event is there as it was, and each partition holds them in the same order.
    pub(super) async fn compare(&mut self, partition: i16, page: &[LinkedEvent]) -> Result<(), Error> {
        let found = self.find(page.iter().map(version)).await?;
        let mut last: HashMap<i16, i64> = HashMap::new();
        for linked in page {
            let lane = self.to.of(linked.event.stream_id);
            let there = found.get(&key(version(linked))).filter(|there| is_same(there, linked));
            let here = last.entry(lane).or_default();
            match there {
                Some(there) if there.event.position > *here => *here = there.event.position,
                Some(_) | None => return Err(Error::Differs(self.from.position(partition, linked.event.position))),
            }
        }
        let Some(last) = page.last() else { return Ok(()) };
        let compared = Progress { compared: last.event.position, ..self.of(partition).clone() };
        if !copied::advance(&mut self.target, compared.position, &compared).await? {
            return Err(Error::Contended);
        }
        self.set(compared);
        Ok(())
    }

    /// Events of the new log by their streams and versions.
    pub(super) async fn find(
        &mut self,
        wanted: impl Iterator<Item = StreamVersion>,
    ) -> Result<HashMap<(Uuid, i64), LinkedEvent>, Error> {
        let mut lanes: BTreeMap<i16, Vec<StreamVersion>> = BTreeMap::new();
        for wanted in wanted {
            lanes.entry(self.to.of(wanted.stream_id)).or_default().push(wanted);
        }
        let mut found = HashMap::new();
        for (lane, wanted) in lanes {
            let events = copied::find(&mut self.target, lane, &wanted).await?;
            found.extend(events.into_iter().map(|linked| (key(version(&linked)), linked)));
        }
        Ok(found)
    }
}

fn version(linked: &LinkedEvent) -> StreamVersion {
    StreamVersion { stream_id: linked.event.stream_id, version: linked.event.version }
}

fn key(version: StreamVersion) -> (Uuid, i64) {
    (version.stream_id, version.version)
}

/// All that an event keeps.
fn is_same(there: &LinkedEvent, here: &LinkedEvent) -> bool {
    fn kept(linked: &LinkedEvent) -> impl PartialEq {
        let event = &linked.event;
        let texts = (&event.event_type, &event.data, &linked.metadata);
        (event.id, event.stream_id, event.version, event.schema_version, event.recorded_at, texts)
    }
    kept(there) == kept(here)
}
