//! The steps of a copy: open, catch up while the old service runs, and finish while the old log is locked.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, query_scalar};
use uuid::Uuid;

use super::{
    error::Error,
    reversals::write_reversals,
    session::{PAGE_ROWS_MAX, Session},
};
use passbook_domain::account::STATE_VERSION;
use passbook_event_store::{
    Partitions, Position, PrimaryConnector,
    import::{self, ImportProgress},
    log::{self, Head},
    partition_count,
};

/// A copy of a log into one with more partitions, which has not been finished yet.
pub struct Repartition {
    session: Session,
}

/// The result of a finished copy.
#[derive(Clone, Debug)]
pub struct CopiedLog {
    /// The number of events.
    pub events: i64,
    /// The head position of the new log.
    pub position: Position,
}

impl Repartition {
    /// Starts a copy into a database without a log, or resumes an interrupted copy.
    ///
    /// # Errors
    /// The numbers of partitions do not fit, the target contains another log, or the source is an incomplete copy.
    pub async fn open(
        source: &PrimaryConnector,
        target: &PrimaryConnector,
        from: Partitions,
        to: Partitions,
    ) -> Result<Self, Error> {
        if to.count() % from.count() != 0 {
            return Err(Error::NotAMultiple { from: from.count(), to: to.count() });
        }
        let mut source = for_copy(source).connect().await?;
        if import::is_in_progress(&mut source).await? {
            return Err(Error::SourceIncomplete);
        }
        let mut target = for_copy(target).connect().await?;
        if partition_count::read(&mut target).await?.is_none() {
            let mut transaction = target.begin().await?;
            if partition_count::create(&mut transaction, to).await? {
                import::begin(&mut transaction, from).await?;
            }
            transaction.commit().await?;
        }
        let progress = load_progress(&mut target, from, to).await?;
        Ok(Self { session: Session { source, target, from, to, progress } })
    }

    /// Copies and compares the events and keys that the old log contains now. `on_progress` receives the number of copied events
    /// and the number of all events, after each page.
    ///
    /// # Errors
    /// The old log is damaged or has lost events, a copy differs, another process copies, or a database failed.
    pub async fn catch_up(&mut self, on_progress: impl Fn(i64, i64)) -> Result<(), Error> {
        // A key can refer to events in two partitions. The heads are read twice. Both events of a key that was recorded before
        // this first read precede the heads of the second read in `copy_until`.
        let keys_until = self.session.source_heads().await?.iter().map(|head| head.recorded_at).collect();
        self.session.copy_until(keys_until, on_progress).await
    }

    /// Copies the rest while the old log is locked against appends, marks the old log as moved, and the new log as complete. From
    /// then on the old log refuses every write, also of a service that was cut off meanwhile.
    ///
    /// # Errors
    /// A service is connected to the old log, the two logs are not equal, or an error of [`Self::catch_up`].
    pub async fn finish(mut self, on_progress: impl Fn(i64, i64)) -> Result<CopiedLog, Error> {
        // Copy most events before the old log is locked.
        self.catch_up(&on_progress).await?;
        let session = &mut self.session;
        sqlx::raw_sql("BEGIN").execute(&mut session.source).await?;
        let mut source_events = 0;
        for partition in session.from.all() {
            source_events += log::lock_head(&mut session.source, partition).await?.position;
        }
        // Only after the locks: an append of a service that connects later waits for them. An idle service may have no writer
        // connection, but always has one for its projector.
        let connected: i64 = query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name IN ('passbook writer', 'passbook projector')",
        )
        .fetch_one(&mut session.source)
        .await?;
        if connected > 0 {
            return Err(Error::SourceInUse);
        }
        // All keys: the key of an opening can be in a partition whose last event is older than the key.
        let partitions = usize::from(session.from.count().unsigned_abs());
        session.copy_until(vec![DateTime::<Utc>::MAX_UTC; partitions], &on_progress).await?;
        session.copy_snapshots().await?;
        let copied = session.read_target().await?;
        // Each event of the old log was found in the new log. With equal counts the new log has no other events.
        if source_events != copied.events {
            return Err(Error::EventCountMismatch { source_events, target_events: copied.events });
        }
        session.raise_target_times().await?;
        // In this order: if the process ends in between, no log takes writes, and another run finishes the copy.
        for partition in session.from.all() {
            log::mark_moved(&mut session.source, partition).await?;
        }
        sqlx::raw_sql("COMMIT").execute(&mut session.source).await?;
        session.mark_finished().await?;
        Ok(copied)
    }
}

impl Session {
    /// Copies and compares all events that the source contains now, then the keys of each partition up to its time in `keys_until`.
    async fn copy_until(
        &mut self,
        keys_until: Vec<DateTime<Utc>>,
        on_progress: impl Fn(i64, i64),
    ) -> Result<(), Error> {
        let heads = self.source_heads().await?;
        let total: i64 = heads.iter().map(|head| head.position).sum();
        let from = self.from;
        for (partition, head) in from.all().zip(&heads) {
            let lost = |position| Error::LostEvent(from.position_in(partition, position));
            if self.progress_of(partition).position > head.position {
                return Err(lost(head.position + 1));
            }
            self.compare_pending(partition).await?;
            while self.progress_of(partition).position < head.position {
                self.copy_page(partition).await?;
                on_progress(self.progress.iter().map(|progress| progress.position).sum(), total);
            }
            // Each page checks that it continues the copied events. If there was no page, the head's hash shows it.
            let progress = self.progress_of(partition);
            if progress.position == head.position && progress.hash != head.hash {
                return Err(lost(head.position));
            }
        }
        for ((partition, until), head) in from.all().zip(keys_until).zip(heads) {
            self.copy_keys(partition, until, until.min(head.recorded_at)).await?;
        }
        Ok(())
    }

    /// Copies one page of a source partition into its target partitions, and compares it. One transaction stores the events and
    /// the progress.
    async fn copy_page(&mut self, partition: i16) -> Result<(), Error> {
        let before = self.progress_of(partition).clone();
        let page = self.read_source_page(partition, before.position, Some(&before.hash)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        let progress = ImportProgress { position: last.event.position, hash: last.hash.clone(), ..before.clone() };
        let groups = self.by_target_partition(&page, |recorded| recorded.event.stream_id);
        let mut transaction = self.target.begin().await?;
        for (target_partition, events) in groups {
            let head = log::lock_head(&mut transaction, target_partition).await?;
            import::append(&mut transaction, target_partition, &head, &events).await?;
            write_reversals(&mut transaction, target_partition, &events).await?;
        }
        if !import::advance(&mut transaction, before.position, &progress).await? {
            return Err(Error::ConcurrentCopy);
        }
        transaction.commit().await?;
        self.set_progress(progress);
        self.compare_page(partition, &page).await
    }

    /// Copies the snapshots. Without them, the first command on a long account would read all its events.
    async fn copy_snapshots(&mut self) -> Result<(), Error> {
        for partition in self.from.all() {
            let mut after = Uuid::nil();
            loop {
                let page =
                    import::read_snapshots(&mut self.source, partition, STATE_VERSION, after, PAGE_ROWS_MAX).await?;
                let Some(last) = page.last() else { break };
                after = last.stream_id;
                for (target_partition, snapshots) in self.by_target_partition(page, |snapshot| snapshot.stream_id) {
                    import::write_snapshots(&mut self.target, target_partition, STATE_VERSION, &snapshots).await?;
                }
            }
        }
        Ok(())
    }

    /// Raises the times of the new heads to those of the old ones: no event may be recorded at a moment that a read of the old log
    /// has declared final.
    async fn raise_target_times(&mut self) -> Result<(), Error> {
        let latest = self.source_heads().await?.iter().map(|head| head.recorded_at).max();
        let Some(latest) = latest else { return Ok(()) };
        for partition in self.to.all() {
            import::raise_head_time(&mut self.target, partition, latest).await?;
        }
        Ok(())
    }

    /// The head of each source partition.
    async fn source_heads(&mut self) -> Result<Vec<Head>, Error> {
        let mut heads = Vec::new();
        for partition in self.from.all() {
            heads.push(log::head(&mut self.source, partition).await?);
        }
        Ok(heads)
    }

    /// The number of events in the target, and its head position.
    async fn read_target(&mut self) -> Result<CopiedLog, Error> {
        let (mut events, mut position) = (0, Position::default());
        for partition in self.to.all() {
            let head = log::head(&mut self.target, partition).await?.position;
            let head_position = self.to.position_in(partition, head);
            position = if partition == 0 { head_position } else { position.merge(head_position) };
            events += head;
        }
        Ok(CopiedLog { events, position })
    }

    /// Marks the new log as complete, so that a service can start on it.
    async fn mark_finished(&mut self) -> Result<(), Error> {
        let mut transaction = self.target.begin().await?;
        for progress in &mut self.progress {
            progress.finished_at = Some(Utc::now());
            if !import::advance(&mut transaction, progress.position, progress).await? {
                return Err(Error::ConcurrentCopy);
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Loads the stored progress of the target, and checks that it belongs to a copy with these numbers of partitions.
async fn load_progress(
    target: &mut PgConnection,
    from: Partitions,
    to: Partitions,
) -> Result<Vec<ImportProgress>, Error> {
    let progress = import::read_progress(target).await?;
    let Some(first) = progress.first() else { return Err(Error::NotEmpty) };
    if let Some(finished_at) = first.finished_at {
        return Err(Error::Finished(finished_at));
    }
    if first.source_count != from.count() {
        return Err(Error::OtherSource { expected: first.source_count, found: from.count() });
    }
    match partition_count::read(target).await? {
        Some(found) if found != to => {
            Err(Error::OtherPartitionCount { expected: found.count(), requested: to.count() })
        }
        Some(_) | None => Ok(progress),
    }
}

/// Connection options for a copy: transactions without an idle limit, and a name that does not count as a service.
fn for_copy(primary: &PrimaryConnector) -> PrimaryConnector {
    primary.with_options(|options| {
        options.application_name("passbook copy").options([("idle_in_transaction_session_timeout", "0")])
    })
}
