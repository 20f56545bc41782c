//! A checkpoint that was kept: its signature, and whether it can belong to this log.

use chrono::{DateTime, TimeDelta, Utc};
use passbook_event_store::{Partitions, timestamp};
use uuid::Uuid;

use crate::{
    body::{Checkpoint, InvalidBody},
    log_key::LogKey,
    log_name,
    signed_note::{InvalidNote, SignedNote},
    verifier_key::VerifierKey,
};

/// How far the time of a checkpoint may be outside the time of its key: an instance may sign while another one replaces the key.
const ROTATION_S_MAX: i64 = 60;
/// How far the times of two checkpoints may differ that were made at once.
const SIMULTANEOUS_S_MAX: i64 = 60;

/// A kept checkpoint with a valid signature.
#[derive(Clone, Debug)]
pub struct SavedCheckpoint {
    /// The name of its file.
    pub file: String,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The key that signed it.
    pub key: VerifierKey,
}

/// What the database says about its log.
#[derive(Clone, Debug)]
pub struct LogIdentity {
    /// Its id; `None` if it never signed a checkpoint.
    pub id: Option<Uuid>,
    /// Its partitions.
    pub partitions: Partitions,
    /// Its public keys.
    pub keys: Vec<LogKey>,
}

/// Why a kept checkpoint is refused, or does not belong to the log. Each message begins with the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its description")]
pub enum InvalidCheckpoint {
    #[error("{file}: {reason}")]
    Note { file: String, reason: InvalidNote },
    #[error("{file}: {reason}")]
    Body { file: String, reason: InvalidBody },
    #[error("{file}: the key {key} is that of another log than the text names")]
    OtherName { file: String, key: String },
    #[error(
        "{file} is a checkpoint of the log {found}, and this database has the log {expected}. A log that `passbook copy` made has \
         other positions and hashes: verify this checkpoint against the database from which it was copied"
    )]
    OtherLog { file: String, found: String, expected: String },
    #[error("{file} has {found} partitions, and the log has {expected}")]
    Partitions { file: String, found: usize, expected: i16 },
    #[error(
        "{file} names the time {time}, and its key {key} signed only from {from} to {until}: another party may have the private key"
    )]
    OutsideKeyTime { file: String, key: String, time: String, from: String, until: String },
    #[error(
        "{later} is later than {earlier}, and ends before it in partition {partition}: the log was truncated between them"
    )]
    Backwards { earlier: String, later: String, partition: usize },
    #[error(
        "{one} and {other} have different hashes at position {position} of partition {partition}: one key signed two histories"
    )]
    TwoHistories { one: String, other: String, partition: usize, position: i64 },
}

impl SavedCheckpoint {
    /// Reads the content of a file that one of `keys` must have signed.
    ///
    /// # Errors
    /// The file is no checkpoint, or none of the keys signed it as it is.
    pub fn open(file: &str, content: &[u8], keys: &[VerifierKey]) -> Result<Self, InvalidCheckpoint> {
        let invalid_note = |reason| InvalidCheckpoint::Note { file: file.to_owned(), reason };
        let note = SignedNote::parse(content).map_err(invalid_note)?;
        let (text, key) = note.verify(keys).map_err(invalid_note)?;
        let invalid_body = |reason| InvalidCheckpoint::Body { file: file.to_owned(), reason };
        let checkpoint: Checkpoint = text.parse().map_err(invalid_body)?;
        match log_name(checkpoint.log_id) == key.name() {
            true => Ok(Self { file: file.to_owned(), checkpoint, key: key.clone() }),
            false => Err(InvalidCheckpoint::OtherName { file: file.to_owned(), key: key.to_string() }),
        }
    }

    /// Checks that the checkpoint can be one of this log. The hashes are not compared.
    ///
    /// # Errors
    /// It is that of another log, or its key did not sign at its time.
    pub fn check_log(&self, log: &LogIdentity) -> Result<(), InvalidCheckpoint> {
        let (file, Checkpoint { log_id, heads, time }) = (self.file.clone(), &self.checkpoint);
        if log.id != Some(*log_id) {
            let expected = log.id.map_or_else(|| "that never signed a checkpoint".to_owned(), log_name);
            return Err(InvalidCheckpoint::OtherLog { file, found: log_name(*log_id), expected });
        }
        if heads.len() != usize::from(log.partitions.count().unsigned_abs()) {
            return Err(InvalidCheckpoint::Partitions { file, found: heads.len(), expected: log.partitions.count() });
        }
        match log.keys.iter().find(|known| known.key == self.key) {
            Some(known) if !signed_at(known, *time) => Err(InvalidCheckpoint::OutsideKeyTime {
                file,
                key: self.key.to_string(),
                time: timestamp::format(time),
                from: timestamp::format(&known.from),
                until: known.until.as_ref().map_or_else(|| "now".to_owned(), timestamp::format),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

fn signed_at(key: &LogKey, time: DateTime<Utc>) -> bool {
    let tolerance = TimeDelta::seconds(ROTATION_S_MAX);
    time >= key.from - tolerance && key.until.is_none_or(|until| time <= until + tolerance)
}

/// Compares checkpoints of one log with each other: a later one must not end before an earlier one, nor contradict it.
///
/// # Errors
/// Two of them contradict each other.
pub fn check_order(saved: &[SavedCheckpoint]) -> Result<(), InvalidCheckpoint> {
    let mut by_time: Vec<&SavedCheckpoint> = saved.iter().collect();
    by_time.sort_by_key(|saved| saved.checkpoint.time);
    for pair in by_time.windows(2) {
        let [earlier, later] = pair else { continue };
        let heads = earlier.checkpoint.heads.iter().zip(&later.checkpoint.heads);
        for (partition, (before, after)) in heads.enumerate() {
            // Two that are made at the same time may read their heads and their times in another order.
            let is_later = later.checkpoint.time - earlier.checkpoint.time > TimeDelta::seconds(SIMULTANEOUS_S_MAX);
            if is_later && after.position < before.position {
                let (earlier, later) = (earlier.file.clone(), later.file.clone());
                return Err(InvalidCheckpoint::Backwards { earlier, later, partition });
            }
            if after.position == before.position && after.hash != before.hash {
                let (one, other, position) = (earlier.file.clone(), later.file.clone(), before.position);
                return Err(InvalidCheckpoint::TwoHistories { one, other, partition, position });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use crate::body::SavedHead;

    fn saved(file: &str, second: i64, heads: &[(i64, u8)]) -> SavedCheckpoint {
        let heads = heads.iter().map(|&(position, byte)| SavedHead { position, hash: [byte; 32] }).collect();
        let time = DateTime::from_timestamp(second, 0).unwrap();
        let key = VerifierKey::new(&log_name(Uuid::nil()), [1; 32]).unwrap();
        SavedCheckpoint { file: file.to_owned(), checkpoint: Checkpoint { log_id: Uuid::nil(), heads, time }, key }
    }

    fn log(from: i64, until: Option<i64>) -> LogIdentity {
        let time = |second| DateTime::from_timestamp(second, 0).unwrap();
        let key = LogKey { key: saved("", 0, &[]).key, from: time(from), until: until.map(time) };
        LogIdentity { id: Some(Uuid::nil()), partitions: Partitions::ONE, keys: vec![key] }
    }

    #[test]
    fn checkpoints_that_contradict_each_other_are_named() {
        let first = saved("first", 10, &[(5, 1), (7, 1)]);
        let second = saved("second", 20, &[(5, 1), (8, 2)]);
        assert_eq!(check_order(&[second.clone(), first.clone()]), Ok(()));
        let shorter = saved("third", 81, &[(5, 1), (7, 1)]);
        let error = check_order(&[shorter, first.clone(), second.clone()]).unwrap_err();
        let (earlier, later) = ("second".to_owned(), "third".to_owned());
        assert_eq!(error, InvalidCheckpoint::Backwards { earlier, later, partition: 1 });
        let other = saved("other", 20, &[(5, 3), (8, 2)]);
        let error = check_order(&[first, other]).unwrap_err();
        assert!(matches!(error, InvalidCheckpoint::TwoHistories { partition: 0, position: 5, .. }), "{error}");
    }

    #[test]
    fn a_checkpoint_outside_the_time_of_its_key_is_refused() {
        let at = |second| saved("file", second, &[(1, 1)]);
        assert_eq!(at(1_000).check_log(&log(0, None)), Ok(()));
        assert_eq!(at(1_060).check_log(&log(0, Some(1_000))), Ok(()));
        for (second, log) in [(1_061, log(0, Some(1_000))), (39, log(100, None))] {
            let error = at(second).check_log(&log).unwrap_err();
            assert!(matches!(error, InvalidCheckpoint::OutsideKeyTime { .. }), "{error}");
        }
    }

    #[test]
    fn a_checkpoint_of_another_log_is_refused() {
        let two_partitions = saved("file", 1, &[(1, 1), (1, 1)]);
        let error = two_partitions.check_log(&log(0, None)).unwrap_err();
        assert!(matches!(error, InvalidCheckpoint::Partitions { found: 2, expected: 1, .. }), "{error}");
        for id in [None, Some(Uuid::max())] {
            let other = LogIdentity { id, ..log(0, None) };
            let error = saved("file", 1, &[(1, 1)]).check_log(&other).unwrap_err();
            assert!(matches!(error, InvalidCheckpoint::OtherLog { .. }), "{error}");
        }
    }
}
