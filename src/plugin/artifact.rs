//! The `artifact` resource: a checkpoint as a plugin may know it, by name and size. What its files hold needs the
//! capability `artifact:read`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Resource;

use super::bindings::trainer::host::artifact;
use super::fault::HostError;
use super::state::State;
use super::text::printable;
use crate::registry::name::Digest;

/// Folders below a checkpoint that are looked into.
const MAX_DEPTH: usize = 8;
/// Files that are listed.
const MAX_FILES: usize = 10_000;
/// Bytes that are hashed between two looks at the time.
const PIECE: usize = 1 << 20;

/// Marks the `artifact` resource; there is one per call, and a borrow cannot outlive it.
#[derive(Debug)]
pub enum Handle {}

/// The checkpoint that the current call is about.
#[derive(Debug)]
pub(super) struct Artifact {
    folder: PathBuf,
}

impl Artifact {
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The folder as a place that no path leads out of.
    fn open(&self) -> io::Result<Dir> {
        Dir::open_ambient_dir(&self.folder, ambient_authority())
    }

    /// Names and sizes of its files, sorted; links are left out.
    fn files(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        list(&self.open()?, "", MAX_DEPTH, &mut files)?;
        files.sort_unstable();
        Ok(files)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.files()?.iter().map(|(_, size)| size).sum())
    }

    /// One of its files.
    fn file(&self, name: &str) -> Result<File, HostError> {
        let unreadable = |reason: &str| {
            let name = printable(name, 128);
            HostError::data(format!("the file `{name}` of the checkpoint {reason}"))
        };
        let opened = self.open().and_then(|folder| {
            let is_file = folder.symlink_metadata(name)?.is_file();
            Ok(is_file.then_some(folder.open(name)?))
        });
        match opened {
            Ok(Some(file)) => Ok(file.into_std()),
            Ok(None) => Err(unreadable("is no plain file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(unreadable("does not exist; `files` lists those that do"))
            }
            Err(error) => Err(unreadable(&format!("cannot be opened: {error}"))),
        }
    }
}

fn list(
    folder: &Dir,
    prefix: &str,
    depth: usize,
    files: &mut Vec<(String, u64)>,
) -> io::Result<()> {
    for entry in folder.entries()? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if kind.is_file() && files.len() < MAX_FILES {
            files.push((name, entry.metadata()?.len()));
        } else if kind.is_dir() && depth > 0 {
            list(&entry.open_dir()?, &format!("{name}/"), depth - 1, files)?;
        }
    }
    Ok(())
}

fn failed(error: &io::Error) -> HostError {
    HostError::data(format!("the checkpoint cannot be read: {error}"))
}

impl State {
    fn artifact(&self) -> wasmtime::Result<&Artifact> {
        self.artifact
            .as_ref()
            .ok_or_else(|| wasmtime::Error::msg("no artifact belongs to this call"))
    }

    /// The same for what needs `artifact:read`.
    fn readable(&self) -> Result<&Artifact, HostError> {
        if !self.facts.allowed.artifact_read {
            return Err(HostError::not_requested("artifact:read"));
        }
        Ok(self.artifact()?)
    }
}

impl artifact::Host for State {}

impl artifact::HostArtifact for State {
    fn name(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        let name = self.artifact()?.folder.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    fn kind(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        Ok("checkpoint".to_owned())
    }

    fn size(&mut self, _: Resource<Handle>) -> wasmtime::Result<u64> {
        Ok(self.artifact()?.size()?)
    }

    fn files(&mut self, _: Resource<Handle>) -> Result<Vec<(String, u64)>, HostError> {
        let files = self.readable()?.files();
        files.map_err(|error| failed(&error))
    }

    fn sha256(&mut self, _: Resource<Handle>, file: String) -> Result<String, HostError> {
        let mut file = self.readable()?.file(&file)?;
        let mut hasher = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            self.check_time()?;
            match file.read(&mut piece) {
                Ok(0) => return Ok(Digest::from_hash(&hasher.finalize()).hex().to_owned()),
                Ok(count) => hasher.update(&piece[..count]),
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    fn read(
        &mut self,
        _: Resource<Handle>,
        file: String,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, HostError> {
        let mut file = self.readable()?.file(&file)?;
        let size = file.metadata().map_err(|error| failed(&error))?.len();
        let count = u64::from(len).min(size.saturating_sub(offset));
        self.tensors.hand_over(count)?;
        let mut bytes = Vec::with_capacity(count as usize);
        let read = file
            .seek(SeekFrom::Start(offset.min(size)))
            .and_then(|_| file.take(count).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(failed(&error)),
        }
    }

    fn upload(
        &mut self,
        _: Resource<Handle>,
        _: String,
        _: String,
        _: String,
        _: Vec<(String, String)>,
    ) -> Result<u16, HostError> {
        Err(HostError::denied(
            "needs the capability `artifact:upload`, which this version cannot give",
        ))
    }

    fn drop(&mut self, _: Resource<Handle>) -> wasmtime::Result<()> {
        Ok(())
    }
}
