//! Files that are whole or absent: read with a limit, written aside and renamed, changed by one process at a time.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Failure;

/// Reads at most `limit` bytes; a longer file is an error.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .with_context(|| format!("{} cannot be read", path.display()))?;
    if bytes.len() as u64 > limit {
        let text = format!("{} is longer than {limit} bytes", path.display());
        return Err(Failure::data(text).into());
    }
    Ok(bytes)
}

/// Like [`read`]; `None` if there is no such file.
pub fn read_if_present(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match read(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Replaces `path` by a file with these bytes; nobody ever sees a part of it. `private`: only the owner may read it.
pub fn write(path: &Path, bytes: &[u8], private: bool) -> Result<()> {
    let folder = folder_of(path);
    let subject = || format!("{} cannot be written", path.display());
    fs::create_dir_all(folder).with_context(subject)?;
    let mut aside = Aside::new(path, private).with_context(subject)?;
    aside.file.write_all(bytes).with_context(subject)?;
    aside.commit(path).with_context(subject)
}

/// A file that becomes visible when it is complete, and is removed if it never is.
struct Aside {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Aside {
    fn new(target: &Path, private: bool) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        for attempt in 0_u32.. {
            let path =
                target.with_file_name(format!(".{name}.{}.{attempt}.tmp", std::process::id()));
            let mode = if private { 0o600 } else { 0o666 };
            let opened = File::options()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path);
            match opened {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        path,
                        kept: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn commit(&mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        self.kept = true;
        File::open(folder_of(target))?.sync_all()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Holds the folder of `path` for this process until it is dropped, so that what is read, changed and written again is
/// not lost to another process that does the same. The kernel gives it back when the process ends.
pub fn exclusive(path: &Path) -> Result<File> {
    let folder = folder_of(path);
    let hold = || -> io::Result<File> {
        fs::create_dir_all(folder)?;
        let file = File::open(folder)?;
        match flock(&file, FlockOperation::LockExclusive) {
            // Network file systems lock files that are open for writing only, and a folder never is.
            Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => tracing::warn!(
                "{} cannot be locked: do not run two commands on it at the same time",
                folder.display()
            ),
            result => result?,
        }
        Ok(file)
    };
    hold().with_context(|| format!("the folder {} cannot be locked", folder.display()))
}

/// The folder that a file lies in, or is to lie in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
