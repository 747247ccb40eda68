//! `plugins.lock`: which plugins a folder uses, pinned by digest, with what each of them may do. Commands of
//! `host plugin` write it; a run only reads it, and takes nothing that is not in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::file;
use super::name::{Digest, PluginId, shown};
use crate::error::Failure;

/// Name of the file.
pub const FILE_NAME: &str = "plugins.lock";
/// The version that this program reads and writes.
const VERSION: i64 = 1;
/// A longer file is refused.
const MAX_LENGTH: u64 = 4 << 20;

/// One plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Namespace and name.
    pub id: PluginId,
    /// Its version, for readers; the digests decide.
    pub version: String,
    /// Where all versions lie: `oci://...`, or `file:NAME`. Part of the identity: no other place is ever asked.
    pub source: String,
    /// Digest of the OCI manifest; absent for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Digest of the component.
    pub wasm: Digest,
    /// Minor version of the plugin interface.
    pub api: String,
    /// Digest of what it asks for: a change stops an update.
    pub requests: Digest,
    /// What it may do: capabilities by their texts.
    #[serde(default)]
    pub grants: Vec<String>,
    /// Who signed it.
    pub signer: Signer,
    /// Day on which it was added, `YYYY-MM-DD`.
    pub resolved: String,
}

/// Who signed a plugin, and by which rule that was enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Signer {
    /// Nobody: a file of the user's own, or `--allow-unsigned`.
    None,
    /// An ed25519 key in minisign's form.
    Key {
        /// The public key.
        id: String,
        /// Rule of `trust.toml`, or `--key`.
        policy: String,
    },
}

impl Signer {
    /// The key, if there is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Key { id, .. } => Some(id),
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// In the order of their names.
    plugins: Vec<Locked>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: i64,
    #[serde(default, rename = "plugin", skip_serializing_if = "Vec::is_empty")]
    plugins: Vec<Locked>,
}

impl Lock {
    /// Reads `path`; no such file is an empty lock.
    pub fn read(path: &Path) -> Result<Self> {
        let Some(bytes) = file::read_if_present(path, MAX_LENGTH)? else {
            return Ok(Self::default());
        };
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).with_context(|| {
            Failure::data(format!("{} cannot be used", path.display())).hint(
                "it is written by `host plugin add`, `update`, `grant`, `revoke` and `remove`; take an earlier version of \
                 the file, or remove it and add its plugins again",
            )
        })
    }

    fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse().map_err(told)?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(VERSION) => {}
            Some(other) => bail!("it has version {other}; this program knows version {VERSION}"),
            None => bail!("it has no version"),
        }
        let written: Written = toml::from_str(text).map_err(told)?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = written
            .plugins
            .iter()
            .find(|plugin| !seen.insert(&plugin.id))
        {
            bail!("it holds {} twice", twice.id);
        }
        Ok(Self {
            plugins: written.plugins,
        })
    }

    /// Reads `path`, lets `change` change it, and writes it, while no other process does the same. What `change`
    /// refuses leaves the file as it was.
    pub fn change<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let _held = file::exclusive(path)?;
        let before = Self::read(path)?;
        let mut lock = before.clone();
        let result = change(&mut lock)?;
        if lock != before {
            file::write(path, lock.text()?.as_bytes(), false)?;
        }
        Ok(result)
    }

    /// As it is written.
    fn text(&self) -> Result<String> {
        let mut plugins = self.plugins.clone();
        plugins.sort_by(|a, b| a.id.cmp(&b.id));
        let written = Written {
            version: VERSION,
            plugins,
        };
        let text = toml::to_string(&written).context("the lock cannot be written as TOML")?;
        Ok(format!(
            "# Written by `host plugin`: plugins by digest, and what each may do. Keep it with the run files.\n{text}"
        ))
    }

    /// All plugins.
    pub fn plugins(&self) -> &[Locked] {
        &self.plugins
    }

    /// One of them.
    pub fn get(&self, id: &PluginId) -> Option<&Locked> {
        self.plugins.iter().find(|plugin| plugin.id == *id)
    }

    /// One of them, to change it.
    pub fn get_mut(&mut self, id: &PluginId) -> Option<&mut Locked> {
        self.plugins.iter_mut().find(|plugin| plugin.id == *id)
    }

    /// Adds a plugin or replaces it.
    pub fn put(&mut self, locked: Locked) {
        match self.get_mut(&locked.id) {
            Some(present) => *present = locked,
            None => self.plugins.push(locked),
        }
    }

    /// Removes a plugin; what it was.
    pub fn remove(&mut self, id: &PluginId) -> Option<Locked> {
        let position = self.plugins.iter().position(|plugin| plugin.id == *id)?;
        Some(self.plugins.remove(position))
    }
}

/// The first of these folders whose lock has the plugin: the lock's path and the entry.
pub fn find(folders: &[PathBuf], id: &PluginId) -> Result<Option<(PathBuf, Locked)>> {
    for folder in folders {
        let path = folder.join(FILE_NAME);
        if let Some(locked) = Lock::read(&path)?.get(id) {
            return Ok(Some((path, locked.clone())));
        }
    }
    Ok(None)
}

/// The message of a TOML error with its line; the excerpt could hold anything.
fn told(error: toml::de::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", shown(error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> Locked {
        Locked {
            id: id.parse().expect("a name"),
            version: "1.0.0".to_owned(),
            source: "oci://example.org/acme/stop".to_owned(),
            manifest: Some(Digest::of(b"manifest")),
            wasm: Digest::of(b"wasm"),
            api: "0.1".to_owned(),
            requests: Digest::of(b""),
            grants: vec!["net:https://api.example.org POST".to_owned()],
            signer: Signer::Key {
                id: "RWQf".to_owned(),
                policy: "acme/*".to_owned(),
            },
            resolved: "2026-11-24".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut lock = Lock::default();
        let mut file = entry("b/two");
        (file.manifest, file.signer, file.grants) = (None, Signer::None, Vec::new());
        lock.put(file);
        lock.put(entry("a/one"));
        let text = lock.text().expect("text");
        let read = Lock::parse(&text).expect("read");
        assert_eq!(read.text().expect("text"), text);
        assert_eq!(
            read.get(&"a/one".parse().expect("a name")),
            Some(&entry("a/one"))
        );
        assert_eq!(read.plugins().len(), 2);
    }

    #[test]
    fn a_lock_edited_by_hand_is_refused_where_it_is_wrong() {
        let mut lock = Lock::default();
        lock.put(entry("a/one"));
        let text = lock.text().expect("text");
        let twice = text.split_once("[[plugin]]").expect("a plugin").1;
        for (changed, error) in [
            (
                text.replace("version = 1\n", "version = 2\n"),
                "it has version 2",
            ),
            (text.replace("version = 1\n", ""), "it has no version"),
            (
                text.replace("a/one", "../../etc/passwd"),
                "is not the name of a plugin",
            ),
            (text.replace("sha256:", "md5:"), "is not a SHA-256 digest"),
            (text.replace("api =", "apy ="), "unknown field `apy`"),
            (
                text.replace("kind = \"key\"", "kind = \"friend\""),
                "unknown variant `friend`",
            ),
            (format!("{text}[[plugin]]{twice}"), "it holds a/one twice"),
            ("version = ".to_owned(), ""),
        ] {
            let refused = Lock::parse(&changed).expect_err(error).to_string();
            assert!(refused.contains(error), "{refused}");
        }
    }

    #[test]
    fn a_refused_change_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        Lock::change(&path, |lock| {
            lock.put(entry("a/one"));
            Ok(())
        })
        .expect("written");
        let before = std::fs::read(&path).expect("read");
        let refused = Lock::change(&path, |lock| -> Result<()> {
            lock.remove(&"a/one".parse().expect("a name"));
            bail!("no")
        });
        assert!(refused.is_err());
        assert_eq!(std::fs::read(&path).expect("read"), before);
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn changes_at_the_same_time_are_all_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let add = |lock: &mut Lock| {
                        lock.put(entry(&format!("a/p{number}")));
                        Ok(())
                    };
                    Lock::change(path, add).expect("written");
                });
            }
        });
        assert_eq!(Lock::read(&path).expect("read").plugins().len(), 8);
    }
}
