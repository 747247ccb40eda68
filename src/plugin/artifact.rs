//! The `artifact` resource: a checkpoint as a plugin may know it, by name and size. Its bytes need a grant.

use std::fs;
use std::path::{Path, PathBuf};

use wasmtime::component::Resource;

use super::bindings::trainer::host::artifact;
use super::fault::HostError;
use super::state::State;

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

    fn size(&self) -> std::io::Result<u64> {
        let mut total = 0;
        for entry in fs::read_dir(&self.folder)? {
            let metadata = entry?.metadata()?;
            total += if metadata.is_file() {
                metadata.len()
            } else {
                0
            };
        }
        Ok(total)
    }
}

impl State {
    fn artifact(&self) -> wasmtime::Result<&Artifact> {
        self.artifact
            .as_ref()
            .ok_or_else(|| wasmtime::Error::msg("no artifact belongs to this call"))
    }
}

fn denied<T>(grant: &str) -> Result<T, HostError> {
    Err(HostError::denied(format!(
        "needs the grant artifact:{grant}, which this version cannot give"
    )))
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

    fn sha256(&mut self, _: Resource<Handle>) -> Result<String, HostError> {
        denied("read")
    }

    fn read(&mut self, _: Resource<Handle>, _: u64, _: u32) -> Result<Vec<u8>, HostError> {
        denied("read")
    }

    fn upload(
        &mut self,
        _: Resource<Handle>,
        _: String,
        _: String,
        _: Vec<(String, String)>,
    ) -> Result<u16, HostError> {
        denied("upload")
    }

    fn drop(&mut self, _: Resource<Handle>) -> wasmtime::Result<()> {
        Ok(())
    }
}
