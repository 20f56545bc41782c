//! The key file: reads it, checks who else can read it, and creates the one of the embedded server.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::wrapping::{InvalidKeys, WrappingKeys};

/// The name of the key file in the data folder of the embedded server.
pub const DEFAULT_FILE: &str = "wrapping.key";
/// Ends the name of a key file that is not complete yet.
const UNFINISHED: &str = "new";
/// The size of a key file. A key takes 45 bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Where the key file is.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// The file that `PASSBOOK_KEY_FILE` names.
    Named(PathBuf),
    /// The file in the data folder of the embedded server. It is created when the log has none yet.
    DataFolder(PathBuf),
    /// No file is named, and the database is not the embedded one.
    None,
}

/// What was found at a [`KeySource`].
#[derive(Clone, Debug)]
pub enum KeyFile {
    /// The file and its keys.
    Found(PathBuf, WrappingKeys),
    /// The file that `PASSBOOK_KEY_FILE` names does not exist.
    Missing(PathBuf),
    /// The file in the data folder does not exist.
    NotCreated(PathBuf),
    /// No file is named.
    NotNamed,
}

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum Error {
    #[error("the key file {path} (PASSBOOK_KEY_FILE) cannot be read: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the key file {path} (PASSBOOK_KEY_FILE) cannot be created: {source}")]
    NotCreated { path: PathBuf, source: io::Error },
    #[error(
        "the key file {path} (PASSBOOK_KEY_FILE) does not exist: create it with `(umask 077; openssl rand -base64 32 > {path})`, or correct \
         the setting"
    )]
    Missing { path: PathBuf },
    #[error("the key file {path} (PASSBOOK_KEY_FILE) is not a file")]
    NotAFile { path: PathBuf },
    #[error("the key file {path} (PASSBOOK_KEY_FILE) is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("other users can read the key file {path} (PASSBOOK_KEY_FILE, mode {mode:04o}): run `chmod 600 {path}`")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "the key file {path} (PASSBOOK_KEY_FILE) {reason}; write one key a line, made with `openssl rand -base64 32`"
    )]
    Invalid { path: PathBuf, reason: InvalidKeys },
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

impl KeyFile {
    /// Reads the key file.
    ///
    /// # Errors
    /// The file exists and cannot be used.
    pub fn read(source: &KeySource) -> Result<Self, Error> {
        let (KeySource::Named(path) | KeySource::DataFolder(path)) = source else { return Ok(Self::NotNamed) };
        match (read(path)?, source) {
            (Some(keys), _) => Ok(Self::Found(path.clone(), keys)),
            (None, KeySource::DataFolder(_)) => Ok(Self::NotCreated(path.clone())),
            (None, KeySource::Named(_) | KeySource::None) => Ok(Self::Missing(path.clone())),
        }
    }
}

/// The keys in a file; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<WrappingKeys>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if is_missing(&error) => return Ok(None),
        // Opening a pipe would wait for its writer.
        Ok(found) if !found.is_file() => return Err(Error::NotAFile { path: path.to_owned() }),
        found => found.map_err(unreadable)?,
    };
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if is_too_open(found.mode(), found.uid()) {
        return Err(Error::TooOpen { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    WrappingKeys::parse(&text).map(Some).map_err(|reason| Error::Invalid { path: path.to_owned(), reason })
}

/// A folder that is a file has no file, either. It is reported with the data folder.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether others than the owner can read or write the file. As for the keys of Postgres, the group may read a file of root: that is how
/// container platforms mount secrets.
fn is_too_open(mode: u32, owner: u32) -> bool {
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

/// Creates a key file with a new key. If it exists meanwhile, its keys are returned.
///
/// The file gets its name when it is complete and durable, so that a crash leaves no part of a key.
pub(crate) fn create(path: &Path) -> Result<WrappingKeys, Error> {
    let keys = WrappingKeys::generate();
    match write_new(path, keys.to_text().as_bytes()) {
        Ok(()) => Ok(keys),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| Error::Missing { path: path.to_owned() })
        }
        Err(source) => Err(Error::NotCreated { path: path.to_owned(), source }),
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(format!("key.{UNFINISHED}"));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    // Unlike a rename, a link never replaces a file.
    let linked = fs::hard_link(&unfinished, path);
    fs::remove_file(&unfinished)?;
    linked?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn named(path: &Path) -> KeySource {
        KeySource::Named(path.to_owned())
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_created_file_is_private_complete_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DEFAULT_FILE);
        let keys = create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let KeyFile::Found(_, found) = KeyFile::read(&named(&path)).unwrap() else { panic!("the file is missing") };
        assert_eq!(found.fingerprint(), keys.fingerprint());
        assert_eq!(create(&path).unwrap().fingerprint(), keys.fingerprint());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_crash_before_the_link_leaves_no_key_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DEFAULT_FILE);
        write(&path.with_extension("key.new"), "half a k", 0o600);
        assert!(matches!(KeyFile::read(&KeySource::DataFolder(path.clone())).unwrap(), KeyFile::NotCreated(_)));
        create(&path).unwrap();
        assert!(matches!(KeyFile::read(&named(&path)).unwrap(), KeyFile::Found(..)));
    }

    #[test]
    fn files_that_others_can_read_are_refused_with_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        write(&path, &WrappingKeys::generate().to_text(), 0o644);
        let error = KeyFile::read(&named(&path)).unwrap_err();
        assert!(error.to_string().contains("mode 0644): run `chmod 600"), "{error}");
        for mode in [0o600, 0o400] {
            write(&path, &WrappingKeys::generate().to_text(), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(KeyFile::read(&named(&path)).is_ok());
        }
    }

    #[test]
    fn the_group_may_read_a_file_of_root_only() {
        assert!(!is_too_open(0o100_440, 0));
        assert!(!is_too_open(0o100_640, 0));
        for mode in [0o100_660, 0o100_444, 0o100_610] {
            assert!(is_too_open(mode, 0), "{mode:o}");
        }
        assert!(is_too_open(0o100_440, 1000));
        assert!(!is_too_open(0o100_600, 1000));
    }

    #[test]
    fn files_without_usable_keys_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert!(matches!(KeyFile::read(&named(&path)).unwrap(), KeyFile::Missing(_)));
        for (text, reason) in [("", "contains no key"), ("abc", "line 1"), ("\u{0}", "line 1")] {
            write(&path, text, 0o600);
            let error = KeyFile::read(&named(&path)).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("keys"), "{error}");
        }
        write(&path, &"x".repeat(20_000), 0o600);
        assert!(matches!(KeyFile::read(&named(&path)), Err(Error::TooLarge { .. })));
        assert!(matches!(KeyFile::read(&named(folder.path())), Err(Error::NotAFile { .. })));
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(KeyFile::read(&named(&path)), Err(Error::Unreadable { .. })));
    }
}
