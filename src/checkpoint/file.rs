//! Files that are on the disk when they are called finished, and the folder operations around them.
//!
//! A file is created new, hashed while it is written, synced once. After any error it is lost: nobody writes to the same
//! descriptor again or calls it clean.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::space;

/// Bytes collected before a write.
const BUFFER: usize = 1 << 20;

/// A save that the volume refused. The run can go on: what was there before is untouched.
#[derive(Debug)]
pub enum SaveError {
    /// No space, or a quota is used up.
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// Bytes of the whole file, if they were known before it was written.
        needed: Option<u64>,
        /// Bytes that were free when it failed, if the volume tells.
        available: Option<u64>,
        /// The system's error.
        source: io::Error,
    },
    /// The device failed (EIO), while writing or at the sync: the file is lost.
    Device {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl SaveError {
    /// The save error in a chain, if it is what ended a save.
    pub fn find(error: &anyhow::Error) -> Option<&Self> {
        error
            .downcast_ref()
            .or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
    }

    /// Names the path; an error of the volume becomes typed.
    fn from_io(source: io::Error, path: &Path, needed: Option<u64>) -> anyhow::Error {
        let path = path.to_path_buf();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                let available = path
                    .ancestors()
                    .skip(1)
                    .find_map(|folder| space::available(folder).ok());
                Self::DiskFull {
                    path,
                    needed,
                    available,
                    source,
                }
                .into()
            }
            Some(Errno::IO) => Self::Device { path, source }.into(),
            _ => anyhow::Error::new(source).context(format!("cannot write {}", path.display())),
        }
    }
}

impl fmt::Display for SaveError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull {
                path,
                needed,
                available,
                ..
            } => {
                write!(formatter, "no space for {}", path.display())?;
                if let Some(needed) = needed {
                    write!(formatter, ", which needs {}", space::human(*needed))?;
                }
                available.map_or(Ok(()), |available| {
                    write!(formatter, "; {} are free", space::human(available))
                })
            }
            Self::Device { path, .. } => write!(
                formatter,
                "the device failed while writing {}",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SaveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let (Self::DiskFull { source, .. } | Self::Device { source, .. }) = self;
        Some(source)
    }
}

/// What the manifest says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Plain name inside the folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 digest, hexadecimal.
    pub blake3: String,
}

/// A new file that is hashed on its way to the disk.
pub(super) struct SyncedFile {
    file: File,
    /// Where it will be in the end: what messages name, instead of the hidden name it is written under.
    place: PathBuf,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    size: u64,
    needed: Option<u64>,
}

impl SyncedFile {
    /// Creates `path`, which must not exist, a link included, for a file that will be at `place`. `needed` is the final size
    /// for the message of a full disk.
    pub(super) fn create(path: &Path, place: PathBuf, needed: Option<u64>) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|error| SaveError::from_io(error, &place, needed))?;
        Ok(Self {
            file,
            place,
            buffer: Vec::new(),
            hasher: blake3::Hasher::new(),
            size: 0,
            needed,
        })
    }

    /// Appends.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            return self.put(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Syncs and says what the file holds.
    pub(super) fn finish(mut self) -> Result<FileRecord> {
        self.flush()?;
        self.file
            .sync_all()
            .map_err(|error| SaveError::from_io(error, &self.place, self.needed))?;
        let name = self.place.file_name().context("a file without a name")?;
        let name = name
            .to_str()
            .with_context(|| format!("the file name {} is not UTF-8", name.display()))?;
        Ok(FileRecord {
            name: name.to_owned(),
            size: self.size,
            blake3: self.hasher.finalize().to_hex().to_string(),
        })
    }

    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.put(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|error| SaveError::from_io(error, &self.place, self.needed))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// A name that no other call, process or earlier run uses.
pub(super) fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!(
        "{}-{}-{nanos:x}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// Refuses anything but the plain name of a file, so that no name leaves its folder.
pub(super) fn check_name(name: &str) -> Result<&str> {
    let plain =
        !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']);
    ensure!(plain, "{name:?} is not a plain file name");
    Ok(name)
}

/// Makes a folder and those above it, unless they exist.
pub(super) fn ensure_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| SaveError::from_io(error, path, None))
}

/// Makes a new folder, which will be at `place`.
pub(super) fn create_folder(path: &Path, place: &Path) -> Result<()> {
    fs::create_dir(path).map_err(|error| SaveError::from_io(error, place, None))
}

/// Makes entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| SaveError::from_io(error, path, None))
}

/// Renames over whatever file is at `to`; the entry is durable after [`sync_folder`].
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| SaveError::from_io(error, to, None))
}

/// Renames a folder to a name that must be free. Where the file system cannot promise that, plain rename does: it refuses
/// every target but an empty folder.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> Result<()> {
    let renamed = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        result => result.map_err(io::Error::from),
    };
    renamed.map_err(|error| SaveError::from_io(error, to, None))
}

/// Swaps two folders in one step. `false`: this file system cannot.
pub(super) fn exchange(one: &Path, other: &Path) -> Result<bool> {
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV) => Ok(false),
        Err(error) => Err(SaveError::from_io(error.into(), other, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_volume_are_typed_and_found_through_contexts() {
        for (errno, full) in [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::IO, false),
        ] {
            let path = Path::new("/tmp/x.safetensors");
            let error = SaveError::from_io(errno.into(), path, Some(1_500_000))
                .context("saving checkpoint-5");
            let found = SaveError::find(&error).expect("typed");
            assert_eq!(matches!(found, SaveError::DiskFull { .. }), full, "{found}");
            assert!(
                !full || found.to_string().contains("needs 1.5 MB"),
                "{found}"
            );
            assert_eq!(crate::error::kind_of(&error), crate::error::Kind::Io);
        }
        let other = SaveError::from_io(Errno::ACCESS.into(), Path::new("/x"), None);
        assert!(SaveError::find(&other).is_none());
        assert!(
            format!("{other:#}").contains("cannot write /x"),
            "{other:#}"
        );
    }

    #[test]
    fn a_full_device_is_reported_as_one() {
        let file = OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("this system has /dev/full");
        let place = PathBuf::from("/no/such/folder/model.safetensors");
        let mut full = SyncedFile {
            file,
            place,
            buffer: Vec::new(),
            hasher: blake3::Hasher::new(),
            size: 0,
            needed: Some(3),
        };
        full.write(b"abc").expect("buffered");
        let error = full.finish().expect_err("no space");
        let found = SaveError::find(&error);
        assert!(
            matches!(
                found,
                Some(SaveError::DiskFull {
                    needed: Some(3),
                    available: Some(_),
                    ..
                })
            ),
            "{error:#}"
        );
        assert!(
            error
                .to_string()
                .starts_with("no space for /no/such/folder/model.safetensors, which needs 3 bytes"),
            "{error}"
        );
    }

    #[test]
    fn records_say_what_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let contents: Vec<u8> = (0..3 * BUFFER + 7).map(|index| index as u8).collect();
        let path = folder.path().join("a");
        let mut file = SyncedFile::create(&path, path.clone(), None).expect("created");
        for piece in [
            &contents[..10],
            &contents[10..BUFFER + 20],
            &contents[BUFFER + 20..],
        ] {
            file.write(piece).expect("written");
        }
        let record = file.finish().expect("synced");
        assert_eq!(fs::read(&path).expect("there"), contents);
        let blake3 = blake3::hash(&contents).to_hex().to_string();
        assert_eq!(
            record,
            FileRecord {
                name: "a".into(),
                size: contents.len() as u64,
                blake3
            }
        );
        assert!(
            SyncedFile::create(&path, path.clone(), None).is_err(),
            "never over an existing file"
        );
    }

    #[test]
    fn names_stay_in_their_folder() {
        for name in ["", ".", "..", "a/b", "/a", "../a", "a\0", "a\\b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("model-00001-of-00002.safetensors").is_ok());
    }
}
