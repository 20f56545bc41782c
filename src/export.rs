//! `passbook export`: writes the journal of the books to a file or to standard output, with and without a running service.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use passbook::{config::ExportJournal, journal::JournalWriter, service};
use passbook_database::Database;
use passbook_read_model::{Journal, JournalPeriod};
use passbook_telemetry as telemetry;
use tokio::signal::unix::{SignalKind, signal};

/// Exports the journal.
pub async fn journal(wanted: ExportJournal) -> Result<(), String> {
    let ExportJournal { from, to, .. } = wanted;
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err("--from must not be later than --to".to_owned());
    }
    let _telemetry = telemetry::start(&wanted.log.settings())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let database = Database::open_existing(&wanted.database.settings()).await.map_err(|error| error.to_string())?;
    let outcome = tokio::select! {
        outcome = write_journal(&database, &wanted) => outcome,
        _ = interrupt.recv() => Err("interrupted: the journal is incomplete".to_owned()),
    };
    database.close().await;
    outcome
}

async fn write_journal(database: &Database, wanted: &ExportJournal) -> Result<(), String> {
    database.check_schema().await.map_err(|error| error.to_string())?;
    let partitions = service::partitions_of(database).await.map_err(|error| error.to_string())?;
    let period = JournalPeriod { from: wanted.from, to: wanted.to };
    let journal = Journal::new(database.queries(), partitions);
    let (mut entries, _) = journal.entries(period, None).await.map_err(|error| error.to_string())?;
    let mut output = Output::open(wanted.output.as_deref()).map_err(|error| error.to_string())?;
    let mut writer = JournalWriter::new(wanted.format);
    let mut bytes = Vec::new();
    writer.write_head(period, &mut bytes);
    while !entries.is_finished() {
        let page = entries.next_page().await.map_err(|error| error.to_string())?;
        writer.write_entries(&page, &mut bytes);
        if !output.write(&bytes)? {
            return Ok(());
        }
        bytes.clear();
    }
    output.write(&bytes)?;
    output.finish()
}

/// Where the journal goes.
enum Output {
    StandardOutput,
    /// A file that gets its name when it is complete.
    File {
        file: File,
        partial: PathBuf,
        path: PathBuf,
    },
}

impl Output {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else { return Ok(Self::StandardOutput) };
        let mut partial = path.as_os_str().to_owned();
        partial.push(".part");
        let partial = PathBuf::from(partial);
        Ok(Self::File { file: File::create(&partial)?, partial, path: path.to_owned() })
    }

    /// Returns `false` if the reader has closed the pipe, which is not an error.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let written = match self {
            Self::StandardOutput => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Self::File { file, .. } => file.write_all(bytes),
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(format!("the journal cannot be written: {error}")),
        }
    }

    fn finish(self) -> Result<(), String> {
        let Self::File { file, partial, path } = self else { return Ok(()) };
        let finished = file.sync_all().and_then(|()| fs::rename(&partial, &path));
        finished.map_err(|error| format!("the journal cannot be written to {}: {error}", path.display()))
    }
}
