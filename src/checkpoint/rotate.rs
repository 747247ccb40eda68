//! Which checkpoints go when a new one is there (spec 5.3), and deleting them safely.
//!
//! The order is by step, not by modification time: clocks jump. Checkpoints that an earlier run left in the folder go
//! before those of this run, whatever their steps. A checkpoint is renamed to a staging name before its files
//! are deleted, so that a kill in the middle leaves nothing that looks like one.

use std::path::Path;

use anyhow::Result;

use super::find::{self, Completeness, steps, verify};
use super::save::remove_folder;
use super::{file, layout};

/// Deletes the oldest checkpoints beyond `limit` (0: no limit), keeping the best one, and the newest that is complete
/// whatever the limit says. `earlier` are the steps of those that are not of this run. Call it after each save.
pub fn rotate(
    output_dir: &Path,
    limit: usize,
    (best, earlier): (Option<&Path>, &[u64]),
) -> Result<()> {
    if limit == 0 {
        return Ok(());
    }
    let mut steps = steps(output_dir)?;
    steps.sort_by_key(|step| (!earlier.contains(step), *step));
    let best = best.map(|best| step_here(output_dir, best));
    let mut doomed = doomed(&steps, limit, best);
    if !doomed.is_empty() {
        let newest = newest_whole(output_dir, &steps)?;
        doomed.retain(|&step| Some(step) != newest);
    }
    delete(output_dir, &doomed)
}

/// Deletes all checkpoints but the best one: the end of a run with a limit of 1 (spec 3.2, item 10). If the best one is
/// not whole, nothing is deleted.
pub fn keep_only(output_dir: &Path, best: &Path) -> Result<()> {
    let Some(best) = step_here(output_dir, best) else {
        return Ok(());
    };
    if let Completeness::Damaged(reason) = verify(&layout::checkpoint(output_dir, best))? {
        tracing::warn!(
            "the best checkpoint, step {best}, is damaged ({reason}): the others are kept"
        );
        return Ok(());
    }
    let others: Vec<u64> = steps(output_dir)?
        .into_iter()
        .filter(|&step| step != best)
        .collect();
    delete(output_dir, &others)
}

/// The step of a recorded best checkpoint, if it is one of this folder.
fn step_here(output_dir: &Path, best: &Path) -> Option<u64> {
    let path = find::locate(output_dir, best)?;
    let same = path.parent()?.canonicalize().ok()? == output_dir.canonicalize().ok()?;
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(layout::checkpoint_step)
        .filter(|_| same)
}

/// Steps from the oldest on, with the best one moved to the place before the last, unless it is among the last two.
fn ordered(steps: &[u64], best: Option<u64>) -> Vec<u64> {
    let mut order = steps.to_vec();
    if let Some(index) = best.and_then(|best| order.iter().position(|&step| step == best))
        && index + 2 < order.len()
    {
        let last = order.len() - 1;
        order[index..last].rotate_left(1);
    }
    order
}

/// What the reference deletes. `best` is `Some(None)` if there is a best model in another folder.
fn doomed(steps: &[u64], limit: usize, best: Option<Option<u64>>) -> Vec<u64> {
    let order = ordered(steps, best.flatten());
    let last_is_best = best.is_none_or(|best| best == order.last().copied());
    // With a limit of 1 the last checkpoint stays beside the best one, or the run could not be resumed.
    let limit = if limit == 1 && !last_is_best {
        2
    } else {
        limit
    };
    order[..order.len().saturating_sub(limit)].to_vec()
}

fn newest_whole(output_dir: &Path, steps: &[u64]) -> Result<Option<u64>> {
    for &step in steps.iter().rev() {
        if !matches!(
            verify(&layout::checkpoint(output_dir, step))?,
            Completeness::Damaged(_)
        ) {
            return Ok(Some(step));
        }
    }
    Ok(None)
}

fn delete(output_dir: &Path, steps: &[u64]) -> Result<()> {
    for &step in steps {
        let path = layout::checkpoint(output_dir, step);
        let aside = output_dir.join(format!(
            "{}{step}.{}",
            layout::STAGING_PREFIX,
            file::unique()
        ));
        file::rename_to_free(&path, &aside)?;
        file::sync_folder(output_dir)?;
        remove_folder(&aside);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::checkpoint::save::Staging;

    const ALL: [u64; 5] = [5, 10, 15, 20, 25];

    fn save(output_dir: &Path, step: u64) -> PathBuf {
        let mut staging = Staging::begin(output_dir, step).expect("begun");
        staging
            .write_bytes("model", &step.to_le_bytes())
            .expect("written");
        staging.commit().expect("committed")
    }

    #[test]
    fn the_specs_rotation_table() {
        let cases: &[(usize, Option<u64>, &[u64])] = &[
            (2, None, &[20, 25]),
            (2, Some(5), &[5, 25]),
            (1, Some(25), &[25]),
            (1, Some(5), &[5, 25]),
            (1, None, &[25]),
            (3, Some(10), &[10, 20, 25]),
            (4, Some(5), &[5, 15, 20, 25]),
            (2, Some(20), &[20, 25]),
            (9, Some(5), &ALL),
            (0, None, &ALL),
        ];
        for &(limit, best, kept) in cases {
            let folder = tempfile::tempdir().expect("a folder");
            // Saved out of order: modification times must not matter.
            for step in [25, 5, 20, 10, 15] {
                save(folder.path(), step);
            }
            let best_path = best.map(|step| layout::checkpoint(folder.path(), step));
            rotate(folder.path(), limit, (best_path.as_deref(), &[])).expect("rotated");
            assert_eq!(
                steps(folder.path()).expect("steps"),
                kept,
                "limit {limit}, best {best:?}"
            );
            assert_eq!(
                fs::read_dir(folder.path()).expect("entries").count(),
                kept.len(),
                "no leftovers"
            );
        }
    }

    #[test]
    fn what_an_earlier_run_left_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        for step in [4, 10, 20] {
            save(folder.path(), step);
        }
        rotate(folder.path(), 2, (None, &[10, 20])).expect("rotated");
        assert_eq!(steps(folder.path()).expect("steps"), [4, 20]);
        save(folder.path(), 8);
        rotate(folder.path(), 2, (None, &[20])).expect("rotated");
        assert_eq!(steps(folder.path()).expect("steps"), [4, 8]);
    }

    #[test]
    fn the_best_one_stands_before_the_last() {
        assert_eq!(ordered(&ALL, Some(10)), [5, 15, 20, 10, 25]);
        assert_eq!(ordered(&ALL, Some(20)), ALL);
        assert_eq!(ordered(&ALL, Some(7)), ALL);
    }

    #[test]
    fn rotation_while_running_keeps_the_rows_of_the_spec() {
        // Rows 38 and 39: a save each epoch, the metric of each, the limit, what is left.
        let row = |metrics: &[f64], limit: usize| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut best: Option<(f64, PathBuf)> = None;
            for (epoch, &metric) in metrics.iter().enumerate() {
                let path = save(folder.path(), 4 * (epoch as u64 + 1));
                if best.as_ref().is_none_or(|(value, _)| metric > *value) {
                    best = Some((metric, path));
                }
                rotate(
                    folder.path(),
                    limit,
                    (best.as_ref().map(|(_, path)| path.as_path()), &[]),
                )
                .expect("rotated");
            }
            if let Some((_, best)) = best.filter(|_| limit == 1) {
                keep_only(folder.path(), &best).expect("cleaned up");
            }
            steps(folder.path()).expect("steps")
        };
        let flat = [0.5, 0.6, 0.55, 0.58, 0.7, 0.7, 0.7, 0.7];
        assert_eq!(row(&flat, 2), [20, 32]);
        assert_eq!(row(&flat, 1), [20]);
        assert_eq!(
            row(&[0.5, 0.6, 0.55, 0.58, 0.55, 0.54, 0.53], 3),
            [8, 24, 28]
        );
    }

    #[test]
    fn the_newest_complete_one_is_never_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        for step in ALL {
            save(folder.path(), step);
        }
        for step in [20, 25] {
            fs::write(
                layout::checkpoint(folder.path(), step).join("model"),
                b"torn",
            )
            .expect("damaged");
        }
        rotate(folder.path(), 1, (None, &[])).expect("rotated");
        assert_eq!(steps(folder.path()).expect("steps"), [15, 25]);
        let best = layout::checkpoint(folder.path(), 25);
        keep_only(folder.path(), &best).expect("no error");
        assert_eq!(
            steps(folder.path()).expect("steps"),
            [15, 25],
            "a damaged best one deletes nothing"
        );
    }

    #[test]
    fn links_and_other_names_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        let target = save(elsewhere.path(), 1);
        std::os::unix::fs::symlink(&target, folder.path().join("checkpoint-1")).expect("a link");
        fs::create_dir(folder.path().join("checkpoint-2x")).expect("made");
        save(folder.path(), 3);
        save(folder.path(), 4);
        rotate(folder.path(), 1, (None, &[])).expect("rotated");
        assert!(target.join("model").exists() && folder.path().join("checkpoint-1").exists());
        assert_eq!(steps(folder.path()).expect("steps"), [4]);
    }

    #[test]
    fn a_best_one_of_a_moved_folder_is_recognised() {
        let folder = tempfile::tempdir().expect("a folder");
        for step in ALL {
            save(folder.path(), step);
        }
        rotate(
            folder.path(),
            2,
            (Some(Path::new("/no/such/folder/checkpoint-5")), &[]),
        )
        .expect("rotated");
        assert_eq!(steps(folder.path()).expect("steps"), [5, 25]);
    }
}
