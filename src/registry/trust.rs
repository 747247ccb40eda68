//! `trust.toml`: whose signatures a user accepts for which plugins, which index to search, and what must not run any
//! more. It belongs to the user alone: no folder of a project is looked at.
//!
//! ```toml
//! [[allow]]
//! ids = "acme/*"
//! keys = ["RWQf..."]
//!
//! [[index]]
//! url = "https://plugins.example.org/index.json"
//! keys = ["RWQf..."]
//!
//! [[revoke]]
//! wasm = "sha256:..."
//! reason = "leaks what it sees"
//!
//! [default]
//! unsigned = "deny"
//! ```

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

use super::file;
use super::name::{Digest, PluginId, shown};
use crate::error::{Failure, Kind};

/// Name of the file.
pub const FILE_NAME: &str = "trust.toml";
/// A longer file is refused.
const MAX_LENGTH: u64 = 1 << 20;

/// The user's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Whose signatures are enough for whom.
    #[serde(default)]
    pub allow: Vec<Allow>,
    /// Indexes to search.
    #[serde(default)]
    pub index: Vec<IndexPlace>,
    /// What must not run.
    #[serde(default)]
    pub revoke: Vec<Revoked>,
    #[serde(default)]
    default: Otherwise,
}

/// Keys that are enough for some plugins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// A name, `namespace/*` or `*`.
    pub ids: String,
    /// Public keys.
    pub keys: Vec<String>,
}

/// An index and who may sign it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexPlace {
    /// `https://...`, or a file.
    pub url: String,
    /// Public keys.
    pub keys: Vec<String>,
}

/// A component that must not run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Its digest.
    pub wasm: Digest,
    /// Why.
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Otherwise {
    #[serde(default)]
    unsigned: Unsigned,
}

/// What happens to a plugin of a registry that nobody known has signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unsigned {
    /// It is refused.
    #[default]
    Deny,
    /// It is taken; the lock says that nobody signed it.
    Allow,
}

impl Trust {
    /// Reads the file in this folder; without one nobody is trusted.
    pub fn read(folder: Option<&Path>) -> Result<Self> {
        let Some(path) = folder.map(|folder| folder.join(FILE_NAME)) else {
            return Ok(Self::default());
        };
        let Some(bytes) = file::read_if_present(&path, MAX_LENGTH)? else {
            return Ok(Self::default());
        };
        toml::from_slice(&bytes).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                1 + bytes[..span.start.min(bytes.len())]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
            });
            let text = format!("{}:{line}: {}", path.display(), shown(error.message()));
            Failure::data(text)
                .hint("README.md shows such a file under `Plugins: find, check, allow`")
                .into()
        })
    }

    /// The rules for a plugin, the most exact first: pattern and keys.
    pub fn rules(&self, id: &PluginId) -> Vec<&Allow> {
        let mut rules: Vec<&Allow> = self
            .allow
            .iter()
            .filter(|rule| id.matches(&rule.ids))
            .collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.ids.len()));
        rules
    }

    /// What happens to plugins that nobody known has signed.
    pub fn unsigned(&self) -> Unsigned {
        self.default.unsigned
    }

    /// An error if this component must not run.
    pub fn refuse_revoked(&self, id: &PluginId, wasm: &Digest) -> Result<()> {
        match self.revoke.iter().find(|revoked| revoked.wasm == *wasm) {
            None => Ok(()),
            Some(revoked) => {
                let text = format!("{id} ({wasm}) was revoked: {}", shown(&revoked.reason));
                Err(Failure::new(Kind::Policy, text)
                    .hint(format!(
                        "update it with `host plugin update {id}`, or remove it"
                    ))
                    .into())
            }
        }
    }

    /// The entry of an index in this file.
    pub fn index_places(&self) -> Result<&[IndexPlace]> {
        if self.index.is_empty() {
            let text = format!("{FILE_NAME} names no index");
            return Err(Failure::usage(text)
                .hint("add [[index]] with `url` and `keys` to it, or give --index and --key")
                .into());
        }
        Ok(&self.index)
    }
}

/// Where a user's `trust.toml` lies, for messages.
pub fn shown_path(folder: Option<&Path>) -> String {
    folder.map_or_else(
        || FILE_NAME.to_owned(),
        |folder| folder.join(FILE_NAME).display().to_string(),
    )
}

/// The TOML lines that trust a key, for hints.
pub fn allow_lines(id: &PluginId, key: &str) -> String {
    format!("[[allow]] ids = \"{id}\" keys = [\"{key}\"]")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn read(text: &str) -> Result<Trust> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE_NAME), text).context("written")?;
        Trust::read(Some(folder.path()))
    }

    #[test]
    fn the_most_exact_rule_comes_first() {
        let trust = read(
            "[[allow]]\nids = \"*\"\nkeys = [\"a\"]\n[[allow]]\nids = \"acme/stop\"\nkeys = [\"b\"]\n\
             [[allow]]\nids = \"acme/*\"\nkeys = []\n[default]\nunsigned = \"allow\"",
        )
        .expect("valid");
        let of = |id: &str| -> Vec<String> {
            let id = id.parse().expect("a name");
            trust
                .rules(&id)
                .iter()
                .map(|rule| rule.ids.clone())
                .collect()
        };
        assert_eq!(of("acme/stop"), ["acme/stop", "acme/*", "*"]);
        assert_eq!(of("other/stop"), ["*"]);
        assert_eq!(trust.unsigned(), Unsigned::Allow);
        assert_eq!(Trust::read(None).expect("none").unsigned(), Unsigned::Deny);
    }

    #[test]
    fn what_it_does_not_know_is_refused_with_its_line() {
        for (text, error) in [
            (
                "[default]\nunsigned = \"maybe\"",
                "trust.toml:2: unknown variant `maybe`",
            ),
            (
                "\n[[allow]]\nids = \"*\"\nkey = \"a\"",
                "unknown field `key`",
            ),
            (
                "[[allow]]\nids = \"*\"\nkeyless = {}",
                "unknown field `keyless`",
            ),
            (
                "[[revoke]]\nwasm = \"md5:0\"\nreason = \"x\"",
                "is not a SHA-256 digest",
            ),
        ] {
            let refused = read(text).expect_err(error).to_string();
            assert!(refused.contains(error), "{refused}");
        }
    }
}
