//! The queue of log lines that wait for a slow reader of standard error. Logging never blocks a request, so a full queue drops lines
//! and counts them.
//!
//! Lines of [`SECURITY_TARGET`] are written without the queue, so that none is dropped. They block the thread that logs them.

use std::{
    io::{BufWriter, Result, Write, stderr},
    sync::OnceLock,
    thread,
    time::Duration,
};

use tracing::Metadata;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// The target of lines about refused callers. Only a thread that may block uses it.
pub const SECURITY_TARGET: &str = "passbook::security";
/// How many lines wait in the queue. Further lines are dropped.
const BUFFERED_LINES_MAX: usize = 16_384;
/// How many bytes of log lines go into one write.
const BATCHED_BYTES_MAX: usize = 64 * 1024;
/// The pause of the writing thread after it has written all lines that wait. Meanwhile lines gather in the queue, so under load one
/// write serves many of them, and a request need not wake the thread. A line that comes alone is written at once.
const PAUSE_MS: u64 = 2;

/// The counter of the queue of this process.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// The number of dropped lines.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Chooses the way of each line to standard error.
#[derive(Clone, Debug)]
pub(crate) struct LogQueue<W> {
    queue: NonBlocking,
    output: W,
}

/// The way of one line.
pub(crate) enum LineWriter<W> {
    /// The queue. It drops the line if it is full.
    Queue(NonBlocking),
    /// The output. It blocks until the line is written.
    Output(W),
}

impl LogQueue<WholeLines> {
    /// The queue of this process, which writes to standard error while the guard lives.
    pub(crate) fn to_stderr() -> (Self, WorkerGuard) {
        let (queue, guard) = Self::new(WholeLines);
        // A second start in one process keeps the counter of the first.
        let _ = DROPPED.set(queue.queue.error_counter());
        (queue, guard)
    }
}

impl<W: Write + Clone + Send + 'static> LogQueue<W> {
    fn new(output: W) -> (Self, WorkerGuard) {
        let batched = Batched(BufWriter::with_capacity(BATCHED_BYTES_MAX, output.clone()));
        let builder = NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES_MAX).lossy(true);
        let (queue, guard) = builder.finish(batched);
        (Self { queue, output }, guard)
    }
}

impl<'a, W: Write + Clone + Send + 'static> MakeWriter<'a> for LogQueue<W> {
    type Writer = LineWriter<W>;

    fn make_writer(&'a self) -> LineWriter<W> {
        LineWriter::Queue(self.queue.clone())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter<W> {
        if metadata.target() == SECURITY_TARGET { LineWriter::Output(self.output.clone()) } else { self.make_writer() }
    }
}

impl<W: Write> Write for LineWriter<W> {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        match self {
            Self::Queue(queue) => queue.write(line),
            Self::Output(output) => output.write(line),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Queue(queue) => queue.flush(),
            Self::Output(output) => output.flush(),
        }
    }
}

/// Buffers lines until no further line waits: the writing thread then flushes.
struct Batched<W: Write>(BufWriter<W>);

impl<W: Write> Write for Batched<W> {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()?;
        thread::sleep(Duration::from_millis(PAUSE_MS));
        Ok(())
    }
}

/// Standard error. Each write is complete, so that the lines of two threads do not mix: a buffer holds whole lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeLines;

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
    use std::{
        sync::{Arc, Mutex, mpsc},
        thread,
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A standard error that nothing reads until the sender is dropped.
    #[derive(Clone)]
    struct Stalled {
        released: Arc<Mutex<mpsc::Receiver<()>>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, lines: &[u8]) -> Result<usize> {
            let _ = self.released.lock().expect("a lock").recv();
            self.written.lock().expect("a lock").extend_from_slice(lines);
            Ok(lines.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_loses_no_security_line_and_others_are_counted() {
        const SECURITY_LINES: usize = BUFFERED_LINES_MAX * 2;
        let (release, released) = mpsc::channel();
        let output = Stalled { released: Arc::new(Mutex::new(released)), written: Arc::default() };
        let written = Arc::clone(&output.written);
        let (queue, guard) = LogQueue::new(output);
        let counter = queue.queue.error_counter();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(queue);
        let subscriber = Arc::new(tracing_subscriber::registry().with(layer));
        let logging = |subscriber, log: fn()| thread::spawn(move || tracing::subscriber::with_default(subscriber, log));
        let security = logging(Arc::clone(&subscriber), || {
            (0..SECURITY_LINES).for_each(|_| tracing::warn!(target: SECURITY_TARGET, "access denied"));
        });
        let others = logging(subscriber, || (0..BUFFERED_LINES_MAX * 2).for_each(|_| tracing::info!("request")));
        others.join().expect("other threads are not blocked");
        assert!(counter.dropped_lines() > 0);
        drop(release);
        security.join().expect("every line is written");
        drop(guard);
        let written = String::from_utf8(written.lock().expect("a lock").clone()).expect("a text");
        assert_eq!(written.matches("access denied").count(), SECURITY_LINES);
    }
}
