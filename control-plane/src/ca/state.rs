//! Secret files: written atomically, readable by their owner alone.
//!
//! Used by `ca::issue` and `ca::token`. A file is made once under a lock on the
//! directory and never replaced here.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::ca::Error;

/// The state directory, locked against a second starter until dropped.
#[derive(Debug)]
pub(crate) struct State {
    directory: PathBuf,
    _lock: File,
}

impl State {
    /// Makes the directory (0700) when it is missing.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File {
            path: directory.display().to_string(),
            source,
        };
        if !directory.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(failed)?;
        }
        let mode = fs::metadata(directory)
            .map_err(failed)?
            .permissions()
            .mode();
        if mode & 0o022 != 0 {
            return Err(Error::State {
                path: directory.display().to_string(),
                message: format!("others may write to it (mode {:o})", mode & 0o777),
                remedy: "chmod 700 it, and check that nobody has changed its files",
            });
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `None` when there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File {
                path: path.display().to_string(),
                source,
            }),
        }
    }

    /// Whole or not at all, also over a crash.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path(name);
        let failed = |source| Error::File {
            path: path.display().to_string(),
            source,
        };
        let fresh = self.path(&format!(".{name}.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&fresh, &path).map_err(failed)?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    }
}
