//! The files of an upload as they were when it was asked for: hard links in a hidden folder of the output folder. Training
//! writes each file aside and renames it, so what a link shows does not change, and rotation takes nothing away from it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use crate::checkpoint::layout;

/// A folder of links; removed when dropped.
#[derive(Debug)]
pub struct View {
    folder: PathBuf,
}

impl View {
    /// An empty one in `output_dir`.
    pub fn new(output_dir: &Path) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}", layout::UPLOAD_PREFIX, std::process::id());
        let folder = output_dir.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The top-level files of `folder` that `is_wanted` names; one that is there already stays. Links are left out, which
    /// could lead anywhere.
    pub fn add(&self, folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let unreadable = || format!("cannot read {}", folder.display());
        for entry in fs::read_dir(folder).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let name = entry.file_name();
            let is_file = entry.file_type().with_context(unreadable)?.is_file();
            if is_file && name.to_str().is_some_and(&is_wanted) {
                self.link(&entry.path(), &self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn link(&self, source: &Path, target: &Path) -> Result<()> {
        let linked = match fs::hard_link(source, target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // File systems without hard links.
            Err(_) => fs::copy(source, target).map(|_| ()),
            Ok(()) => Ok(()),
        };
        linked.with_context(|| format!("cannot set {} aside for its upload", source.display()))
    }

    /// Names and paths of the files, sorted.
    pub fn files(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            ));
        }
        files.sort();
        Ok(files)
    }

    /// Where the links are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // One that stays is removed at the next start.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_what_is_replaced_and_removed_and_leaves_out_links_and_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b", "_c"] {
            fs::write(path(name), name).expect("a file");
        }
        fs::create_dir(path("d")).expect("a folder");
        std::os::unix::fs::symlink("a", path("e")).expect("a link");
        let view = View::new(folder.path()).expect("a view");
        view.add(folder.path(), |name| !name.starts_with('_'))
            .expect("links");
        fs::write(path("new"), "new").expect("a file");
        fs::rename(path("new"), path("a")).expect("replaced");
        fs::remove_file(path("b")).expect("removed");
        let read =
            |(name, path): (String, PathBuf)| (name, fs::read_to_string(path).expect("text"));
        let files: Vec<_> = view.files().expect("files").into_iter().map(read).collect();
        let own = |name: &str| (name.to_owned(), name.to_owned());
        assert_eq!(files, [own("a"), own("b")]);
        let hidden = view.folder().to_owned();
        drop(view);
        assert!(!hidden.exists());
    }
}
