//! Compiled components on disk: found by the component's digest and the engine's key, sealed with a key of this machine
//! and user, written aside and renamed. Whatever does not fit is compiled again, never an error.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const KEY_FILE: &str = "machine.key";
const KEY_LENGTH: usize = 32;
const SEAL_LENGTH: usize = 32;

/// Compiled code and the seal over it.
#[derive(Debug)]
pub(super) struct Sealed {
    key: [u8; KEY_LENGTH],
    name: String,
    seal: [u8; SEAL_LENGTH],
    code: Vec<u8>,
}

impl Sealed {
    /// Code that this process, or its compile child, has just made.
    pub(super) fn fresh(name: &str, code: Vec<u8>) -> Result<Self> {
        Ok(Self::seal(new_key()?, name, code))
    }

    fn seal(key: [u8; KEY_LENGTH], name: &str, code: Vec<u8>) -> Self {
        let seal = seal_of(&key, name, &code);
        Self {
            key,
            name: name.to_owned(),
            seal,
            code,
        }
    }

    /// The code, after its seal was checked.
    pub(super) fn verified_bytes(&self) -> Result<&[u8]> {
        // blake3's comparison takes the same time wherever the first difference is.
        let expected = blake3::Hash::from_bytes(seal_of(&self.key, &self.name, &self.code));
        ensure!(
            expected == blake3::Hash::from_bytes(self.seal),
            "the seal of {} is broken",
            self.name
        );
        Ok(&self.code)
    }
}

/// The name is part of what is sealed, so that one entry cannot stand in for another.
fn seal_of(key: &[u8; KEY_LENGTH], name: &str, code: &[u8]) -> [u8; SEAL_LENGTH] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher
        .update(&(name.len() as u64).to_le_bytes())
        .update(name.as_bytes())
        .update(code);
    *hasher.finalize().as_bytes()
}

/// A folder of compiled components that only its user can reach.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; KEY_LENGTH],
}

impl Cache {
    /// Opens or makes the folder and its key.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        ensure_private(&fs::metadata(folder)?)
            .with_context(|| format!("the plugin cache {}", folder.display()))?;
        let key = read_or_make_key(&folder.join(KEY_FILE))?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
        })
    }

    /// The entry of that name, unless it is absent, damaged or not ours.
    pub(super) fn get(&self, name: &str) -> Option<Sealed> {
        let mut file = File::open(self.path(name)).ok()?;
        let mut seal = [0; SEAL_LENGTH];
        file.read_exact(&mut seal).ok()?;
        let mut code = Vec::new();
        file.read_to_end(&mut code).ok()?;
        let entry = Sealed {
            key: self.key,
            name: name.to_owned(),
            seal,
            code,
        };
        if let Err(error) = entry.verified_bytes() {
            tracing::warn!("{error}; compiling the plugin again");
            return None;
        }
        Some(entry)
    }

    /// Writes an entry; another process that writes the same one at the same time does no harm.
    pub(super) fn put(&self, name: &str, code: &[u8]) -> Result<()> {
        let aside = self
            .folder
            .join(format!("{name}.{}.tmp", std::process::id()));
        let written = write_private(&aside, &[&seal_of(&self.key, name, code), code])
            .and_then(|()| Ok(fs::rename(&aside, self.path(name))?));
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written.with_context(|| format!("writing {}", self.path(name).display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.cwasm"))
    }
}

/// The key is made once, under a name of its own, so that no process ever reads half of it.
fn read_or_make_key(path: &Path) -> Result<[u8; KEY_LENGTH]> {
    if !path.exists() {
        let aside = path.with_extension(format!("{}.tmp", std::process::id()));
        write_private(&aside, &[&new_key()?])?;
        // A link fails if another process was first; its key is as good.
        let linked = fs::hard_link(&aside, path);
        fs::remove_file(&aside)?;
        if let Err(error) = linked
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("making {}", path.display()));
        }
    }
    let mut file = File::open(path)?;
    ensure_private(&file.metadata()?).with_context(|| format!("the key {}", path.display()))?;
    let mut key = [0; KEY_LENGTH];
    file.read_exact(&mut key)
        .with_context(|| format!("reading the key {}", path.display()))?;
    Ok(key)
}

fn ensure_private(metadata: &fs::Metadata) -> Result<()> {
    ensure!(
        metadata.uid() == rustix::process::geteuid().as_raw(),
        "belongs to another user"
    );
    ensure!(
        metadata.mode() & 0o077 == 0,
        "can be reached by other users"
    );
    Ok(())
}

fn write_private(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    Ok(file.sync_all()?)
}

fn new_key() -> Result<[u8; KEY_LENGTH]> {
    let mut key = [0; KEY_LENGTH];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut key))
        .context("reading /dev/urandom")?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("plugins")).expect("a cache");
        (folder, cache)
    }

    #[test]
    fn an_entry_comes_back_and_an_altered_one_does_not() {
        let (_folder, cache) = cache();
        assert!(cache.get("a").is_none());
        cache.put("a", b"native code").expect("written");
        let entry = cache.get("a").expect("the entry");
        assert_eq!(
            entry.verified_bytes().expect("the seal holds"),
            b"native code"
        );
        let path = cache.path("a");
        let good = fs::read(&path).expect("a file");
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, &bad).expect("written");
            assert!(cache.get("a").is_none(), "byte {position}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).expect("written");
            assert!(cache.get("a").is_none(), "length {length}");
        }
    }

    #[test]
    fn an_entry_is_bound_to_its_name_and_to_the_machine() {
        let (_folder, cache) = cache();
        cache.put("a", b"native code").expect("written");
        fs::copy(cache.path("a"), cache.path("b")).expect("copied");
        assert!(cache.get("b").is_none());
        let (_other, stranger) = self::cache();
        fs::copy(cache.path("a"), stranger.path("a")).expect("copied");
        assert!(stranger.get("a").is_none());
        let again = Cache::open(&cache.folder).expect("the same cache");
        assert!(again.get("a").is_some());
    }

    #[test]
    fn a_folder_or_key_that_others_can_reach_is_not_used() {
        let (_folder, cache) = cache();
        let key = cache.folder.join(KEY_FILE);
        assert_eq!(fs::metadata(&key).expect("a key").mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(&cache.folder).expect("a folder").mode() & 0o777,
            0o700
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(Cache::open(&cache.folder).is_err());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o770)).expect("changed");
        assert!(Cache::open(&cache.folder).is_err());
    }
}
