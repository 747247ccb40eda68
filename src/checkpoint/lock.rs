//! One run in an output folder at a time.
//!
//! The lock is the kernel's (`flock`), so it ends with the process, however that ends. The file holds the process id for
//! the message to the second run. Where the file system has no `flock`, the id is all there is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::layout;
use crate::error::{Failure, Kind};

/// Held while a run writes into its output folder.
#[derive(Debug)]
pub struct OutputLock {
    path: PathBuf,
    // Keeps the kernel's lock.
    _file: File,
}

impl OutputLock {
    /// Makes the folder if need be and takes its lock.
    pub fn acquire(output_dir: &Path) -> Result<Self> {
        make_folder(output_dir)?;
        let path = output_dir.join(layout::LOCK);
        loop {
            let mut file = open(&path)?;
            let before = holder(&mut file);
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(refused(output_dir, before)),
                Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL) => match before {
                    Some(pid) if is_alive(pid) => return Err(refused(output_dir, before)),
                    _ => {}
                },
                result => result.with_context(|| format!("cannot lock {}", path.display()))?,
            }
            // The holder removes the file when it ends; a lock on a removed file protects nothing.
            if is_at(&file, &path) {
                if let Some(pid) = before {
                    tracing::warn!(
                        "process {pid} ended without releasing {}; its lock is taken over",
                        output_dir.display()
                    );
                }
                sign(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        // Removed while still held: whoever opened it meanwhile finds that out. What stays is taken over by the next run.
        let _ = fs::remove_file(&self.path);
    }
}

fn make_folder(output_dir: &Path) -> Result<()> {
    match fs::create_dir_all(output_dir) {
        Ok(()) => Ok(()),
        Err(_) if output_dir.exists() => {
            let message = format!("the output folder {} is not a folder", output_dir.display());
            Err(Failure::new(Kind::Io, message)
                .hint("choose another --output_dir")
                .into())
        }
        Err(error) => Err(unwritable(output_dir, &error)),
    }
}

fn open(path: &Path) -> Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags)
        .open(path);
    opened.map_err(|error| unwritable(path.parent().unwrap_or(path), &error))
}

fn unwritable(output_dir: &Path, error: &io::Error) -> anyhow::Error {
    let message = format!(
        "cannot write into the output folder {}: {error}",
        output_dir.display()
    );
    Failure::new(Kind::Io, message)
        .hint("choose another --output_dir, or change its permissions")
        .into()
}

fn refused(output_dir: &Path, pid: Option<u32>) -> anyhow::Error {
    let who = pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    );
    let message = format!("{who} is already writing into {}", output_dir.display());
    Failure::new(Kind::Io, message)
        .hint("wait for it to end, or choose another --output_dir")
        .into()
}

/// The process id in the file, if there is one.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{hints_of, kind_of};

    #[test]
    fn a_second_run_is_refused_by_process_id_until_the_first_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let output_dir = folder.path().join("new/output");
        let first = OutputLock::acquire(&output_dir).expect("free");
        let error = OutputLock::acquire(&output_dir).expect_err("held");
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert_eq!((kind_of(&error), hints_of(&error).len()), (Kind::Io, 1));
        drop(first);
        assert!(!output_dir.join(layout::LOCK).exists(), "nothing is left");
        OutputLock::acquire(&output_dir).expect("free again");
    }

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        for content in ["4194304999\n", "123456789\n", "", "no number"] {
            fs::write(folder.path().join(layout::LOCK), content).expect("written");
            let _lock = OutputLock::acquire(folder.path()).expect("taken over");
            let text = fs::read_to_string(folder.path().join(layout::LOCK)).expect("readable");
            assert_eq!(
                text,
                format!("{}\n", std::process::id()),
                "after {content:?}"
            );
        }
    }

    #[test]
    fn liveness_is_asked_of_the_kernel() {
        assert!(is_alive(std::process::id()) && is_alive(1));
        assert!(!is_alive(0) && !is_alive(u32::MAX) && !is_alive(i32::MAX as u32));
    }

    #[test]
    fn files_and_links_in_the_way_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "x").expect("written");
        for path in [file.clone(), file.join("below")] {
            let error = OutputLock::acquire(&path).expect_err("a file is in the way");
            assert_eq!(kind_of(&error), Kind::Io, "{error:#}");
        }
        let linked = folder.path().join("linked");
        fs::create_dir(&linked).expect("made");
        std::os::unix::fs::symlink(&file, linked.join(layout::LOCK)).expect("a link");
        OutputLock::acquire(&linked).expect_err("a link is not followed");
        assert_eq!(fs::read_to_string(&file).expect("readable"), "x");
    }
}
