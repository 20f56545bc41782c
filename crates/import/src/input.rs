//! Reads the commands: from a file or from standard input, also compressed with gzip. A thread of its own reads and decompresses,
//! at most a few blocks ahead.

use std::{
    fs::{File, Metadata},
    io::{self, Cursor, ErrorKind, Read},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc;

use crate::{
    error::Error,
    key::{KeyPrefix, Line, check_object},
    line::{LineSplitter, RawLine},
};

/// The size of a read. The lines of one read are one block.
const READ_BYTES: usize = 128 * 1024;
/// The number of blocks that wait.
const BLOCKS_MAX: usize = 2;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The lines of one read, or why there are no more.
pub(crate) type Block = Result<Vec<Line>, Error>;

/// Where the commands come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    StandardInput,
}

/// The commands in the order of the file.
pub struct Input {
    blocks: mpsc::Receiver<Block>,
    bytes_read: Arc<AtomicU64>,
    length: Option<u64>,
    file: Option<FileId>,
}

/// Identifies a file. Paths, hard links and symbolic links to the same file have the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// `None` for a pipe or a device.
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        metadata.is_file().then(|| Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Input {
    /// Starts to read. Without `key_prefix` the name of the file distinguishes its keys from those of other files.
    ///
    /// # Errors
    /// [`Error::Open`]. Errors of reading arrive in the place of the lines that cannot be read.
    pub fn open(source: &Source, key_prefix: Option<String>) -> Result<Self, Error> {
        match source {
            Source::StandardInput => {
                let file = io::stdin().as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
                let input = Self::read(io::stdin(), "standard input", KeyPrefix(key_prefix), None);
                Ok(Self { file: file.ok().as_ref().and_then(FileId::of), ..input })
            }
            Source::File(path) => {
                let failed = |source| Error::Open { path: path.clone(), source };
                let file = File::open(path).map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                let length = metadata.is_file().then_some(metadata.len());
                let prefix = key_prefix.or_else(|| {
                    let name = path.file_name()?.to_string_lossy();
                    Some(name.strip_suffix(".gz").unwrap_or(&name).to_owned())
                });
                let input = Self::read(file, &path.display().to_string(), KeyPrefix(prefix), length);
                Ok(Self { file: FileId::of(&metadata), ..input })
            }
        }
    }

    /// Starts to read from `reader`. `length` is the number of bytes that it will return, as far as it is known.
    pub fn read(reader: impl Read + Send + 'static, name: &str, key_prefix: KeyPrefix, length: Option<u64>) -> Self {
        let (sender, blocks) = mpsc::channel(BLOCKS_MAX);
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counting = CountingReader { reader, bytes_read: Arc::clone(&bytes_read) };
        let mut lines = LineReader {
            name: name.to_owned(),
            key_prefix,
            splitter: LineSplitter::default(),
            has_lines: false,
            blocks: sender,
        };
        // Not one of the runtime's threads: a read of standard input can block for ever, and must not delay the exit.
        thread::spawn(move || {
            if let Err(error) = lines.read_all(counting) {
                let _ = lines.blocks.blocking_send(Err(error));
            }
        });
        Self { blocks, bytes_read, length, file: None }
    }

    /// The number of bytes of the file, if it is one.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The file that is read, if it is one.
    pub(crate) fn file(&self) -> Option<FileId> {
        self.file
    }

    /// The number of bytes that were read so far, before decompression.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The next lines; `None` at the end. May be dropped without a loss of lines.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        self.blocks.recv().await
    }
}

struct LineReader {
    name: String,
    key_prefix: KeyPrefix,
    splitter: LineSplitter,
    /// Whether a line was completed.
    has_lines: bool,
    blocks: mpsc::Sender<Block>,
}

impl LineReader {
    fn read_all(&mut self, reader: impl Read + 'static) -> Result<(), Error> {
        let mut reader = decompressed(reader).map_err(|source| self.read_error(source))?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let lines = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.splitter.push(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(self.read_error(source)),
            };
            if !self.send(lines)? {
                return Ok(());
            }
        }
        let last = self.splitter.finish();
        self.send(last.into_iter().collect()).map(|_| ())
    }

    /// Sends the lines as one block. Returns `false` if the import has ended. The lines before an error are sent, too.
    fn send(&mut self, lines: Vec<RawLine>) -> Result<bool, Error> {
        let mut block = Vec::with_capacity(lines.len());
        let mut failure = None;
        for line in lines {
            match self.complete(line) {
                Ok(line) => block.push(line),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let is_read = block.is_empty() || self.blocks.blocking_send(Ok(block)).is_ok();
        failure.map_or(Ok(is_read), Err)
    }

    fn complete(&mut self, line: RawLine) -> Result<Line, Error> {
        // A file that begins with something else is not NDJSON: one message is better than a refusal of each line.
        if !std::mem::replace(&mut self.has_lines, true) {
            let not_ndjson = |reason| Error::NotNdjson { name: self.name.clone(), line: line.number, reason };
            check_object(&line.text).map_err(not_ndjson)?;
        }
        self.key_prefix.complete(line)
    }

    fn read_error(&self, source: io::Error) -> Error {
        Error::Read { name: self.name.clone(), line: self.splitter.ended_lines(), source }
    }
}

/// Decompresses input that begins like a gzip file. Its name does not matter.
fn decompressed(mut reader: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
    reader.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    let is_gzip = magic == GZIP_MAGIC;
    let whole = Cursor::new(magic).chain(reader);
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

struct CountingReader<R> {
    reader: R,
    bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.bytes_read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const COMMANDS: &str = "{\"command\":\"open\"}\n\n{\"command\":\"deposit\"}";

    async fn lines(bytes: Vec<u8>) -> (Vec<(u64, Vec<u8>)>, Option<Error>) {
        let mut input = Input::read(Cursor::new(bytes), "test", KeyPrefix(Some("test".to_owned())), None);
        let mut lines = Vec::new();
        while let Some(block) = input.next().await {
            match block {
                Ok(block) => lines.extend(block.iter().map(|line| (line.number, line.text.to_vec()))),
                Err(error) => return (lines, Some(error)),
            }
        }
        (lines, None)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).expect("in memory");
        encoder.finish().expect("in memory")
    }

    #[tokio::test]
    async fn a_compressed_input_has_the_same_lines_and_keys() {
        let (plain, error) = lines(COMMANDS.into()).await;
        assert!(error.is_none() && plain.iter().map(|(number, _)| *number).eq([1, 3]), "{plain:?}");
        assert_eq!(lines(gzip(COMMANDS)).await.0, plain);
        // A file can consist of several gzip streams.
        let (first, second) = COMMANDS.split_at(20);
        assert_eq!(lines([gzip(first), gzip(second)].concat()).await.0, plain);
    }

    #[tokio::test]
    async fn a_truncated_gzip_file_is_an_error_after_its_last_line() {
        let text: String = (0..20_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        let mut compressed = gzip(&text);
        compressed.truncate(compressed.len() / 2);
        let (read, error) = lines(compressed).await;
        let Some(Error::Read { line, .. }) = error else { panic!("{error:?}") };
        assert_eq!(read.len() as u64, line);
    }

    #[tokio::test]
    async fn an_input_that_is_not_ndjson_is_an_error_with_its_reason() {
        for text in ["date,amount\n930101,700\n", "[{\"command\":\"open\"}]", "\n{\n", "\u{1f600}"] {
            let (read, error) = lines(text.into()).await;
            assert!(read.is_empty() && matches!(error, Some(Error::NotNdjson { .. })), "{text} {error:?}");
        }
        // A later line is sent, so that the service refuses it and the import goes on.
        let (read, error) = lines(b"{}\nnonsense\n{}\n".into()).await;
        assert!(error.is_none() && read[1].1 == b"nonsense\n", "{read:?} {error:?}");
    }

    #[tokio::test]
    async fn the_lines_before_an_error_are_returned() {
        let text = b"{\"idempotency_key\":\"a\"}\n{}\n".to_vec();
        let mut input = Input::read(Cursor::new(text), "test", KeyPrefix(None), None);
        assert!(matches!(input.next().await, Some(Ok(lines)) if lines.len() == 1));
        assert!(matches!(input.next().await, Some(Err(Error::NoKeyPrefix { line: 2 }))));
        assert!(input.next().await.is_none());
    }
}
