//! What one plugin may do in this run: its capabilities, turned into what the host looks at when it acts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::Environment;
use super::capability::{Capability, FOLDERS, setting_of};
use super::manifest::Manifest;
use super::origin::Origin;
use super::requests::{Requests, SecretRequest};
use crate::checkpoint::layout;
use crate::error::{Failure, Kind};

/// Powers beyond computing; none by default.
#[derive(Default)]
pub(super) struct Allowed {
    pub loss: bool,
    pub parameters: bool,
    pub gradients: bool,
    pub tokenizer: bool,
    pub artifact_read: bool,
    pub artifact_upload: bool,
    pub clock: bool,
    pub random: bool,
    /// Environment variables that are set, with their values.
    pub variables: Vec<(String, String)>,
    pub folders: Vec<Folder>,
    pub origins: Vec<Reach>,
    pub secrets: Vec<Secret>,
}

/// A folder as the guest sees it.
#[derive(Debug)]
pub(super) struct Folder {
    pub host: PathBuf,
    /// The path in the guest: `/output`, `/logging_dir`, or `/` and the name of the setting.
    pub guest: String,
    pub write: bool,
}

/// An origin that may be reached.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub origin: Origin,
    /// Empty: all.
    pub methods: Vec<String>,
    /// The user named the host in a setting, instead of the plugin's author in the manifest.
    pub chosen_by_user: bool,
}

/// A secret; never shown, not even by `Debug`.
pub(super) struct Secret {
    pub name: String,
    pub origin: Origin,
    pub header: String,
    pub scheme: String,
    pub value: String,
}

impl std::fmt::Debug for Allowed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Allowed")
            .field("folders", &self.folders)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

impl Allowed {
    /// From capabilities that were admitted; creates folders that are written, refuses those that cannot be opened.
    pub(super) fn new(
        name: &str,
        manifest: Option<&Manifest>,
        capabilities: &[Capability],
        given: &Map<String, Value>,
        environment: &Environment,
    ) -> Result<Self> {
        let mut allowed = Self::default();
        for capability in capabilities {
            match capability {
                Capability::Loss => allowed.loss = true,
                Capability::Parameters => allowed.parameters = true,
                Capability::Gradients => allowed.gradients = true,
                Capability::Tokenizer => allowed.tokenizer = true,
                Capability::ArtifactRead => allowed.artifact_read = true,
                Capability::ArtifactUpload => allowed.artifact_upload = true,
                Capability::Clock => allowed.clock = true,
                Capability::Random => allowed.random = true,
                Capability::Variable(name) => {
                    let value = environment.variable(name);
                    allowed
                        .variables
                        .extend(value.map(|value| (name.clone(), value)));
                }
                // With more than their text, below.
                Capability::Read(_)
                | Capability::Write(_)
                | Capability::Net(..)
                | Capability::Secret(..) => {}
            }
        }
        if let Some(manifest) = manifest {
            allowed.add_places(name, &manifest.requests, given, environment)?;
        }
        Ok(allowed)
    }

    /// Folders, origins and secrets, with what the user's settings stand for.
    fn add_places(
        &mut self,
        name: &str,
        requests: &Requests,
        given: &Map<String, Value>,
        environment: &Environment,
    ) -> Result<()> {
        for (folders, write) in [(&requests.read, false), (&requests.write, true)] {
            for request in folders {
                let folder = folder(name, &request.folder, write, given, environment)?;
                self.folders.extend(folder);
            }
        }
        for request in &requests.net {
            if let Some(origin) = origin(&request.origin, given)? {
                let mut methods = request.methods.clone();
                methods
                    .iter_mut()
                    .for_each(|method| method.make_ascii_uppercase());
                self.origins.push(Reach {
                    origin,
                    methods,
                    chosen_by_user: setting_of(&request.origin).is_some(),
                });
            }
        }
        for request in &requests.secrets {
            if let Some(origin) = origin(&request.origin, given)? {
                let value = environment.variable(&request.name);
                let secret = value.map(|value| Secret::new(request, origin, value));
                self.secrets.extend(secret);
            }
        }
        Ok(())
    }
}

impl Secret {
    fn new(request: &SecretRequest, origin: Origin, value: String) -> Self {
        Self {
            name: request.name.clone(),
            origin,
            header: request.header.to_ascii_lowercase(),
            scheme: request.scheme.clone(),
            value,
        }
    }
}

/// What a request means by an origin; `None` if it names a setting that the user did not give.
fn origin(asked: &str, given: &Map<String, Value>) -> Result<Option<Origin>> {
    let read = match setting_of(asked) {
        None => asked.parse(),
        Some(setting) => match given.get(setting).and_then(Value::as_str) {
            Some(url) => Origin::of_url(url),
            None => return Ok(None),
        },
    };
    let subject = |reason| Failure::usage(format!("`{asked}` is not an origin: {reason}"));
    Ok(Some(read.map_err(subject)?))
}

fn folder(
    plugin: &str,
    asked: &str,
    write: bool,
    given: &Map<String, Value>,
    environment: &Environment,
) -> Result<Option<Folder>> {
    let (host, guest) = match setting_of(asked) {
        Some(setting) => match given.get(setting).and_then(Value::as_str) {
            Some(path) => (PathBuf::from(path), setting),
            None => return Ok(None),
        },
        None if asked == FOLDERS[0] => {
            let own = environment.output_dir.join(layout::PLUGINS).join(plugin);
            (own, asked)
        }
        None => (environment.logging_dir.clone(), asked),
    };
    let subject = || {
        let text = format!(
            "plugin `{plugin}`: the folder {} cannot be opened",
            host.display()
        );
        Failure::new(Kind::Io, text)
    };
    if write {
        std::fs::create_dir_all(&host).with_context(subject)?;
    }
    let metadata = std::fs::metadata(&host).with_context(subject)?;
    if !metadata.is_dir() {
        return Err(subject().hint("give a folder").into());
    }
    let host = absolute(&host)?;
    // Checkpoints, weights and the record of the run, grants among it, are nobody's to change.
    let output_dir = environment.output_dir.canonicalize();
    if write && output_dir.is_ok_and(|output_dir| output_dir.starts_with(&host)) {
        let text = format!(
            "plugin `{plugin}`: `write:{asked}` would give it the whole output folder: {} holds it",
            host.display()
        );
        let hint = "choose another folder, such as --logging_dir OUTPUT_DIR/runs";
        return Err(Failure::new(Kind::Policy, text).hint(hint).into());
    }
    Ok(Some(Folder {
        host,
        guest: format!("/{guest}"),
        write,
    }))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("the path of {} cannot be found", path.display()))
}
