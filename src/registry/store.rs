//! The store of components: every file under its digest, hashed again whenever it is read. Nothing is visible before it
//! is whole and checked, so a run never sees a half-finished download and needs no network.
//!
//! ```text
//! STORE/blobs/sha256/HEX         components and OCI manifests
//! STORE/signatures/HEX.minisig   signatures of the OCI manifest with this digest
//! STORE/partial/HEX              downloads that can go on
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::file;
use super::name::Digest;
use crate::error::{Failure, Kind};

/// A larger component is refused, before it is downloaded.
pub const MAX_BLOB: u64 = 512 << 20;
/// Longer texts of signatures are refused.
pub const MAX_SIGNATURES: u64 = 64 << 10;
/// Folder beside a lock file that is looked at first: what `host plugin vendor` wrote.
pub const VENDOR: &str = "plugins.vendor";

/// A folder of components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in this folder; it need not exist.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a component or manifest lies, if it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join("sha256").join(digest.hex())
    }

    /// Whether it is there; says nothing about its content.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The content of a digest; an error if it is not there or was changed.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let bytes = file::read(&path, MAX_BLOB)
            .with_context(|| Failure::data(format!("{digest} is not in the store")))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            let text = format!(
                "{} was changed after it was added: its digest is {found}",
                path.display()
            );
            return Err(Failure::data(text)
                .hint("remove that file and add the plugin again")
                .into());
        }
        Ok(bytes)
    }

    /// Adds these bytes under their digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        // What is there may be damaged; what is written now is not.
        if self.get(&digest).is_err() {
            file::write(&self.path(&digest), bytes, false)?;
        }
        Ok(digest)
    }

    /// The signatures that were found with a manifest.
    pub fn signatures(&self, manifest: &Digest) -> Result<Vec<String>> {
        let path = self.signature_path(manifest);
        let bytes = file::read_if_present(&path, MAX_SIGNATURES)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let parts = text.split("\n\n").map(str::trim);
        Ok(parts
            .filter(|part| !part.is_empty())
            .map(|part| format!("{part}\n"))
            .collect())
    }

    /// Keeps the signatures that were found with a manifest.
    pub fn put_signatures(&self, manifest: &Digest, signatures: &[String]) -> Result<()> {
        let texts: Vec<&str> = signatures.iter().map(|text| text.trim()).collect();
        let text = format!("{}\n", texts.join("\n\n"));
        file::write(&self.signature_path(manifest), text.as_bytes(), false)
    }

    fn signature_path(&self, manifest: &Digest) -> PathBuf {
        self.root
            .join("signatures")
            .join(format!("{}.minisig", manifest.hex()))
    }

    /// Begins or goes on with a download; waits for another process that has begun the same.
    pub fn download(&self, digest: &Digest) -> Result<Download> {
        let path = self.root.join("partial").join(digest.hex());
        let open = || -> io::Result<File> {
            fs::create_dir_all(file::folder_of(&path))?;
            let file = File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        let subject = || format!("the download {} cannot be kept", path.display());
        let mut file = open().with_context(subject)?;
        let mut hash = Sha256::new();
        file.rewind().with_context(subject)?;
        let mut have = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).with_context(subject)? {
                0 => break,
                length => {
                    hash.update(&buffer[..length]);
                    have += length as u64;
                }
            }
        }
        Ok(Download {
            file,
            path,
            hash,
            have,
            digest: digest.clone(),
        })
    }
}

/// A download in progress. What was received stays when it ends early, and is gone on with.
pub struct Download {
    file: File,
    path: PathBuf,
    hash: Sha256,
    have: u64,
    digest: Digest,
}

impl Download {
    /// Bytes that are here already.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Forgets what is here: the server sends everything.
    pub fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.hash = Sha256::new();
        self.have = 0;
        Ok(())
    }

    /// Adds what was received.
    pub fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.hash.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Makes the content visible if it is what it should be; otherwise all of it is thrown away.
    pub fn commit(self, store: &Store) -> Result<()> {
        let found = Digest::from_hash(&self.hash.finalize());
        if found != self.digest {
            let _ = fs::remove_file(&self.path);
            let text = format!(
                "what was received is not {}: its digest is {found}",
                self.digest
            );
            return Err(Failure::data(text)
                .hint("the registry or something on the way changed it; nothing was kept")
                .into());
        }
        let target = store.path(&self.digest);
        let subject = || Failure::new(Kind::Io, format!("{} cannot be written", target.display()));
        self.file.sync_all().with_context(subject)?;
        fs::create_dir_all(file::folder_of(&target)).with_context(subject)?;
        match fs::rename(&self.path, &target) {
            // Another process that waited for this one finds that everything has been done.
            Err(error) if error.kind() == io::ErrorKind::NotFound && target.is_file() => Ok(()),
            result => result.with_context(subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path().join("store"));
        (folder, store)
    }

    #[test]
    fn what_was_changed_is_not_given_out() {
        let (_folder, store) = store();
        let digest = store.put(b"component").expect("kept");
        assert_eq!(store.get(&digest).expect("there"), b"component");
        fs::write(store.path(&digest), b"Component").expect("changed");
        let error = store.get(&digest).expect_err("changed").to_string();
        assert!(error.contains("was changed after it was added"), "{error}");
        store.put(b"component").expect("kept again");
        store.get(&digest).expect("healed");
    }

    #[test]
    fn a_download_goes_on_and_is_visible_only_when_it_is_right() {
        let (_folder, store) = store();
        let digest = Digest::of(b"component");
        let mut first = store.download(&digest).expect("begun");
        first.add(b"comp").expect("kept");
        drop(first);
        assert!(!store.has(&digest));
        let mut second = store.download(&digest).expect("gone on");
        assert_eq!(second.have(), 4);
        second.add(b"onent").expect("kept");
        second.commit(&store).expect("right");
        assert_eq!(store.get(&digest).expect("there"), b"component");

        let other = Digest::of(b"other");
        let mut wrong = store.download(&other).expect("begun");
        wrong.add(b"othex").expect("kept");
        let error = wrong.commit(&store).expect_err("wrong").to_string();
        assert!(error.contains("what was received is not"), "{error}");
        assert!(!store.has(&other));
        assert_eq!(store.download(&other).expect("begun").have(), 0);
    }

    #[test]
    fn signatures_are_kept_beside() {
        let (_folder, store) = store();
        let manifest = Digest::of(b"manifest");
        assert_eq!(
            store.signatures(&manifest).expect("none"),
            Vec::<String>::new()
        );
        let texts = ["a\nb\n".to_owned(), "c\nd\n".to_owned()];
        store.put_signatures(&manifest, &texts).expect("kept");
        assert_eq!(store.signatures(&manifest).expect("two"), texts);
    }
}
