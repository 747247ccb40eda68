//! Writing: one checkpoint in a staging folder that becomes visible in one step, single result files, the final model.
//!
//! A checkpoint, in this order; a kill between any two steps leaves what was there before, or the new one, complete:
//!
//! 1. `mkdir .checkpoint-N.<unique>` in the output folder (leftovers of killed saves are removed by `find::clean_staging`);
//! 2. every file: create new, write, hash, `fsync`; after an error the whole staging folder is given up and removed;
//! 3. `manifest.json`, last: sizes and digests of all files and its own; `fsync`;
//! 4. `fsync` of the staging folder, so that the names are on the disk before it can be seen;
//! 5. `renameat2(RENAME_NOREPLACE)` to `checkpoint-N`: the instant of the commit;
//! 6. `fsync` of the output folder. If this fails the save is reported failed; what is there is still complete or absent.
//!
//! If a complete `checkpoint-N` exists (a resumed run replays the step), step 5 reads the new one back, checks it against its manifest, and
//! swaps the two with `RENAME_EXCHANGE`; the old one, now under the staging name, is removed after step 6. Where the file
//! system cannot swap, the old one first steps aside to `.checkpoint-N.replaced-<unique>`; `find` puts it back if the
//! process was killed before the new one took its place. A damaged `checkpoint-N` is put aside, a link or file refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use tch::Tensor;

pub use super::file::SaveError;
pub use super::weights::WeightsOptions;

use super::file::{FileRecord, SyncedFile};
use super::find::{self, Completeness};
use super::manifest::Manifest;
use super::weights::{Plan, cut};
use super::{PartState, file, json, layout};
use crate::error::{Failure, Kind};

/// Key of a part's JSON in the metadata of its tensors.
pub(super) const PART_JSON: &str = "json";

/// A checkpoint that is being written. Dropped without [`Staging::commit`] it disappears.
#[derive(Debug)]
pub struct Staging {
    folder: Folder,
    output_dir: PathBuf,
    step: u64,
}

impl Staging {
    /// Begins the checkpoint of `step` in `output_dir`, which is made if it does not exist.
    pub fn begin(output_dir: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(output_dir).with_context(|| format!("cannot make the folder {}", output_dir.display()))?;
        let path = output_dir.join(format!("{}{step}.{}", layout::STAGING_PREFIX, file::unique()));
        Ok(Self { folder: Folder::create(path)?, output_dir: output_dir.to_path_buf(), step })
    }

    /// Where the files are until the commit, for writers that need a path. Files made there by others are not in the
    /// manifest.
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// Writes JSON with keys in their own order.
    pub fn write_json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        self.folder.write_bytes(name, &json::to_bytes(value)?)
    }

    /// Writes JSON with sorted keys, as the reference does for its own files.
    pub fn write_sorted_json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        self.folder.write_bytes(name, &json::to_sorted_bytes(value)?)
    }

    /// Writes a file.
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.folder.write_bytes(name, bytes)
    }

    /// Writes named tensors into one file, each name with its own copy.
    pub fn write_tensors(
        &mut self,
        name: &str,
        tensors: &[(String, Tensor)],
        metadata: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.folder.write_plan(name, &Plan::new(borrow(tensors), metadata)?)
    }

    /// Writes a part: its tensors, and its JSON inside their file. `load::read_part` reads it.
    pub fn write_part(&mut self, name: &str, part: &PartState) -> Result<()> {
        let metadata = BTreeMap::from([(PART_JSON.to_owned(), serde_json::to_string(&part.json)?)]);
        self.write_tensors(name, &part.tensors, &metadata)
    }

    /// Writes weights, sharded if they are large. Of names that are the same tensor the first is written.
    pub fn write_weights(&mut self, weights: &[(String, Tensor)], options: WeightsOptions) -> Result<()> {
        self.folder.write_weights(weights, options)
    }

    /// Copies a file under its own name.
    pub fn copy_file(&mut self, source: &Path) -> Result<()> {
        self.folder.copy_file(source)
    }

    /// Bytes written so far.
    pub fn num_bytes(&self) -> u64 {
        self.folder.files.iter().map(|record| record.size).sum()
    }

    /// Makes the checkpoint visible; returns its folder.
    pub fn commit(mut self) -> Result<PathBuf> {
        let manifest = Manifest::new(self.step, self.folder.files.clone())?;
        self.write_json(layout::MANIFEST, &manifest)?;
        file::sync_folder(self.path())?;
        let target = layout::checkpoint(&self.output_dir, self.step);
        self.take_place(&target)?;
        file::sync_folder(&self.output_dir)?;
        Ok(target)
        // A swapped-out predecessor is now at the staging path and goes when `self` is dropped.
    }

    fn take_place(&self, target: &Path) -> Result<()> {
        match target.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => file::rename_to_free(self.path(), target),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", target.display())),
            Ok(metadata) if !metadata.is_dir() => {
                let what = if metadata.is_symlink() { "a symbolic link" } else { "not a folder" };
                let failure = Failure::new(Kind::Io, format!("{} is {what}; no checkpoint is written there", target.display()));
                Err(failure.hint("move it away or choose another --output_dir").into())
            }
            Ok(_) => match find::verify(target)? {
                Completeness::Damaged(reason) => {
                    find::quarantine(target, &reason)?;
                    file::rename_to_free(self.path(), target)
                }
                Completeness::Complete(_) | Completeness::Foreign => self.replace(target),
            },
        }
    }

    fn replace(&self, target: &Path) -> Result<()> {
        if let Completeness::Damaged(reason) = find::verify(self.path())? {
            let path = self.path().display();
            return Err(Failure::new(Kind::Io, format!("{path} was not read back as written: {reason}")).into());
        }
        if file::exchange(self.path(), target)? {
            return Ok(());
        }
        let mark = layout::REPLACED_MARK;
        let aside = format!("{}{}.{mark}{}", layout::STAGING_PREFIX, self.step, file::unique());
        let aside = self.output_dir.join(aside);
        file::rename_to_free(target, &aside)?;
        if let Err(error) = file::rename_to_free(self.path(), target) {
            // The old one is complete and comes back; if even that fails, `find` does it at the next start.
            let _ = fs::rename(&aside, target);
            return Err(error);
        }
        file::sync_folder(&self.output_dir)?;
        remove_folder(&aside);
        Ok(())
    }
}

/// A folder whose files are synced as they are written; removed with its content when dropped.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    files: Vec<FileRecord>,
}

impl Folder {
    fn create(path: PathBuf) -> Result<Self> {
        file::create_folder(&path)?;
        Ok(Self { path, files: Vec::new() })
    }

    fn open(&self, name: &str, needed: Option<u64>) -> Result<SyncedFile> {
        SyncedFile::create(self.path.join(file::check_name(name)?), needed)
    }

    fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.open(name, Some(bytes.len() as u64))?;
        file.write(bytes)?;
        self.files.push(file.finish()?);
        Ok(())
    }

    fn write_plan(&mut self, name: &str, plan: &Plan<'_>) -> Result<()> {
        let mut file = self.open(name, Some(plan.size))?;
        plan.write(&mut file)?;
        self.files.push(file.finish()?);
        Ok(())
    }

    fn write_weights(&mut self, weights: &[(String, Tensor)], options: WeightsOptions) -> Result<()> {
        let format = [("format".to_owned(), "pt".to_owned())];
        let metadata = format.into_iter().filter(|_| options.format_pt).collect();
        let shards = cut(weights, options.max_shard_bytes)?;
        for (name, tensors) in shards.files {
            self.write_plan(&name, &Plan::new(tensors, &metadata)?)?;
        }
        match shards.index {
            Some(index) => self.write_bytes(layout::WEIGHTS_INDEX, &json::to_sorted_bytes(&index)?),
            None => Ok(()),
        }
    }

    fn copy_file(&mut self, source: &Path) -> Result<()> {
        let name = source.file_name().and_then(|name| name.to_str()).context("the file to copy has no name")?;
        let unreadable = || format!("cannot read {}", source.display());
        let mut from = File::open(source).with_context(unreadable)?;
        let mut to = self.open(name, from.metadata().ok().map(|metadata| metadata.len()))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match from.read(&mut buffer).with_context(unreadable)? {
                0 => break,
                length => to.write(&buffer[..length])?,
            }
        }
        self.files.push(to.finish()?);
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_folder(&self.path);
    }
}

/// Removes a hidden folder; one that stays is only noise, and the next start tries again.
pub(super) fn remove_folder(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

fn borrow(tensors: &[(String, Tensor)]) -> impl Iterator<Item = (&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
}

/// Writes a single file so that it is there as a whole or not at all, over an older one.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    let aside = folder.join(format!("{}{}-{}", layout::WRITING_PREFIX, file::unique(), name.display()));
    let written = SyncedFile::create(aside.clone(), Some(bytes.len() as u64)).and_then(|mut file| {
        file.write(bytes)?;
        file.finish()?;
        file::rename(&aside, path)
    });
    if let Err(error) = written {
        // Whatever part of it exists is useless; there may be none.
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    file::sync_folder(folder)
}

/// A model as `from_pretrained` finds it.
#[derive(Clone, Copy, Debug)]
pub struct ModelFiles<'a> {
    /// Weights in state-dict order.
    pub weights: &'a [(String, Tensor)],
    /// How they are written.
    pub options: WeightsOptions,
    /// Content of `config.json`.
    pub config: Option<&'a serde_json::Value>,
    /// JSON files written beside it, by name.
    pub json: &'a [(&'a str, serde_json::Value)],
    /// Files to copy, such as the tokenizer's.
    pub copies: &'a [PathBuf],
}

/// Saves a model into `dir` itself, over an older one. All files are written and synced aside, then renamed one after the
/// other, weights last; an index comes after its shards, and what the new weights make stale goes at the end. A kill in between
/// leaves a folder with the old weights or the new ones.
pub fn write_model(dir: &Path, model: ModelFiles<'_>) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let mut folder = Folder::create(dir.join(format!("{}{}", layout::MODEL_STAGING_PREFIX, file::unique())))?;
    for source in model.copies {
        folder.copy_file(source)?;
    }
    for (name, value) in model.json {
        folder.write_bytes(name, &json::to_bytes(value)?)?;
    }
    if let Some(config) = model.config {
        folder.write_bytes(layout::CONFIG, &json::to_sorted_bytes(config)?)?;
    }
    folder.write_weights(model.weights, model.options)?;
    for record in &folder.files {
        file::rename(&folder.path.join(&record.name), &dir.join(&record.name))?;
    }
    file::sync_folder(dir)?;
    remove_stale_weights(dir, &folder.files)
}

/// Native weight files of an older save with another number of shards: the one a reader prefers goes first.
fn remove_stale_weights(dir: &Path, written: &[FileRecord]) -> Result<()> {
    let is_stale = |name: &str| {
        let native = [layout::WEIGHTS, layout::WEIGHTS_INDEX].contains(&name) || layout::is_weights_shard(name);
        native && !written.iter().any(|record| record.name == name)
    };
    let names = fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut stale: Vec<String> = names.filter(|name| is_stale(name)).collect();
    stale.sort_by_key(|name| layout::is_weights_shard(name));
    for name in &stale {
        fs::remove_file(dir.join(name)).with_context(|| format!("cannot remove {}", dir.join(name).display()))?;
    }
    if stale.is_empty() { Ok(()) } else { file::sync_folder(dir) }
}
