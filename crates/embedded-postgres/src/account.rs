//! Who runs Postgres: it refuses to run as root, so root hands it to an unprivileged user, and everything that user
//! must read or write is given to them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use super::Error;

/// The user that Postgres runs as; nobody else than ourselves unless we are root.
#[derive(Clone, Debug)]
pub enum Account {
    Ourselves,
    Other { uid: u32, gid: u32, name: String },
}

impl Account {
    /// The owner of existing data, else `postgres`, else `nobody`.
    pub fn of(pgdata: &Path) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Ok(Self::Ourselves);
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

    /// Lets the command run as this user.
    pub fn assume(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid);
        }
    }

    /// Gives a file or folder to this user.
    pub fn own(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid, .. } => chown(path, Some(*uid), Some(*gid)).map_err(Error::folder(path)),
        }
    }

    /// Refuses data that belong to root: Postgres would run as this user and could not read them.
    pub fn check_owner(&self, pgdata: &Path) -> Result<(), Error> {
        match self {
            Self::Other { name, .. } if fs::metadata(pgdata).is_ok_and(|data| data.uid() == 0) => {
                Err(Error::OwnedByRoot { path: pgdata.to_owned(), user: name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a folder that this user cannot enter, or below one that they cannot enter. What does not exist yet, they can.
    pub fn check_reaches(&self, path: &Path) -> Result<(), Error> {
        let Self::Other { uid, gid, name } = self else {
            return Ok(());
        };
        for folder in path.ancestors() {
            let found = match fs::metadata(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(Error::folder(folder))?,
            };
            let search = match (found.uid() == *uid, found.gid() == *gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if found.mode() & search == 0 {
                return Err(Error::Unreachable { path: folder.to_owned(), user: name.clone() });
            }
        }
        Ok(())
    }
}

fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
