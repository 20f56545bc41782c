//! The data folder: Postgres's files, its log, its socket and our lock. It is used by one passbook at a time, and new
//! data appear in it in one step, so that an interrupted `initdb` is never taken for data.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{self, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::Error;
use super::account::Account;

const POSTGRES: &str = "postgres";
const POSTGRES_NEW: &str = "postgres.new";
const LOG: &str = "postgres.log";
const LOCK: &str = "passbook.lock";
const RUN: &str = "run";
/// What `passbook token` leaves here.
const KEY: &str = "development.key";
const KEY_PUBLIC: &str = "development.jwks.json";
const SOCKET: &str = ".s.PGSQL.5432";
const SOCKET_LOCK: &str = ".s.PGSQL.5432.lock";

/// A socket's path has at most 103 (macOS) or 107 (Linux) bytes.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A data folder that is ours alone as long as this lives.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    pub account: Account,
    _lock: Flock<File>,
}

/// Whether there may be data: what cannot be looked at may be some.
pub fn holds_data(data_dir: &Path) -> bool {
    !matches!(data_dir.join(POSTGRES).try_exists(), Ok(false))
}

impl Folder {
    /// Creates the folder where there is none, and locks it.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let account = Account::of(&data_dir.join(POSTGRES))?;
        let absolute = path::absolute(data_dir).map_err(Error::folder(data_dir))?;
        account.check_reaches(absolute.parent().unwrap_or(&absolute))?;
        create_private(&absolute)?;
        let root = fs::canonicalize(&absolute).map_err(Error::folder(&absolute))?;
        if root.join("PG_VERSION").exists() {
            return Err(Error::NotOurs(root));
        }
        if holds_nothing_foreign(&root)? {
            account.own(&root)?;
        }
        account.check_reaches(&root)?;

        let lock = lock(&root)?;
        account.own(&root.join(LOCK))?;
        Ok(Self { root, account, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where Postgres keeps its data (`PGDATA`).
    pub fn pgdata(&self) -> PathBuf {
        self.root.join(POSTGRES)
    }

    /// The major version that wrote the data; none where there are no data yet.
    pub fn major(&self) -> Result<Option<u32>, Error> {
        let pgdata = self.pgdata();
        self.account.check_owner(&pgdata)?;
        match fs::metadata(&pgdata) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Folder { path: pgdata, source }),
            Ok(data) if data.mode() & 0o700 != 0o700 => {
                return Err(Error::Folder { path: pgdata, source: Errno::EACCES.into() });
            }
            Ok(_) => {}
        }
        let version = pgdata.join("PG_VERSION");
        match fs::read_to_string(&version) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| Error::NotOurs(pgdata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotOurs(pgdata)),
            Err(source) => Err(Error::Folder { path: version, source }),
        }
    }

    /// An empty folder beside the data, for `initdb`; what an interrupted one left there is removed.
    pub fn begin_data(&self) -> Result<PathBuf, Error> {
        let new = self.root.join(POSTGRES_NEW);
        absent(fs::remove_dir_all(&new)).map_err(Error::folder(&new))?;
        self.private(&new)?;
        Ok(new)
    }

    /// Makes what `initdb` wrote the data, for good.
    pub fn finish_data(&self, new: &Path) -> Result<(), Error> {
        fs::rename(new, self.pgdata())
            .and_then(|()| File::open(&self.root)?.sync_all())
            .map_err(Error::folder(&self.pgdata()))
    }

    /// Where Postgres's log is.
    pub fn log_path(&self) -> PathBuf {
        self.root.join(LOG)
    }

    /// Postgres's log, to be appended to.
    pub fn open_log(&self) -> Result<File, Error> {
        let path = self.log_path();
        let log = File::options().create(true).append(true).open(&path).map_err(Error::folder(&path))?;
        self.account.own(&path)?;
        Ok(log)
    }

    /// The private folder that will hold the socket. A killed server leaves its socket's lock file there, which would
    /// stop the next one if the number in it were another process's by now.
    pub fn open_socket_dir(&self) -> Result<PathBuf, Error> {
        let run = socket_dir(&self.root);
        self.private(&run)?;
        for file in [SOCKET, SOCKET_LOCK].map(|name| run.join(name)) {
            absent(fs::remove_file(&file)).map_err(Error::folder(&file))?;
        }
        Ok(run)
    }

    /// Creates a folder that is Postgres's alone. One that stands there already must be private too: in a temporary
    /// folder it may be somebody else's, and `run` below a careless data folder may be the system's.
    fn private(&self, path: &Path) -> Result<(), Error> {
        create_private(path)?;
        let found = fs::symlink_metadata(path).map_err(Error::folder(path))?;
        if !found.is_dir() || found.mode() & 0o077 != 0 {
            return Err(Error::Folder { path: path.to_owned(), source: Errno::EPERM.into() });
        }
        self.account.own(path)
    }
}

/// Where the server of this data folder listens.
pub fn socket_dir(data_dir: &Path) -> PathBuf {
    let root = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let run = root.join(RUN);
    if run.join(SOCKET).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return run;
    }
    let hash = Sha256::digest(root.as_os_str().as_bytes());
    std::env::temp_dir().join(format!("passbook-{}", hex::encode(&hash[..8])))
}

/// The folders above keep the usual mode: another user may have to pass through them.
fn create_private(path: &Path) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::folder(path))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        created => created.map_err(Error::folder(path)),
    }
}

/// What is to be removed may be gone already.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A folder with other people's files in it is used as it is; only one of our own may change its owner.
fn holds_nothing_foreign(root: &Path) -> Result<bool, Error> {
    let ours = [POSTGRES, POSTGRES_NEW, LOG, LOCK, RUN, KEY, KEY_PUBLIC].map(OsStr::new);
    for entry in fs::read_dir(root).map_err(Error::folder(root))? {
        let entry = entry.map_err(Error::folder(root))?;
        if !ours.contains(&entry.file_name().as_os_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The lock ends with the process that holds it, however that ends.
fn lock(root: &Path) -> Result<Flock<File>, Error> {
    let path = root.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::folder(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => Error::InUse(root.to_owned()),
        errno => Error::Folder { path, source: errno.into() },
    })
}
