//! The operating system's user that Postgres runs as. Postgres refuses to run as root, so root runs it as an unprivileged user.
//! That user becomes the owner of all files that Postgres reads or writes.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use super::error::Error;

/// The user that Postgres runs as: the current user, unless that is root.
#[derive(Clone, Debug)]
pub enum RunAs {
    CurrentUser,
    Other { uid: u32, gid: u32, name: String },
}

impl RunAs {
    /// Chooses the owner of existing data, else the user `postgres`, else `nobody`.
    ///
    /// # Errors
    /// Passbook runs as root, and neither the user `postgres` nor `nobody` exists.
    pub fn for_data(pgdata: &Path) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Ok(Self::CurrentUser);
        }
        let owner = fs::metadata(pgdata).ok().filter(|data| data.uid() != 0);
        match owner {
            Some(data) => Ok(Self::Other { uid: data.uid(), gid: data.gid(), name: name_of(data.uid()) }),
            None => ["postgres", "nobody"]
                .iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .map(|user| Self::Other { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name })
                .ok_or(Error::NoUser),
        }
    }

    /// Makes the command run as this user.
    pub fn apply_to(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid);
        }
    }

    /// Makes this user the owner of a file or folder.
    ///
    /// # Errors
    /// The operating system denied access.
    pub fn chown(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::CurrentUser => Ok(()),
            Self::Other { uid, gid, .. } => chown(path, Some(*uid), Some(*gid)).map_err(Error::data_dir(path)),
        }
    }

    /// Rejects data that root owns, because Postgres runs as this user and could not read them.
    ///
    /// # Errors
    /// The data belongs to root.
    pub fn check_owner(&self, pgdata: &Path) -> Result<(), Error> {
        match self {
            Self::Other { name, .. } if fs::metadata(pgdata).is_ok_and(|data| data.uid() == 0) => {
                Err(Error::OwnedByRoot { path: pgdata.to_owned(), user: name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Rejects a folder if this user cannot enter it or one of its parents. Folders that do not exist yet are accepted.
    ///
    /// # Errors
    /// The user cannot enter one of the folders.
    pub fn check_access(&self, path: &Path) -> Result<(), Error> {
        let Self::Other { uid, gid, name } = self else {
            return Ok(());
        };
        for folder in path.ancestors() {
            let found = match fs::metadata(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(Error::data_dir(folder))?,
            };
            let search = match (found.uid() == *uid, found.gid() == *gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if found.mode() & search == 0 {
                return Err(Error::NoAccess { path: folder.to_owned(), user: name.clone() });
            }
        }
        Ok(())
    }
}

fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
