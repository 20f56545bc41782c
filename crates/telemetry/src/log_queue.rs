//! The queues of log lines that wait for a slow reader of standard error. Logging never blocks a request, so a full queue drops
//! lines and counts them.
//!
//! Lines of [`SECURITY_TARGET`] have a queue of their own, so that a flood of other lines cannot drop them.

use std::{
    io::{BufWriter, Result, Write, stderr},
    sync::OnceLock,
};

use tracing::Metadata;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// The target of lines about refused callers.
pub const SECURITY_TARGET: &str = "passbook::security";
/// How many lines wait in each queue. Further lines are dropped.
const BUFFERED_LINES_MAX: usize = 16_384;
/// How many bytes of log lines go into one write.
const BATCHED_BYTES_MAX: usize = 64 * 1024;

/// The counters of the queues of this process, with the values of the metric's label `queue`.
static DROPPED: OnceLock<[(&str, ErrorCounter); 2]> = OnceLock::new();

/// The number of dropped lines of each queue.
pub(crate) fn dropped_lines() -> impl Iterator<Item = (&'static str, u64)> {
    DROPPED.get().into_iter().flatten().map(|(queue, counter)| (*queue, counter.dropped_lines() as u64))
}

/// Chooses the queue of each line.
#[derive(Clone, Debug)]
pub(crate) struct LogQueues {
    main: NonBlocking,
    security: NonBlocking,
}

impl LogQueues {
    /// The queues of this process, which write to standard error while the guards live.
    pub(crate) fn to_stderr() -> (Self, [WorkerGuard; 2]) {
        let (queues, guards) = Self::new([WholeLines, WholeLines]);
        let counters = [("main", queues.main.error_counter()), ("security", queues.security.error_counter())];
        // A second start in one process keeps the counters of the first.
        let _ = DROPPED.set(counters);
        (queues, guards)
    }

    fn new<W: Write + Send + 'static>([main, security]: [W; 2]) -> (Self, [WorkerGuard; 2]) {
        let ((main, main_guard), (security, security_guard)) = (queue(main), queue(security));
        (Self { main, security }, [main_guard, security_guard])
    }
}

fn queue(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    // The writer flushes whenever no line waits, so under load many lines share one write.
    let batched = BufWriter::with_capacity(BATCHED_BYTES_MAX, writer);
    NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES_MAX).lossy(true).finish(batched)
}

impl<'a> MakeWriter<'a> for LogQueues {
    type Writer = NonBlocking;

    fn make_writer(&'a self) -> NonBlocking {
        self.main.clone()
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> NonBlocking {
        if metadata.target() == SECURITY_TARGET { self.security.clone() } else { self.main.clone() }
    }
}

/// Standard error. Each write is complete, so that the lines of two threads do not mix: a buffer holds whole lines.
struct WholeLines;

impl Write for WholeLines {
    fn write(&mut self, lines: &[u8]) -> Result<usize> {
        stderr().lock().write_all(lines).map(|()| lines.len())
    }

    fn flush(&mut self) -> Result<()> {
        stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A reader of standard error that reads nothing until the sender is dropped.
    struct Stalled {
        released: Receiver<()>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, lines: &[u8]) -> Result<usize> {
            let _ = self.released.recv();
            let _ = self.lines.send(lines.to_owned());
            Ok(lines.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_of_lines_drops_no_security_line_and_is_counted() {
        let (_release, released) = channel();
        let (release_security, security_released) = channel();
        let (sender, lines) = channel();
        let main = Stalled { released, lines: channel().0 };
        let (queues, guards) = LogQueues::new([main, Stalled { released: security_released, lines: sender }]);
        let subscriber = tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_ansi(false).with_writer(queues.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..BUFFERED_LINES_MAX * 2 {
                tracing::info!("request");
            }
            tracing::warn!(target: SECURITY_TARGET, "access denied");
        });
        assert!(queues.main.error_counter().dropped_lines() > 0);
        assert_eq!(queues.security.error_counter().dropped_lines(), 0);
        drop(release_security);
        let [_main, security] = guards;
        drop((queues, security));
        let written: Vec<u8> = lines.iter().flatten().collect();
        assert!(String::from_utf8_lossy(&written).contains("access denied"));
    }
}
