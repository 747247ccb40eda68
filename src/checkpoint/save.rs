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
pub use super::json::{read as read_json, to_sorted_bytes as sorted_json};
pub use super::load::read_part;
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
        file::ensure_folder(output_dir)?;
        let path = output_dir.join(format!(
            "{}{step}.{}",
            layout::STAGING_PREFIX,
            file::unique()
        ));
        let folder = Folder::create(path, layout::checkpoint(output_dir, step))?;
        Ok(Self {
            folder,
            output_dir: output_dir.to_path_buf(),
            step,
        })
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
    pub fn write_json_sorted(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        self.folder
            .write_bytes(name, &json::to_sorted_bytes(value)?)
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
        self.folder
            .write_plan(name, &Plan::new(borrow(tensors), metadata)?)
    }

    /// Writes a part: its tensors, and its JSON inside their file. [`read_part`] reads it.
    pub fn write_part(&mut self, name: &str, part: &PartState) -> Result<()> {
        let metadata = BTreeMap::from([(PART_JSON.to_owned(), serde_json::to_string(&part.json)?)]);
        self.write_tensors(name, &part.tensors, &metadata)
    }

    /// Writes weights, sharded if they are large. Of names that are the same tensor the first is written.
    pub fn write_weights(
        &mut self,
        weights: &[(String, Tensor)],
        options: WeightsOptions,
    ) -> Result<()> {
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
        self.take_place(&self.folder.place)?;
        file::sync_folder(&self.output_dir)?;
        Ok(self.folder.place.clone())
        // A swapped-out predecessor is now at the staging path and goes when `self` is dropped.
    }

    fn take_place(&self, target: &Path) -> Result<()> {
        match target.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file::rename_to_free(self.path(), target)
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot look at {}", target.display()))
            }
            Ok(metadata) if !metadata.is_dir() => {
                let what = if metadata.is_symlink() {
                    "a symbolic link"
                } else {
                    "not a folder"
                };
                let failure = Failure::new(
                    Kind::Io,
                    format!(
                        "{} is {what}; no checkpoint is written there",
                        target.display()
                    ),
                );
                Err(failure
                    .hint("move it away or choose another --output_dir")
                    .into())
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
            return Err(Failure::new(
                Kind::Io,
                format!("{path} was not read back as written: {reason}"),
            )
            .into());
        }
        if file::exchange(self.path(), target)? {
            return Ok(());
        }
        let mark = layout::REPLACED_MARK;
        let aside = format!(
            "{}{}.{mark}{}",
            layout::STAGING_PREFIX,
            self.step,
            file::unique()
        );
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
    /// Where its files will be in the end.
    place: PathBuf,
    files: Vec<FileRecord>,
}

impl Folder {
    fn create(path: PathBuf, place: PathBuf) -> Result<Self> {
        file::create_folder(&path, &place)?;
        Ok(Self {
            path,
            place,
            files: Vec::new(),
        })
    }

    fn open(&self, name: &str, needed: Option<u64>) -> Result<SyncedFile> {
        let name = file::check_name(name)?;
        SyncedFile::create(&self.path.join(name), self.place.join(name), needed)
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

    fn write_weights(
        &mut self,
        weights: &[(String, Tensor)],
        options: WeightsOptions,
    ) -> Result<()> {
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
        let name = source
            .file_name()
            .and_then(|name| name.to_str())
            .context("the file to copy has no name")?;
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
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .with_context(|| format!("{} has no file name", path.display()))?;
    let aside = folder.join(format!(
        "{}{}-{}",
        layout::WRITING_PREFIX,
        file::unique(),
        name.display()
    ));
    let written = SyncedFile::create(&aside, path.to_path_buf(), Some(bytes.len() as u64))
        .and_then(|mut file| {
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
    /// Files to copy, such as the tokenizer's.
    pub copies: &'a [PathBuf],
}

/// Saves a model into `dir` itself, over an older one. All files are written and synced aside, then renamed one after the
/// other, weights last; an index comes after its shards, and what the new weights make stale goes at the end. A kill in between
/// leaves a folder with the old weights or the new ones.
pub fn write_model(dir: &Path, model: ModelFiles<'_>) -> Result<()> {
    file::ensure_folder(dir)?;
    let path = dir.join(format!(
        "{}{}",
        layout::MODEL_STAGING_PREFIX,
        file::unique()
    ));
    let mut folder = Folder::create(path, dir.to_path_buf())?;
    for source in model.copies {
        folder.copy_file(source)?;
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
        let native = [layout::WEIGHTS, layout::WEIGHTS_INDEX].contains(&name)
            || layout::is_weights_shard(name);
        native && !written.iter().any(|record| record.name == name)
    };
    let names = fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut stale: Vec<String> = names.filter(|name| is_stale(name)).collect();
    stale.sort_by_key(|name| layout::is_weights_shard(name));
    for name in &stale {
        fs::remove_file(dir.join(name))
            .with_context(|| format!("cannot remove {}", dir.join(name).display()))?;
    }
    if stale.is_empty() {
        Ok(())
    } else {
        file::sync_folder(dir)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use safetensors::SafeTensors;
    use serde_json::{Value, json};
    use tch::Device;

    use super::*;
    use crate::checkpoint::load;
    use crate::error::kind_of;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::f_from_slice(values).expect("a tensor")
    }

    fn weights() -> Vec<(String, Tensor)> {
        let matrix = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
            .f_reshape([2, 3])
            .expect("a matrix");
        let tied = matrix.shallow_clone();
        let counts = Tensor::f_from_slice(&[7_i64, 8]).expect("a tensor");
        let half = tensor(&[0.5, -2.0])
            .f_to_kind(tch::Kind::BFloat16)
            .expect("a tensor");
        let flag = Tensor::f_from_slice(&[true, false, true]).expect("a tensor");
        let named = [
            ("w", matrix),
            ("tied", tied),
            ("counts", counts),
            ("half", half),
            ("flag", flag),
        ];
        named.map(|(name, tensor)| (name.to_owned(), tensor)).into()
    }

    /// A checkpoint whose content depends on `mark`.
    fn commit(output_dir: &Path, step: u64, mark: f32) -> Result<PathBuf> {
        let mut staging = Staging::begin(output_dir, step)?;
        staging.write_weights(
            &[("mark".to_owned(), tensor(&[mark]))],
            WeightsOptions::default(),
        )?;
        staging.write_json_sorted(layout::TRAINER_STATE, &json!({"global_step": step}))?;
        staging.commit()
    }

    fn mark(dir: &Path) -> f64 {
        load::read_weights(dir).expect("readable").tensors[0]
            .1
            .f_double_value(&[0])
            .expect("a number")
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = entries
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn weights_are_what_the_safetensors_crate_reads_and_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut staging = Staging::begin(folder.path(), 1).expect("begun");
        staging
            .write_weights(&weights(), WeightsOptions::default())
            .expect("written");
        let dir = staging.commit().expect("committed");
        let bytes = fs::read(dir.join(layout::WEIGHTS)).expect("there");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("a valid header");
        let format = metadata
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get("format"))
            .map(String::as_str);
        assert_eq!(format, Some("pt"));
        let file = SafeTensors::deserialize(&bytes).expect("a valid file");
        let mut names = file.names();
        names.sort_unstable();
        assert_eq!(
            names,
            ["counts", "flag", "half", "w"],
            "the second name of a tensor is left out"
        );
        let matrix = file.tensor("w").expect("there");
        assert_eq!(
            (matrix.shape(), &matrix.data()[..8]),
            (&[2, 3][..], &[0, 0, 128, 63, 0, 0, 0, 64][..])
        );
        let again = safetensors::serialize(file.tensors(), metadata.metadata().clone())
            .expect("serialized");
        assert_eq!(
            again, bytes,
            "the same bytes as the reference implementation"
        );
    }

    #[test]
    fn a_foreign_module_has_no_metadata() {
        // Row 88.
        let folder = tempfile::tempdir().expect("a folder");
        let mut staging = Staging::begin(folder.path(), 1).expect("begun");
        let options = WeightsOptions {
            format_pt: false,
            max_shard_bytes: u64::MAX,
        };
        staging.write_weights(&weights(), options).expect("written");
        let bytes = fs::read(staging.path().join(layout::WEIGHTS)).expect("there");
        let (length, metadata) = SafeTensors::read_metadata(&bytes).expect("a valid header");
        assert!(metadata.metadata().is_none() && length % 8 == 0);
    }

    #[test]
    fn everything_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut staging = Staging::begin(folder.path(), 12).expect("begun");
        let part = PartState {
            tensors: weights(),
            json: json!({"param_groups": [{"lr": 1e-3, "params": [0, 1]}]}),
        };
        staging
            .write_part(layout::OPTIMIZER, &part)
            .expect("written");
        let sharded = WeightsOptions {
            max_shard_bytes: 20,
            ..WeightsOptions::default()
        };
        staging.write_weights(&weights(), sharded).expect("written");
        let dir = staging.commit().expect("committed");
        assert_eq!(dir, layout::checkpoint(folder.path(), 12));
        let expected: BTreeMap<_, _> = weights().into_iter().collect();
        let compare = |tensors: Vec<(String, Tensor)>, count| {
            assert_eq!(tensors.len(), count);
            for (name, tensor) in tensors {
                assert_eq!(
                    tensor.f_kind().expect("a kind"),
                    expected[&name].f_kind().expect("a kind"),
                    "{name}"
                );
                assert!(
                    tensor.f_equal(&expected[&name]).expect("comparable"),
                    "{name}"
                );
            }
        };
        let read = read_part(&dir.join(layout::OPTIMIZER)).expect("readable");
        assert_eq!(read.json, part.json);
        compare(read.tensors, 5);
        let read = load::read_weights(&dir).expect("readable");
        assert_eq!(read.source, dir.join(layout::WEIGHTS_INDEX));
        compare(read.tensors, 4);
        assert!(
            !dir.join(layout::WEIGHTS).exists() && dir.join(layout::weights_shard(3, 3)).exists()
        );
    }

    #[test]
    fn nothing_is_left_of_a_save_that_was_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut staging = Staging::begin(folder.path(), 1).expect("begun");
        staging.write_bytes("a", b"x").expect("written");
        staging.write_bytes("a", b"x").expect_err("a name twice");
        staging
            .write_bytes("../a", b"x")
            .expect_err("a name outside");
        assert_eq!(names(folder.path()).len(), 1);
        drop(staging);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_replayed_step_replaces_its_checkpoint() {
        let folder = tempfile::tempdir().expect("a folder");
        commit(folder.path(), 5, 1.0).expect("committed");
        let dir = commit(folder.path(), 5, 2.0).expect("committed again");
        assert_eq!(
            (mark(&dir), names(folder.path())),
            (2.0, vec!["checkpoint-5".to_owned()])
        );
        // A damaged one is not deleted.
        fs::write(dir.join(layout::WEIGHTS), b"torn").expect("damaged");
        let dir = commit(folder.path(), 5, 3.0).expect("committed again");
        assert_eq!(
            (mark(&dir), names(folder.path())),
            (
                3.0,
                vec!["checkpoint-5".into(), "damaged-checkpoint-5".into()]
            )
        );
    }

    #[test]
    fn what_was_not_written_as_meant_replaces_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        commit(folder.path(), 5, 1.0).expect("committed");
        let mut staging = Staging::begin(folder.path(), 5).expect("begun");
        staging.write_bytes("model", b"right").expect("written");
        fs::write(staging.path().join("model"), b"wrong").expect("damaged");
        staging.commit().expect_err("read back and refused");
        assert_eq!(mark(&layout::checkpoint(folder.path(), 5)), 1.0);
    }

    #[test]
    fn links_and_files_in_the_place_are_refused() {
        let (folder, elsewhere) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let place = layout::checkpoint(folder.path(), 5);
        let target = commit(elsewhere.path(), 5, 1.0).expect("committed");
        for kind in ["link", "dangling", "file"] {
            match kind {
                "link" => symlink(&target, &place).expect("a link"),
                "dangling" => symlink("/no/such/place", &place).expect("a link"),
                _ => fs::write(&place, "x").expect("a file"),
            }
            let error = commit(folder.path(), 5, 2.0).expect_err("in the way");
            assert_eq!(kind_of(&error), Kind::Io, "{kind}: {error:#}");
            assert_eq!(
                names(folder.path()),
                ["checkpoint-5"],
                "{kind}: no leftovers"
            );
            fs::remove_file(&place).expect("removed");
        }
        assert_eq!(mark(&target), 1.0, "nothing was written through the link");
    }

    #[test]
    fn single_files_are_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, linked) = (
            folder.path().join("results.json"),
            folder.path().join("linked"),
        );
        atomic_write(&path, b"one").expect("written");
        atomic_write(&path, b"two").expect("written");
        symlink(&path, &linked).expect("a link");
        atomic_write(&linked, b"three").expect("written");
        assert_eq!(
            fs::read(&path).expect("there"),
            b"two",
            "a link is replaced, not followed"
        );
        assert_eq!(fs::read(&linked).expect("there"), b"three");
        atomic_write(&folder.path().join("no/such/folder"), b"x").expect_err("no folder");
        fs::create_dir(folder.path().join("taken")).expect("made");
        atomic_write(&folder.path().join("taken"), b"x").expect_err("a folder is there");
        assert_eq!(
            names(folder.path()),
            ["linked", "results.json", "taken"],
            "no leftovers"
        );
    }

    #[test]
    fn a_model_is_saved_over_one_with_other_shards() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = tempfile::tempdir().expect("a folder");
        let vocabulary = source.path().join("vocab.txt");
        fs::write(&vocabulary, "a\nb\n").expect("written");
        let config = json!({"model_type": "bert", "architectures": ["B"]});
        for (max_shard_bytes, files) in [(u64::MAX, 1), (20, 4), (24, 3), (u64::MAX, 1)] {
            let options = WeightsOptions {
                format_pt: true,
                max_shard_bytes,
            };
            let copies = [vocabulary.clone()];
            let model = ModelFiles {
                weights: &weights(),
                options,
                config: Some(&config),
                copies: &copies,
            };
            write_model(folder.path(), model).expect("saved");
            let all = names(folder.path());
            assert_eq!(
                all.iter().filter(|name| name.starts_with("model")).count(),
                files,
                "{all:?}"
            );
            assert!(
                all.iter().all(|name| !name.starts_with('.')),
                "no leftovers: {all:?}"
            );
            assert_eq!(
                load::read_weights(folder.path())
                    .expect("readable")
                    .tensors
                    .len(),
                4
            );
        }
        let read: Value = read_json(&folder.path().join(layout::CONFIG)).expect("readable");
        assert_eq!(
            (
                read,
                fs::read(folder.path().join("vocab.txt")).expect("there")
            ),
            (config, b"a\nb\n".to_vec())
        );
    }

    #[test]
    fn large_tensors_pass_in_pieces() {
        let folder = tempfile::tempdir().expect("a folder");
        let large = Tensor::f_arange(700_001, (tch::Kind::Float, Device::Cpu)).expect("a tensor");
        let mut staging = Staging::begin(folder.path(), 1).expect("begun");
        staging
            .write_tensors(
                "t",
                &[("large".to_owned(), large.shallow_clone())],
                &BTreeMap::new(),
            )
            .expect("written");
        let read = load::read_tensors(&staging.path().join("t")).expect("readable");
        assert!(read.tensors[0].1.f_equal(&large).expect("comparable"));
    }

    /// Not a test by itself: `kills_leave_a_complete_checkpoint` runs it in a process of its own and kills that.
    #[test]
    fn saves_until_killed() {
        let Ok(output_dir) = fs::canonicalize("save-until-killed") else {
            return;
        };
        for step in 1..1_000_000 {
            // Every step twice, so that replacing is interrupted too.
            commit(&output_dir, step, step as f32).expect("saved");
            commit(&output_dir, step, -(step as f32)).expect("saved again");
            crate::checkpoint::rotate::rotate(&output_dir, 2, (None, &[])).expect("rotated");
        }
    }

    #[test]
    fn kills_leave_a_complete_checkpoint() {
        let folder = tempfile::tempdir().expect("a folder");
        let output_dir = folder.path().join("save-until-killed");
        fs::create_dir(&output_dir).expect("made");
        let mut interrupted = 0;
        for round in 0..12 {
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .args([
                    "checkpoint::save::tests::saves_until_killed",
                    "--exact",
                    "--test-threads",
                    "1",
                ])
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("started");
            while fs::read_dir(&output_dir).expect("a folder").count() == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_micros(700 * round));
            child.kill().expect("killed");
            child.wait().expect("ended");
            interrupted += usize::from(names(&output_dir).iter().any(|name| name.starts_with('.')));
            let visible: Vec<_> = names(&output_dir)
                .into_iter()
                .filter(|name| !name.starts_with('.'))
                .collect();
            for name in &visible {
                let found = find::verify(&output_dir.join(name)).expect("readable");
                assert!(
                    matches!(found, Completeness::Complete(_)),
                    "round {round}: {name} is {found:?}"
                );
            }
            let newest = find::newest_complete(&output_dir).expect("readable");
            assert!(
                newest.is_some() || visible.is_empty(),
                "round {round}: {visible:?}"
            );
            find::clean_staging(&output_dir).expect("cleaned");
            assert!(
                names(&output_dir)
                    .iter()
                    .all(|name| name.starts_with("checkpoint-"))
            );
        }
        assert!(interrupted > 0, "no kill fell inside a save");
    }
}
