//! Writes the refused commands to a file: NDJSON, one refusal a line, with the line's number and text.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::Error,
    input::{FileId, Input},
    key::Line,
    result_reader::ItemResult,
};

/// The file of the refusals.
pub struct RefusalFile {
    path: PathBuf,
    file: BufWriter<File>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    line: u64,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a RawValue>,
    command: Command,
}

/// The line as it stands in the file, or as a string if it is no JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Command {
    Json(Box<RawValue>),
    Text(String),
}

impl RefusalFile {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// [`Error::RefusalFileIsInput`] if it is the file that `input` reads, or [`Error::RefusalFile`].
    pub fn create(path: &Path, input: &Input) -> Result<Self, Error> {
        let existing = fs::metadata(path).ok().as_ref().and_then(FileId::of);
        if existing.is_some() && existing == input.file() {
            return Err(Error::RefusalFileIsInput { path: path.to_owned() });
        }
        let file = File::create(path).map_err(|source| Error::RefusalFile { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    pub(crate) fn write(&mut self, line: &Line, result: &ItemResult) -> Result<(), Error> {
        let text = String::from_utf8_lossy(&line.original()).into_owned();
        let refusal = Refusal {
            line: line.number,
            status: result.status,
            code: result.code(),
            problem: result.problem.as_deref(),
            command: RawValue::from_string(text.clone()).map_or(Command::Text(text), Command::Json),
        };
        let written = serde_json::to_writer(&mut self.file, &refusal).map_err(std::io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| Error::RefusalFile { path: self.path.clone(), source })
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.file.flush().map_err(|source| Error::RefusalFile { path: self.path.clone(), source })
    }
}
