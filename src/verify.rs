//! `passbook verify`: verifies the log, also against heads and checkpoints that were kept.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use passbook::{config::Verify, service};
use passbook_audit::verification::{self, InvalidPinnedHead, PinnedHead};
use passbook_checkpoint::{
    InvalidCheckpoint, LogIdentity, NOTE_BYTES_MAX, SavedCheckpoint, VerifierKey, check_order, log_id, public_keys,
};
use passbook_database::Database;
use passbook_event_store::{Partitions, timestamp};
use passbook_telemetry as telemetry;
use serde_json::json;

use crate::{print, progress::Progress};

/// The name and the content of a file.
type Note = (String, Vec<u8>);

/// What the log must contain, as the command line names it.
struct Expected {
    heads: Vec<PinnedHead>,
    notes: Vec<Note>,
    keys: Vec<VerifierKey>,
}

/// Verifies the log, and prints the result.
///
/// # Errors
/// The text is for the operator: the first inconsistency, or why the log cannot be verified.
pub async fn run(wanted: Verify) -> Result<(), String> {
    let Verify { expect_head, checkpoints, log_keys, json, database, log } = wanted;
    let heads = expect_head.iter().flat_map(|list| list.split(',')).map(str::parse).collect();
    let heads = Result::map_err(heads, |error: InvalidPinnedHead| format!("--expect-head: {error}"))?;
    let notes = checkpoints.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let expected = Expected { heads, notes, keys: log_keys };
    let _telemetry = telemetry::start(&log.settings())?;
    let database = Database::open_existing(&database.settings()).await.map_err(|error| error.to_string())?;
    let outcome = verify_log(&database, expected, json).await;
    database.close().await;
    outcome
}

/// Reads at most what a note can have, and a byte more, so that a larger file is refused.
fn read(path: &Path) -> Result<Note, String> {
    let name = path.display().to_string();
    let mut content = vec![];
    let read = File::open(path).and_then(|file| file.take(NOTE_BYTES_MAX as u64 + 1).read_to_end(&mut content));
    read.map_err(|error| format!("--checkpoint {name} cannot be read: {error}"))?;
    Ok((name, content))
}

async fn verify_log(database: &Database, expected: Expected, json: bool) -> Result<(), String> {
    database.check_schema().await.map_err(|error| error.to_string())?;
    let partitions = service::partitions_of(database).await.map_err(|error| error.to_string())?;
    let Expected { mut heads, notes, keys } = expected;
    if !notes.is_empty() {
        let log = log_identity(database, partitions).await?;
        match check_notes(&notes, keys, &log) {
            Ok(saved) => heads.extend(saved.iter().flat_map(pinned_heads)),
            Err(error) if json => {
                print(&format!("{}\n", json!({"verified": false, "finding": error.to_string()})))?;
                return Err("a checkpoint is not one of this log".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    let progress = Progress::of("verifying");
    let outcome =
        verification::verify(&database.auditor(), partitions, &heads, |read, of| progress.show(read, of)).await;
    progress.end();
    match (outcome, json) {
        (Ok(report), false) => print(&format!("{report}\n{}", contained(&notes))),
        (Ok(report), true) => print(&report.to_json()),
        (Err(verification::Error::Inconsistent(finding)), true) => {
            print(&finding.to_json())?;
            Err("the log is inconsistent".to_owned())
        }
        (Err(error), _) => Err(error.to_string()),
    }
}

/// The line of the report that names the checkpoints.
fn contained(notes: &[Note]) -> String {
    let files: Vec<&str> = notes.iter().map(|(file, _)| file.as_str()).collect();
    match files[..] {
        [] => String::new(),
        [..] => format!(
            "\nThe log contains the checkpoints {}, and the events between them are unchanged.\n",
            files.join(", ")
        ),
    }
}

async fn log_identity(database: &Database, partitions: Partitions) -> Result<LogIdentity, String> {
    let read = database.with_service_role(async |connection| {
        Ok(LogIdentity { id: log_id(connection).await?, partitions, keys: public_keys(connection).await? })
    });
    read.await.map_err(|error| error.to_string())
}

/// Checks signatures, log and time of the checkpoints. Without keys of the command line, those of the database are trusted.
fn check_notes(
    notes: &[Note],
    keys: Vec<VerifierKey>,
    log: &LogIdentity,
) -> Result<Vec<SavedCheckpoint>, InvalidCheckpoint> {
    let keys = if keys.is_empty() {
        tracing::warn!("signatures are checked with the keys that the database lists; name a kept key with --log-key");
        log.keys.iter().map(|known| known.key.clone()).collect()
    } else {
        keys
    };
    let mut saved = vec![];
    for (file, content) in notes {
        let checkpoint = SavedCheckpoint::open(file, content, &keys)?;
        checkpoint.check_log(log)?;
        saved.push(checkpoint);
    }
    check_order(&saved)?;
    Ok(saved)
}

/// The heads of a checkpoint. A partition that had no events has none.
fn pinned_heads(saved: &SavedCheckpoint) -> Vec<PinnedHead> {
    let source: Arc<str> =
        format!("the checkpoint {} of {}", saved.file, timestamp::format(&saved.checkpoint.time)).into();
    let heads = (0..).zip(&saved.checkpoint.heads).filter(|(_, head)| head.position > 0);
    heads.map(|(partition, head)| PinnedHead::new(partition, head.position, &head.hash, Arc::clone(&source))).collect()
}
