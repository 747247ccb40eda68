//! Compiled components on disk: found by the component's digest and the engine's key, sealed with a key of this machine
//! and user, written aside and renamed. Whatever does not fit is compiled again, never an error.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, MetadataExt, OpenOptions, OpenOptionsExt};

const KEY_FILE: &str = "machine.key";
const KEY_LENGTH: usize = 32;
const SEAL_LENGTH: usize = 32;
const ENTRY: &str = ".cwasm";
const ASIDE: &str = ".tmp";
const ASIDE_AGE: Duration = Duration::from_hours(24);
const ENTRY_AGE: Duration = Duration::from_hours(24 * 90);

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

/// A folder of compiled components that only its user can reach: the folder that was checked is the one that is used, and
/// no link in it leads out.
#[derive(Debug)]
pub(super) struct Cache {
    folder: Dir,
    key: [u8; KEY_LENGTH],
}

impl Cache {
    /// Opens or makes the folder and its key.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let context = || format!("the plugin cache {}", folder.display());
        let folder = Dir::open_ambient_dir(folder, ambient_authority())?;
        ensure_private(&folder.dir_metadata()?).with_context(context)?;
        let key = read_or_make_key(&folder).with_context(context)?;
        Ok(Self { folder, key })
    }

    /// The entry of that name, unless it is absent, damaged or not ours.
    pub(super) fn get(&self, name: &str) -> Option<Sealed> {
        let mut file = self.folder.open(entry_name(name)).ok()?;
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
        let (folder, entry) = (&self.folder, entry_name(name));
        let aside = aside_name(name)?;
        let written = write_private(folder, &aside, &[&seal_of(&self.key, name, code), code])
            .and_then(|()| folder.rename(&aside, folder, &entry));
        if written.is_err() {
            let _ = folder.remove_file(&aside);
        }
        // Another process may sweep at the same time.
        let _ = sweep(folder);
        written.with_context(|| format!("writing {entry} into the plugin cache"))
    }
}

fn entry_name(name: &str) -> String {
    format!("{name}{ENTRY}")
}

/// A name that nobody else uses at the same time: process numbers repeat where a folder is shared between machines.
fn aside_name(name: &str) -> Result<String> {
    let mut random = [0; 8];
    fill_random(&mut random)?;
    Ok(format!("{name}.{:016x}{ASIDE}", u64::from_le_bytes(random)))
}

/// The key is made once, under a name of its own, so that no process ever reads half of it.
fn read_or_make_key(folder: &Dir) -> Result<[u8; KEY_LENGTH]> {
    if !folder.exists(KEY_FILE) {
        let aside = aside_name(KEY_FILE)?;
        write_private(folder, &aside, &[&new_key()?])?;
        // A link fails if another process was first; its key is as good.
        let linked = folder.hard_link(&aside, folder, KEY_FILE);
        folder.remove_file(&aside)?;
        if let Err(error) = linked
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("making {KEY_FILE}"));
        }
    }
    let mut file = folder.open(KEY_FILE)?;
    ensure_private(&file.metadata()?).with_context(|| format!("the key {KEY_FILE}"))?;
    let mut key = [0; KEY_LENGTH];
    file.read_exact(&mut key)
        .with_context(|| format!("reading the key {KEY_FILE}"))?;
    Ok(key)
}

fn ensure_private(metadata: &Metadata) -> Result<()> {
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

fn write_private(folder: &Dir, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = folder.open_with(name, &options)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

fn new_key() -> Result<[u8; KEY_LENGTH]> {
    let mut key = [0; KEY_LENGTH];
    fill_random(&mut key)?;
    Ok(key)
}

fn fill_random(bytes: &mut [u8]) -> Result<()> {
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(bytes))
        .context("reading /dev/urandom")
}

/// Removes what writers left behind that were killed, and entries that have not been renewed for long.
fn sweep(folder: &Dir) -> io::Result<()> {
    for entry in folder.entries()? {
        let entry = entry?;
        let (name, modified) = (entry.file_name(), entry.metadata()?.modified()?);
        let name = name.to_string_lossy().into_owned();
        let limit = match name.as_str() {
            name if name.ends_with(ASIDE) => ASIDE_AGE,
            name if name.ends_with(ENTRY) => ENTRY_AGE,
            _ => continue,
        };
        let age = SystemTime::now().duration_since(modified.into_std());
        if age.is_ok_and(|age| age > limit) {
            folder.remove_file(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// A cache and the path of its folder.
    struct Place {
        _parent: TempDir,
        folder: PathBuf,
        cache: Cache,
    }

    impl Place {
        fn new() -> Self {
            let parent = tempfile::tempdir().expect("a folder");
            let folder = parent.path().join("plugins");
            let cache = Cache::open(&folder).expect("a cache");
            Self {
                _parent: parent,
                folder,
                cache,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.join(entry_name(name))
        }

        fn mode(&self, name: &str) -> u32 {
            let metadata = fs::metadata(self.folder.join(name)).expect("a file");
            metadata.permissions().mode() & 0o777
        }
    }

    fn allow(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    }

    #[test]
    fn an_entry_comes_back_and_an_altered_one_does_not() {
        let place = Place::new();
        let cache = &place.cache;
        assert!(cache.get("a").is_none());
        cache.put("a", b"native code").expect("written");
        let entry = cache.get("a").expect("the entry");
        assert_eq!(
            entry.verified_bytes().expect("the seal holds"),
            b"native code"
        );
        let path = place.path("a");
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
        let (place, stranger) = (Place::new(), Place::new());
        place.cache.put("a", b"native code").expect("written");
        fs::copy(place.path("a"), place.path("b")).expect("copied");
        assert!(place.cache.get("b").is_none());
        fs::copy(place.path("a"), stranger.path("a")).expect("copied");
        assert!(stranger.cache.get("a").is_none());
        let again = Cache::open(&place.folder).expect("the same cache");
        assert!(again.get("a").is_some());
    }

    #[test]
    fn a_folder_or_key_that_others_can_reach_is_not_used() {
        let place = Place::new();
        let key = place.folder.join(KEY_FILE);
        assert_eq!((place.mode(KEY_FILE), place.mode("")), (0o600, 0o700));
        allow(&key, 0o644);
        assert!(Cache::open(&place.folder).is_err());
        allow(&key, 0o600);
        allow(&place.folder, 0o770);
        assert!(Cache::open(&place.folder).is_err());
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let (place, elsewhere) = (Place::new(), Place::new());
        place.cache.put("a", b"native code").expect("written");
        let outside = elsewhere.folder.join("outside");
        fs::rename(place.path("a"), &outside).expect("moved");
        symlink(&outside, place.path("a")).expect("a link");
        assert!(place.cache.get("a").is_none());
        // A link in the place of what is written next is replaced, not followed.
        let before = fs::read(&outside).expect("a file");
        place.cache.put("a", b"other code").expect("written");
        assert!(place.cache.get("a").is_some());
        assert_eq!(fs::read(&outside).expect("a file"), before);
    }
}
