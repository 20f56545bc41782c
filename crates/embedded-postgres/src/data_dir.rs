//! The data folder: Postgres's data, its log, its socket and Passbook's lock. Only one Passbook process uses it at a time. New data
//! are moved into place in one step, so that an interrupted `initdb` leaves no partial data behind.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{self, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::error::Error;
use super::os_user::RunAs;

const POSTGRES: &str = "postgres";
const POSTGRES_NEW: &str = "postgres.new";
const LOG: &str = "postgres.log";
const LOCK: &str = "passbook.lock";
const RUN: &str = "run";
/// The files that `passbook token` writes here.
const KEY: &str = "development.key";
const KEY_PUBLIC: &str = "development.jwks.json";
/// The key file of the service, and the one that is being written.
const WRAPPING_KEY: &str = "wrapping.key";
const WRAPPING_KEY_NEW: &str = "wrapping.key.new";
const SOCKET: &str = ".s.PGSQL.5432";
const SOCKET_LOCK: &str = ".s.PGSQL.5432.lock";

/// The operating system limits a socket's path to 103 bytes (macOS) or 107 bytes (Linux).
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A locked data folder. The lock is released when this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    pub run_as: RunAs,
    _lock: Flock<File>,
}

/// Whether the folder contains data. `true` as well if that cannot be determined.
pub fn contains_data(data_dir: &Path) -> bool {
    !matches!(data_dir.join(POSTGRES).try_exists(), Ok(false))
}

impl DataDir {
    /// Creates the folder if it is missing, and locks it.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has locked the folder. Other errors if Postgres's user cannot use the folder.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let run_as = RunAs::for_data(&data_dir.join(POSTGRES))?;
        let absolute = path::absolute(data_dir).map_err(Error::data_dir(data_dir))?;
        run_as.check_access(absolute.parent().unwrap_or(&absolute))?;
        create_private(&absolute)?;
        let root = fs::canonicalize(&absolute).map_err(Error::data_dir(&absolute))?;
        if root.join("PG_VERSION").exists() {
            return Err(Error::NotADataDir(root));
        }
        if contains_only_own_files(&root)? {
            run_as.chown(&root)?;
        }
        run_as.check_access(&root)?;

        let lock = lock(&root)?;
        run_as.chown(&root.join(LOCK))?;
        Ok(Self { root, run_as, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of Postgres's data (`PGDATA`).
    pub fn pgdata(&self) -> PathBuf {
        self.root.join(POSTGRES)
    }

    /// The folders in which a server of this data folder can run: that of the data, and that in which new data are created.
    pub fn server_dirs(&self) -> [PathBuf; 2] {
        [self.pgdata(), self.root.join(POSTGRES_NEW)]
    }

    /// The major version that wrote the data; `None` if there are no data yet.
    ///
    /// # Errors
    /// The version file cannot be read, or the folder contains other files than those of a data folder.
    pub fn data_major(&self) -> Result<Option<u32>, Error> {
        let pgdata = self.pgdata();
        self.run_as.check_owner(&pgdata)?;
        match fs::metadata(&pgdata) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::DataDir { path: pgdata, source }),
            Ok(data) if data.mode() & 0o700 != 0o700 => {
                return Err(Error::DataDir { path: pgdata, source: Errno::EACCES.into() });
            }
            Ok(_) => {}
        }
        let version = pgdata.join("PG_VERSION");
        match fs::read_to_string(&version) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| Error::NotADataDir(pgdata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotADataDir(pgdata)),
            Err(source) => Err(Error::DataDir { path: version, source }),
        }
    }

    /// Creates an empty folder for `initdb` beside the data. The leftovers of an interrupted `initdb` are removed.
    ///
    /// # Errors
    /// The operating system denied access.
    pub fn create_new_data(&self) -> Result<PathBuf, Error> {
        let new = self.root.join(POSTGRES_NEW);
        allow_missing(fs::remove_dir_all(&new)).map_err(Error::data_dir(&new))?;
        self.create_private_dir(&new)?;
        Ok(new)
    }

    /// Moves the new data into place and flushes the folder to disk.
    ///
    /// # Errors
    /// The operating system denied access.
    pub fn commit_new_data(&self, new: &Path) -> Result<(), Error> {
        fs::rename(new, self.pgdata())
            .and_then(|()| File::open(&self.root)?.sync_all())
            .map_err(Error::data_dir(&self.pgdata()))
    }

    /// The path of Postgres's log.
    pub fn log_path(&self) -> PathBuf {
        self.root.join(LOG)
    }

    /// Opens Postgres's log for appending.
    ///
    /// # Errors
    /// The operating system denied access.
    pub fn open_log(&self) -> Result<File, Error> {
        let path = self.log_path();
        let log = File::options().create(true).append(true).open(&path).map_err(Error::data_dir(&path))?;
        self.run_as.chown(&path)?;
        Ok(log)
    }

    /// Creates the private folder of the socket. A lock file of a killed server is removed: Postgres would refuse to start if the
    /// process id in it belonged to another process now.
    ///
    /// # Errors
    /// The operating system denied access, or another user can access the folder.
    pub fn open_socket_dir(&self) -> Result<PathBuf, Error> {
        let run = socket_dir(&self.root);
        self.create_private_dir(&run)?;
        for file in [SOCKET, SOCKET_LOCK].map(|name| run.join(name)) {
            allow_missing(fs::remove_file(&file)).map_err(Error::data_dir(&file))?;
        }
        Ok(run)
    }

    /// Creates a folder that only Postgres's user can access. A folder that exists already must be private as well. In a
    /// temporary folder it may belong to another user. Below the root folder, `run` would be the system's.
    fn create_private_dir(&self, path: &Path) -> Result<(), Error> {
        create_private(path)?;
        let found = fs::symlink_metadata(path).map_err(Error::data_dir(path))?;
        if !found.is_dir() || found.mode() & 0o077 != 0 {
            return Err(Error::DataDir { path: path.to_owned(), source: Errno::EPERM.into() });
        }
        self.run_as.chown(path)
    }
}

/// Returns the folder of the server's socket: in the data folder, or in a temporary folder if the path is too long.
pub fn socket_dir(data_dir: &Path) -> PathBuf {
    let root = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let run = root.join(RUN);
    if run.join(SOCKET).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return run;
    }
    let hash = Sha256::digest(root.as_os_str().as_bytes());
    std::env::temp_dir().join(format!("passbook-{}", hex::encode(&hash[..8])))
}

/// Creates a folder with mode 0700. Its parents get the default mode, because Postgres's user must be able to enter them.
fn create_private(path: &Path) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::data_dir(path))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        created => created.map_err(Error::data_dir(path)),
    }
}

/// Accepts that the file to remove does not exist.
fn allow_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether the folder contains nothing but Passbook's files. Only then may its owner be changed.
fn contains_only_own_files(root: &Path) -> Result<bool, Error> {
    let own = [POSTGRES, POSTGRES_NEW, LOG, LOCK, RUN, KEY, KEY_PUBLIC, WRAPPING_KEY, WRAPPING_KEY_NEW].map(OsStr::new);
    for entry in fs::read_dir(root).map_err(Error::data_dir(root))? {
        let entry = entry.map_err(Error::data_dir(root))?;
        if !own.contains(&entry.file_name().as_os_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Locks the folder. The operating system releases the lock when the process ends, also after a crash.
fn lock(root: &Path) -> Result<Flock<File>, Error> {
    let path = root.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::data_dir(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => Error::InUse(root.to_owned()),
        errno => Error::DataDir { path, source: errno.into() },
    })
}
