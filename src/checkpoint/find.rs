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
        let verified =
            Manifest::verify(dir).with_context(|| format!("checking {}", dir.display()))?;
        let named = name.and_then(layout::checkpoint_step);
        return Ok(match verified {
            Ok(manifest) if named.is_some_and(|step| step != manifest.step) => {
                Completeness::Damaged(format!("its name does not fit its step {}", manifest.step))
            }
            Ok(manifest) => Completeness::Complete(manifest),
            Err(reason) => Completeness::Damaged(reason),
        });
    }
    if let Some(file) = unfinished(dir) {
        return Ok(Completeness::Damaged(format!(
            "it has {file} but no {}",
            layout::MANIFEST
        )));
    }
    let state = json::read::<serde::de::IgnoredAny>(&dir.join(layout::TRAINER_STATE));
    judge(dir, state.and_then(|_| check_weights(dir)))
}

/// A file that only this program writes, in a folder without a manifest.
fn unfinished(dir: &Path) -> Option<&'static str> {
    let ours = [
        layout::OPTIMIZER,
        layout::SCHEDULER,
        layout::RNG_STATE,
        layout::PROGRESS,
    ];
    ours.into_iter().find(|file| dir.join(file).exists())
}

fn judge(dir: &Path, checked: Result<()>) -> Result<Completeness> {
    match checked {
        Ok(()) => Ok(Completeness::Foreign),
        Err(error) if is_unreadable(&error) => {
            Err(error.context(format!("checking {}", dir.display())))
        }
        Err(reason) => Ok(Completeness::Damaged(format!("{reason:#}"))),
    }
}

/// The shallow checks that files without digests allow.
fn check_weights(dir: &Path) -> Result<()> {
    for path in load::weight_files(dir)?.files {
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            header::of(&path).with_context(|| format!("{}", path.display()))?;
        } else {
            fs::metadata(&path).with_context(|| format!("{}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a folder has weights that `load::read_weights` would read.
pub fn has_weights(dir: &Path) -> bool {
    load::weight_files(dir).is_ok()
}

/// Opens the checkpoint that the user named. It is an error if it is not whole. As in the reference, weights alone are
/// enough: such a folder has no `trainer_state.json`.
pub fn open(dir: &Path) -> Result<Completeness> {
    let none = || {
        Failure::data(format!(
            "Can't find a valid checkpoint at {}",
            dir.display()
        ))
    };
    if !dir.is_dir() {
        return Err(none().into());
    }
    let weights_only = [layout::MANIFEST, layout::TRAINER_STATE]
        .iter()
        .all(|file| !dir.join(file).exists());
    let found = if weights_only && unfinished(dir).is_none() {
        judge(dir, check_weights(dir))?
    } else {
        verify(dir)?
    };
    match found {
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
    let none = || {
        Failure::data(format!(
            "No valid checkpoint found in output directory ({})",
            output_dir.display()
        ))
    };
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
    Some(recorded.to_path_buf())
        .filter(|path| path.is_dir())
        .or_else(moved)
        .filter(|path| path.is_dir())
}

/// The steps of all folders named exactly `checkpoint-<n>`, ascending. Links are not ours to follow, rename or delete.
pub fn steps(output_dir: &Path) -> Result<Vec<u64>> {
    let mut steps = Vec::new();
    for (name, is_folder) in entries(output_dir)? {
        // `checkpoint-007` is not a name this program or the reference writes.
        let step =
            layout::checkpoint_step(&name).filter(|step| name == format!("checkpoint-{step}"));
        match step {
            Some(step) if is_folder => steps.push(step),
            Some(_) => tracing::warn!(
                "{} is not a folder and is left alone",
                output_dir.join(&name).display()
            ),
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
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
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
    tracing::warn!(
        "{} is damaged ({reason}); it is now {}",
        path.display(),
        aside.display()
    );
    Ok(())
}

/// Puts back complete checkpoints that had stepped aside for a successor that never came.
fn restore_replaced(output_dir: &Path) -> Result<()> {
    for (name, is_folder) in entries(output_dir)? {
        let replaced = name.split_once('.').is_some_and(|(_, rest)| {
            rest.split_once('.')
                .is_some_and(|(_, mark)| mark.starts_with(layout::REPLACED_MARK))
        });
        let Some(step) = layout::staging_step(&name).filter(|_| replaced && is_folder) else {
            continue;
        };
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
        if is_folder
            && (layout::staging_step(&name).is_some()
                || name.starts_with(layout::MODEL_STAGING_PREFIX)
                || name.starts_with(layout::UPLOAD_PREFIX))
        {
            tracing::info!(
                "removing {}, left by a save or an upload that did not end",
                path.display()
            );
            remove_folder(&path);
        } else if !is_folder && name.starts_with(layout::WRITING_PREFIX) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};

    use serde_json::json;
    use tch::Tensor;

    use super::*;
    use crate::checkpoint::save::{Staging, WeightsOptions};
    use crate::error::{Kind, kind_of};

    fn weights() -> Vec<(String, Tensor)> {
        vec![(
            "w".to_owned(),
            Tensor::f_from_slice(&[1.0_f32, 2.0]).expect("a tensor"),
        )]
    }

    fn commit(output_dir: &Path, step: u64) -> PathBuf {
        let mut staging = Staging::begin(output_dir, step).expect("begun");
        staging
            .write_weights(&weights(), WeightsOptions::default())
            .expect("written");
        staging
            .write_json(layout::TRAINER_STATE, &json!({"global_step": step}))
            .expect("written");
        staging.commit().expect("committed")
    }

    /// A folder as the reference writes it.
    fn foreign_checkpoint(output_dir: &Path, step: u64) -> PathBuf {
        let dir = commit(output_dir, step);
        fs::remove_file(dir.join(layout::MANIFEST)).expect("removed");
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = entries(dir)
            .expect("a folder")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = commit(folder.path(), 7);
        assert!(
            matches!(verify(&dir).expect("readable"), Completeness::Complete(manifest) if manifest.step == 7)
        );
        for file in names(&dir) {
            let path = dir.join(&file);
            let whole = fs::read(&path).expect("there");
            let in_place = fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .expect("a file");
            for bit in 0..whole.len() * 8 {
                let flipped = [whole[bit / 8] ^ (1 << (bit % 8))];
                in_place
                    .write_all_at(&flipped, bit as u64 / 8)
                    .expect("written");
                let found = verify(&dir).expect("readable");
                assert!(
                    matches!(found, Completeness::Damaged(_)),
                    "bit {bit} of {file}: {found:?}"
                );
                in_place
                    .write_all_at(&whole[bit / 8..=bit / 8], bit as u64 / 8)
                    .expect("written");
            }
            for length in [0, 1, whole.len() / 2] {
                fs::write(&path, &whole[..length]).expect("written");
                assert!(
                    matches!(verify(&dir).expect("readable"), Completeness::Damaged(_)),
                    "{length} bytes of {file}"
                );
            }
            fs::write(&path, &whole).expect("written");
        }
        assert!(matches!(
            verify(&dir).expect("readable"),
            Completeness::Complete(_)
        ));
    }

    #[test]
    fn a_folder_is_judged_by_what_it_has() {
        type Change = fn(&Path);
        let cases: &[(&str, Change, &str)] = &[
            ("nothing changed", |_| (), "complete"),
            (
                "a note of the user",
                |dir| fs::write(dir.join("note.txt"), "x").expect("written"),
                "complete",
            ),
            (
                "a file is gone",
                |dir| fs::remove_file(dir.join(layout::WEIGHTS)).expect("removed"),
                "is missing",
            ),
            (
                "the manifest is gone",
                |dir| fs::remove_file(dir.join(layout::MANIFEST)).expect("removed"),
                "foreign",
            ),
            (
                "ours without a manifest",
                |dir| {
                    fs::remove_file(dir.join(layout::MANIFEST)).expect("removed");
                    fs::write(dir.join(layout::PROGRESS), "{}").expect("written");
                },
                "no manifest.json",
            ),
            (
                "a link in place of a file",
                |dir| {
                    fs::rename(dir.join(layout::WEIGHTS), dir.join("other")).expect("renamed");
                    symlink(dir.join("other"), dir.join(layout::WEIGHTS)).expect("a link");
                },
                "not a regular file",
            ),
            (
                "no manifest, torn weights",
                |dir| {
                    fs::remove_file(dir.join(layout::MANIFEST)).expect("removed");
                    fs::write(dir.join(layout::WEIGHTS), "torn").expect("written");
                },
                "4 bytes long",
            ),
            (
                "no manifest, no state",
                |dir| {
                    fs::remove_file(dir.join(layout::MANIFEST)).expect("removed");
                    fs::remove_file(dir.join(layout::TRAINER_STATE)).expect("removed");
                },
                "trainer_state.json",
            ),
        ];
        for (name, change, expected) in cases {
            let folder = tempfile::tempdir().expect("a folder");
            let dir = commit(folder.path(), 3);
            change(&dir);
            let found = match verify(&dir).expect("readable") {
                Completeness::Complete(_) => "complete".to_owned(),
                Completeness::Foreign => "foreign".to_owned(),
                Completeness::Damaged(reason) => reason,
            };
            assert!(found.contains(expected), "{name}: {found}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::rename(
            commit(folder.path(), 3),
            layout::checkpoint(folder.path(), 4),
        )
        .expect("renamed");
        let found = verify(&layout::checkpoint(folder.path(), 4)).expect("readable");
        assert!(matches!(found, Completeness::Damaged(reason) if reason.contains("step 3")));
    }

    #[test]
    fn the_largest_exact_name_wins_and_damaged_ones_step_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let output_dir = folder.path();
        assert!(
            newest_complete(&output_dir.join("absent"))
                .expect("no error")
                .is_none()
        );
        for step in [100, 5, 9] {
            commit(output_dir, step);
        }
        fs::create_dir(output_dir.join("checkpoint-20x")).expect("made");
        fs::write(output_dir.join("checkpoint-999"), "a file").expect("written");
        symlink(
            output_dir.join("checkpoint-5"),
            output_dir.join("checkpoint-998"),
        )
        .expect("a link");
        let newest = || newest_complete(output_dir).expect("readable");
        assert_eq!(newest(), Some(output_dir.join("checkpoint-100")));
        foreign_checkpoint(output_dir, 200);
        assert_eq!(newest(), Some(output_dir.join("checkpoint-200")));
        for expected in [
            "damaged-checkpoint-300",
            "damaged-checkpoint-300.2",
            "damaged-checkpoint-300.3",
        ] {
            let torn = commit(output_dir, 300);
            fs::write(torn.join(layout::TRAINER_STATE), "{}").expect("damaged");
            assert_eq!(newest(), Some(output_dir.join("checkpoint-200")));
            assert!(
                output_dir.join(expected).join(layout::WEIGHTS).exists(),
                "{expected}"
            );
        }
    }

    #[test]
    fn the_specs_messages() {
        let folder = tempfile::tempdir().expect("a folder");
        let bogus = folder.path().join("bogus");
        let cases = [
            (open(&bogus).map(|_| ()), "Can't find a valid checkpoint at"),
            (
                open(folder.path()).map(|_| ()),
                "Can't find a valid checkpoint at",
            ),
            (
                latest(folder.path()).map(|_| ()),
                "No valid checkpoint found in output directory",
            ),
        ];
        for (result, message) in cases {
            let error = result.expect_err("nothing there");
            assert!(error.to_string().starts_with(message), "{error}");
            assert_eq!(kind_of(&error), Kind::Data);
        }
        let weights_only = foreign_checkpoint(folder.path(), 2);
        fs::remove_file(weights_only.join(layout::TRAINER_STATE)).expect("removed");
        assert!(matches!(
            open(&weights_only).expect("weights"),
            Completeness::Foreign
        ));
        fs::remove_dir_all(weights_only).expect("removed");
        let dir = commit(folder.path(), 1);
        assert!(matches!(
            open(&dir).expect("whole"),
            Completeness::Complete(_)
        ));
        assert_eq!(latest(folder.path()).expect("there"), dir);
    }

    #[test]
    fn only_our_leftovers_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str| fs::create_dir(folder.path().join(name)).expect("made");
        let ours = [
            ".checkpoint-5.12-0-aa",
            ".checkpoint-6.12-1-ab",
            ".model-12-2-ac",
            ".upload-12-0",
        ];
        let others = [
            ".checkpoint-",
            ".checkpoint-x.1",
            ".git",
            "checkpoint-5.old",
        ];
        ours.into_iter().chain(others).for_each(make);
        fs::write(folder.path().join(".writing-1-2-3-results.json"), "half").expect("written");
        fs::write(folder.path().join(".checkpoint-7.file"), "a file").expect("written");
        clean_staging(folder.path()).expect("cleaned");
        let mut expected = others.to_vec();
        expected.push(".checkpoint-7.file");
        expected.sort_unstable();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn one_that_stepped_aside_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = commit(folder.path(), 5);
        let aside = folder.path().join(".checkpoint-5.replaced-1-2-3");
        fs::rename(&dir, &aside).expect("renamed");
        fs::create_dir(folder.path().join(".checkpoint-5.1-2-3")).expect("made");
        clean_staging(folder.path()).expect("cleaned");
        assert_eq!(names(folder.path()), ["checkpoint-5"]);
        assert!(matches!(
            verify(&dir).expect("readable"),
            Completeness::Complete(_)
        ));
        // With its successor in place it goes.
        fs::create_dir(&aside).expect("made");
        assert_eq!(newest_complete(folder.path()).expect("readable"), Some(dir));
        clean_staging(folder.path()).expect("cleaned");
        assert_eq!(names(folder.path()), ["checkpoint-5"]);
    }
}
