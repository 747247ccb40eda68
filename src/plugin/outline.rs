//! What installing and publishing need to know of a component: who it says it is, what it asks for, what it offers.
//! Nothing is compiled or run.

use std::path::Path;

use anyhow::{Result, bail};

use super::capability::Capability;
use super::inspect::{examine, read};
use super::manifest::Manifest;
use super::requests::{Request, Requests};
use super::text::printable;
use crate::error::Failure;
use crate::registry::name::{Digest, PluginId};

/// A component that this program could call.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Namespace and name.
    pub id: PluginId,
    /// Its manifest.
    pub manifest: Manifest,
    /// What needs a grant.
    pub requests: Vec<Request>,
    /// The file's digest.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// Interfaces of `trainer:plugin` that it exports.
    pub hooks: Vec<String>,
    /// All imports.
    pub imports: Vec<String>,
    /// All exports.
    pub exports: Vec<String>,
}

impl Outline {
    /// Of a file and its bytes.
    pub fn of_file(path: &Path) -> Result<(Self, Vec<u8>)> {
        let bytes = read(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok((Self::of(&name, &bytes)?, bytes))
    }

    /// `name` is how messages call it.
    pub fn of(name: &str, bytes: &[u8]) -> Result<Self> {
        let anatomy = examine(name, bytes)?;
        anatomy.admit(name)?;
        let Some(manifest) = anatomy.read_manifest(name)? else {
            bail!(
                Failure::data(format!(
                    "plugin `{name}`: it has no manifest, so it has no name and no version"
                ))
                .hint("embed a manifest as the custom section trainer:manifest; the SDK does it")
            );
        };
        manifest.check_api(name)?;
        let id = manifest.id.parse().map_err(|reason| {
            Failure::data(format!(
                "plugin `{name}`: its manifest is not valid: {reason}"
            ))
        })?;
        if semver::Version::parse(&manifest.version).is_err() {
            bail!(Failure::data(format!(
                "plugin `{name}`: its manifest is not valid: `{}` is not a semantic version such as 1.2.3",
                manifest.version
            )));
        }
        Ok(Self {
            id,
            requests: manifest.requests.list()?,
            manifest,
            digest: Digest::of(bytes),
            size: anatomy.size,
            hooks: anatomy.hooks().into_iter().map(str::to_owned).collect(),
            imports: anatomy.imports,
            exports: anatomy.exports,
        })
    }

    /// Digest of what it asks for.
    pub fn requests_digest(&self) -> Result<Digest> {
        requests_digest(&self.manifest.requests)
    }

    /// What it asks for, sorted: capabilities, and parts of the control flow as `control:...`.
    pub fn request_texts(&self) -> Result<Vec<String>> {
        self.manifest.requests.texts()
    }

    /// The capability that `word` grants: a kind of request (`net`), or a text that a request covers.
    pub fn grantable(&self, word: &str) -> Result<Vec<Capability>> {
        let word = word.trim();
        let of_kind = self
            .requests
            .iter()
            .filter(|request| request.capability.kind() == word);
        let of_kind: Vec<Capability> = of_kind.map(|request| request.capability.clone()).collect();
        if !of_kind.is_empty() {
            return Ok(of_kind);
        }
        let asked: Vec<String> = self
            .requests
            .iter()
            .map(|request| format!("`{}`", request.capability))
            .collect();
        let hint = match asked.is_empty() {
            true => "it asks for nothing".to_owned(),
            false => format!("it asks for {}", asked.join(", ")),
        };
        let kinds = ["artifact", "env", "read", "write", "net", "secret"];
        let parsed = match kinds.contains(&word) {
            true => None,
            false => Some(word.parse::<Capability>()?),
        };
        match parsed {
            Some(granted)
                if self
                    .requests
                    .iter()
                    .any(|request| granted.is_within(&request.capability)) =>
            {
                Ok(vec![granted])
            }
            _ => bail!(
                Failure::usage(format!(
                    "{} does not ask for `{}`",
                    self.id,
                    printable(word, 128)
                ))
                .hint(hint)
            ),
        }
    }
}

/// Digest of what a manifest asks for: of the sorted texts, one a line. Reasons do not count.
pub(super) fn requests_digest(requests: &Requests) -> Result<Digest> {
    let mut text = requests.texts()?.join("\n");
    text.push('\n');
    Ok(Digest::of(text.as_bytes()))
}
