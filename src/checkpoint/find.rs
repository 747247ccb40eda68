//! Which checkpoints can be trusted: verification, the newest complete one, and what killed saves left behind.
//!
//! Nothing is deleted here but staging leftovers. A damaged checkpoint gets another name, so that no later run picks it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::manifest::{Manifest, is_unreadable};
use super::save::remove_folder;
use super::{file, header, json, layout, load};
use crate::error::Failure;

/// What a folder is worth.
#[derive(Debug)]
pub enum Completeness {
    /// Ours; sizes and digests of all files are right.
    Complete(Manifest),
    /// A checkpoint of the reference: weights and `trainer_state.json`, no digests to check.
    Foreign,
    /// Not to be used, and why.
    Damaged(String),
}

/// Reads all of `dir` and decides. An error means that it could not be read, not that it is damaged.
pub fn verify(dir: &Path) -> Result<Completeness> {
    let name = dir.file_name().and_then(|name| name.to_str());
    if dir.join(layout::MANIFEST).symlink_metadata().is_ok() {
        let verified = Manifest::verify(dir).with_context(|| format!("checking {}", dir.display()))?;
        let named = name.and_then(layout::checkpoint_step);
        return Ok(match verified {
            Ok(manifest) if named.is_some_and(|step| step != manifest.step) => {
                Completeness::Damaged(format!("its name does not fit its step {}", manifest.step))
            }
            Ok(manifest) => Completeness::Complete(manifest),
            Err(reason) => Completeness::Damaged(reason),
        });
    }
    let ours = [layout::OPTIMIZER, layout::SCHEDULER, layout::RNG_STATE, layout::PROGRESS];
    if let Some(file) = ours.iter().find(|file| dir.join(file).exists()) {
        return Ok(Completeness::Damaged(format!("it has {file} but no {}", layout::MANIFEST)));
    }
    match foreign(dir) {
        Ok(()) => Ok(Completeness::Foreign),
        Err(error) if is_unreadable(&error) => Err(error.context(format!("checking {}", dir.display()))),
        Err(reason) => Ok(Completeness::Damaged(format!("{reason:#}"))),
    }
}

/// The shallow checks that files without digests allow.
fn foreign(dir: &Path) -> Result<()> {
    json::read::<serde::de::IgnoredAny>(&dir.join(layout::TRAINER_STATE))?;
    for path in load::weight_files(dir)?.files {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            header::of(&path).with_context(|| format!("{}", path.display()))?;
        } else {
            fs::metadata(&path).with_context(|| format!("{}", path.display()))?;
        }
    }
    Ok(())
}

/// Opens the checkpoint that the user named. It is an error if it is not whole.
pub fn open(dir: &Path) -> Result<Completeness> {
    let none = || Failure::data(format!("Can't find a valid checkpoint at {}", dir.display()));
    if !dir.is_dir() {
        return Err(none().into());
    }
    match verify(dir)? {
        Completeness::Damaged(reason) => {
            let mut failure = none();
            failure.message += &format!(": {reason}");
            Err(failure.hint("--resume_from_checkpoint true takes the newest complete one of the output folder").into())
        }
        complete => Ok(complete),
    }
}

/// The checkpoint that `resume_from_checkpoint = true` means.
pub fn latest(output_dir: &Path) -> Result<PathBuf> {
    let none = || Failure::data(format!("No valid checkpoint found in output directory ({})", output_dir.display()));
    newest_complete(output_dir)?.ok_or_else(|| none().into())
}

/// The complete checkpoint with the largest step. Damaged ones above it are put aside and reported. The caller holds the
/// folder's lock.
pub fn newest_complete(output_dir: &Path) -> Result<Option<PathBuf>> {
    restore_replaced(output_dir)?;
    for step in steps(output_dir)?.into_iter().rev() {
        let path = layout::checkpoint(output_dir, step);
        match verify(&path)? {
            Completeness::Damaged(reason) => quarantine(&path, &reason)?,
            Completeness::Complete(_) | Completeness::Foreign => return Ok(Some(path)),
        }
    }
    Ok(None)
}

/// Where the best model is: the recorded folder, or the one of the same name here if the output folder was moved since.
pub fn locate(output_dir: &Path, recorded: &Path) -> Option<PathBuf> {
    let moved = || recorded.file_name().map(|name| output_dir.join(name));
    Some(recorded.to_path_buf()).filter(|path| path.is_dir()).or_else(moved).filter(|path| path.is_dir())
}

/// The steps of all folders named exactly `checkpoint-<n>`, ascending. Links are not ours to follow, rename or delete.
pub(super) fn steps(output_dir: &Path) -> Result<Vec<u64>> {
    let mut steps = Vec::new();
    for (name, is_folder) in entries(output_dir)? {
        // `checkpoint-007` is not a name this program or the reference writes.
        let step = layout::checkpoint_step(&name).filter(|step| name == format!("checkpoint-{step}"));
        match step {
            Some(step) if is_folder => steps.push(step),
            Some(_) => tracing::warn!("{} is not a folder and is left alone", output_dir.join(&name).display()),
            None => {}
        }
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Names in a folder and whether they are real folders. A folder that does not exist is empty.
fn entries(dir: &Path) -> Result<Vec<(String, bool)>> {
    let unreadable = || format!("cannot read the folder {}", dir.display());
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(unreadable)?,
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.with_context(unreadable)?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.file_type().with_context(unreadable)?.is_dir()));
        }
    }
    Ok(entries)
}

/// Renames a damaged checkpoint to a free `damaged-checkpoint-<n>` name and says so.
pub(super) fn quarantine(path: &Path, reason: &str) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let step = name.rsplit('-').next().unwrap_or_default();
    let base = format!("{}{step}", layout::QUARANTINE_PREFIX);
    let mut aside = path.with_file_name(&base);
    for count in 2.. {
        if aside.symlink_metadata().is_err() {
            break;
        }
        aside = path.with_file_name(format!("{base}.{count}"));
    }
    file::rename_to_free(path, &aside)?;
    tracing::warn!("{} is damaged ({reason}); it is now {}", path.display(), aside.display());
    Ok(())
}

/// Puts back complete checkpoints that had stepped aside for a successor that never came.
fn restore_replaced(output_dir: &Path) -> Result<()> {
    for (name, is_folder) in entries(output_dir)? {
        let replaced = name.split_once('.').is_some_and(|(_, rest)| {
            rest.split_once('.').is_some_and(|(_, mark)| mark.starts_with(layout::REPLACED_MARK))
        });
        let Some(step) = layout::staging_step(&name).filter(|_| replaced && is_folder) else { continue };
        let target = layout::checkpoint(output_dir, step);
        if target.symlink_metadata().is_err() {
            file::rename_to_free(&output_dir.join(&name), &target)?;
            file::sync_folder(output_dir)?;
        }
    }
    Ok(())
}

/// Removes what killed saves left in the output folder: only names that this program gives. The caller holds the lock.
pub fn clean_staging(output_dir: &Path) -> Result<()> {
    restore_replaced(output_dir)?;
    for (name, is_folder) in entries(output_dir)? {
        let path = output_dir.join(&name);
        if is_folder && (layout::staging_step(&name).is_some() || name.starts_with(layout::MODEL_STAGING_PREFIX)) {
            tracing::info!("removing {}, left by a save that did not end", path.display());
            remove_folder(&path);
        } else if !is_folder && name.starts_with(layout::WRITING_PREFIX) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
