//! The index of plugins: a signed file that any web server can hold, because registries cannot be searched. Its number
//! only rises and it expires, so that an old or a second one shows.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use url::Url;

use super::file;
use super::http::{Client, Request};
use super::name::{Digest, PluginId, shown};
use super::signature::{self, Key};
use crate::error::{Failure, Kind};

/// The only format that is known.
const FORMAT: &str = "host-plugin-index/1";
/// A longer index is refused.
const MAX_LENGTH: u64 = 64 << 20;
/// Days after which an index is too old.
const LIFETIME_DAYS: u64 = 90;

/// The index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: String,
    /// Rises with each change.
    pub serial: u64,
    /// Seconds since 1970 after which it is not used.
    pub expires: u64,
    /// The plugins.
    pub plugins: Vec<Entry>,
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Namespace and name.
    pub id: PluginId,
    /// One sentence.
    pub summary: String,
    /// SPDX expression.
    pub license: String,
    /// Versions, the newest last.
    pub versions: Vec<Version>,
}

/// A version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Its version.
    pub version: String,
    /// Where it lies.
    pub source: String,
    /// Digest of the OCI manifest.
    pub manifest: Digest,
    /// Digest of the component.
    pub wasm: Digest,
    /// Minor version of the plugin interface.
    pub api: String,
    /// Bytes of the component.
    pub size: u64,
    /// Hooks it has.
    pub hooks: Vec<String>,
    /// Capabilities it asks for.
    pub requests: Vec<String>,
    /// Public key of who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Not to be chosen any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yanked: bool,
    /// Must not be run any more, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

impl Default for Index {
    /// An empty one.
    fn default() -> Self {
        Self {
            format: FORMAT.to_owned(),
            serial: 0,
            expires: 0,
            plugins: Vec::new(),
        }
    }
}

impl Index {
    /// Reads the author's own file; none is an empty index.
    pub fn read_own(path: &Path) -> Result<Self> {
        match file::read_if_present(path, MAX_LENGTH)? {
            Some(bytes) => Self::parse(&bytes),
            None => Ok(Self::default()),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let index: Self = serde_json::from_slice(bytes).map_err(|error| {
            Failure::data(format!(
                "the index cannot be read: {}",
                shown(&error.to_string())
            ))
        })?;
        if index.format != FORMAT {
            bail!(Failure::data(format!(
                "the index has the format `{}`; this program knows `{FORMAT}`",
                shown(&index.format)
            )));
        }
        Ok(index)
    }

    /// Adds a version and renews number and expiry.
    pub fn publish(
        &mut self,
        id: &PluginId,
        summary: &str,
        license: &str,
        version: Version,
        now: u64,
    ) {
        let position = self.plugins.iter().position(|entry| entry.id == *id);
        let position = position.unwrap_or_else(|| {
            self.plugins.push(Entry {
                id: id.clone(),
                summary: String::new(),
                license: String::new(),
                versions: Vec::new(),
            });
            self.plugins.len() - 1
        });
        let entry = &mut self.plugins[position];
        (entry.summary, entry.license) = (summary.to_owned(), license.to_owned());
        entry
            .versions
            .retain(|other| other.version != version.version);
        entry.versions.push(version);
        self.plugins.sort_by(|a, b| a.id.cmp(&b.id));
        self.serial += 1;
        self.expires = now + LIFETIME_DAYS * 86_400;
    }

    /// Writes it, and its signature beside it.
    pub fn write(&self, path: &Path, signer: &signature::Signer) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("an index as JSON")?;
        text.push('\n');
        let comment = format!("index {} of plugins", self.serial);
        let signature = signer.sign(text.as_bytes(), &comment)?;
        file::write(path, text.as_bytes(), false)?;
        let beside = format!("{}.minisig", path.display());
        file::write(Path::new(&beside), signature.as_bytes(), false)
    }

    /// One plugin.
    pub fn get(&self, id: &PluginId) -> Option<&Entry> {
        self.plugins.iter().find(|entry| entry.id == *id)
    }
}

/// Where indexes come from and where the last ones are kept.
#[derive(Debug)]
pub struct Reader<'a> {
    /// `None`: only what is kept.
    pub client: Option<&'a Client>,
    /// Folder of what is kept. Not a cache: it remembers the highest number that was seen.
    pub kept: &'a Path,
    /// Seconds since 1970.
    pub now: u64,
}

impl Reader<'_> {
    /// The index at `url` (a URL or a file), signed by one of `keys`, not older than the last one and not expired.
    pub fn read(&self, url: &str, keys: &[Key]) -> Result<Index> {
        let kept = self
            .kept
            .join(format!("{}.json", Digest::of(url.as_bytes()).hex()));
        let last = file::read_if_present(&kept, MAX_LENGTH)?;
        let subject = || format!("the index {}", shown(url));
        let index = match self.fetch(url).with_context(subject)? {
            Some((bytes, signature)) => {
                self.admit(&bytes, &signature, keys, last.as_deref())
                    .with_context(subject)
                    .inspect(|_| {
                        // What cannot be kept is only slower and less strict the next time, and that is told.
                        if let Err(error) = file::write(&kept, &bytes, false) {
                            tracing::warn!("{error:#}: the number of the index is not remembered");
                        }
                    })?
            }
            None => Index::parse(&last.ok_or_else(|| {
                Failure::new(
                    Kind::Io,
                    format!("the index {} was never fetched", shown(url)),
                )
                .hint("leave out --offline once")
            })?)?,
        };
        if index.expires < self.now {
            let days = (self.now - index.expires) / 86_400;
            let text = format!("the index {} expired {days} days ago", shown(url));
            return Err(Failure::data(text)
                .hint("its author has to renew it; an old one could hide what was revoked since")
                .into());
        }
        Ok(index)
    }

    fn admit(
        &self,
        bytes: &[u8],
        signature: &str,
        keys: &[Key],
        last: Option<&[u8]>,
    ) -> Result<Index> {
        let valid = keys
            .iter()
            .any(|key| signature::check(signature, bytes, key).is_ok());
        if !valid {
            bail!(Failure::new(Kind::Policy, "no trusted key has signed it"));
        }
        let index = Index::parse(bytes)?;
        let Some(last) = last else {
            return Ok(index);
        };
        let known = Index::parse(last)?;
        if index.serial < known.serial {
            bail!(Failure::data(format!(
                "an older one was served: its number is {}, {} was seen before",
                index.serial, known.serial
            )));
        }
        if index.serial == known.serial && bytes != last {
            bail!(Failure::data(format!(
                "there are two with the number {}: {} and, seen before, {}",
                index.serial,
                Digest::of(bytes),
                Digest::of(last)
            )));
        }
        Ok(index)
    }

    /// The bytes and their signature; `None` without a network.
    fn fetch(&self, url: &str) -> Result<Option<(Vec<u8>, String)>> {
        let beside = format!("{url}.minisig");
        let (bytes, signature) = if url.contains("://") {
            let Some(client) = self.client else {
                return Ok(None);
            };
            let address = |text: &str| {
                Url::parse(text)
                    .with_context(|| Failure::usage(format!("`{}` is no URL", shown(text))))
            };
            let get = |text: &str, limit| -> Result<Vec<u8>> {
                let response = client.send(&Request::get(address(text)?))?;
                if response.status.as_u16() != 200 {
                    bail!(Failure::new(
                        Kind::Io,
                        format!("{} answers {}", shown(text), response.status)
                    ));
                }
                response.bytes(limit)
            };
            (get(url, MAX_LENGTH)?, get(&beside, signature::MAX_LENGTH)?)
        } else {
            (
                file::read(Path::new(url), MAX_LENGTH)?,
                file::read(Path::new(&beside), signature::MAX_LENGTH)?,
            )
        };
        Ok(Some((
            bytes,
            String::from_utf8_lossy(&signature).into_owned(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_a_second_a_foreign_and_an_expired_index_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = folder.path().join("key");
        let (secret, _, key) = signature::generate(None).expect("a key");
        std::fs::write(&key_file, secret).expect("written");
        let signer = signature::Signer::read(&key_file, None).expect("a key");
        let path = folder.path().join("index.json");
        let url = path.display().to_string();
        let reader = |now| Reader {
            client: None,
            kept: folder.path(),
            now,
        };
        let write = |serial, plugins: Vec<Entry>| {
            let index = Index {
                serial,
                expires: 1000,
                plugins,
                ..Index::default()
            };
            index.write(&path, &signer).expect("written");
        };
        let keys = [key];
        write(2, Vec::new());
        assert_eq!(reader(10).read(&url, &keys).expect("first").serial, 2);
        write(3, Vec::new());
        assert_eq!(reader(10).read(&url, &keys).expect("newer").serial, 3);
        write(2, Vec::new());
        let told = |result: Result<Index>| format!("{:#}", result.expect_err("refused"));
        assert!(told(reader(10).read(&url, &keys)).contains("its number is 2, 3 was seen before"));
        let entry = Entry {
            id: "a/b".parse().expect("a name"),
            summary: String::new(),
            license: String::new(),
            versions: Vec::new(),
        };
        write(3, vec![entry]);
        assert!(told(reader(10).read(&url, &keys)).contains("there are two with the number 3"));
        write(4, Vec::new());
        assert!(told(reader(200_000).read(&url, &keys)).contains("expired 2 days ago"));
        let (_, _, other) = signature::generate(None).expect("a key");
        assert!(told(reader(10).read(&url, &[other])).contains("no trusted key has signed it"));
        let text = std::fs::read_to_string(&path).expect("read");
        std::fs::write(&path, text.replace("1000", "9999")).expect("changed");
        assert!(told(reader(10).read(&url, &keys)).contains("no trusted key has signed it"));
    }
}
