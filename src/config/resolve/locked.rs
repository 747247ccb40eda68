//! Plugins that are named instead of given as files: the lock file says which component that is and what it may do, the
//! store has it. Nothing is resolved or downloaded here.

use std::path::{Path, PathBuf};

use super::super::run::Pinned;
use super::super::setting::quoted;
use super::super::surroundings::Surroundings;
use crate::error::told;
use crate::registry::lock::{self, Locked};
use crate::registry::name::{PluginId, SCHEME};
use crate::registry::store::{Store, VENDOR};
use crate::registry::trust::Trust;

/// A plugin of the lock file.
pub(super) struct Found {
    pub path: PathBuf,
    pub name: String,
    pub grants: Vec<String>,
    pub pinned: Pinned,
}

/// Whether the word of `--plugin` names a plugin instead of a file. A file of that name wins, as it always did.
pub(super) fn is_name(written: &Path, path: &Path) -> bool {
    let text = written.to_string_lossy();
    let (name, _) = split(&text);
    text.starts_with(SCHEME)
        || (name.parse::<PluginId>().is_ok() && !name.ends_with(".wasm") && !path.is_file())
}

/// `namespace/name` and what follows `@`.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('@') {
        Some((name, requirement)) => (name, Some(requirement)),
        None => (text, None),
    }
}

/// Looks a plugin up in the locks of `folders`, the first that has it, and in the store. An error says what to do.
pub(super) fn find(
    written: &str,
    folders: &[PathBuf],
    surroundings: &Surroundings,
) -> Result<Found, String> {
    if written.starts_with(SCHEME) {
        return Err(format!(
            "{} is in a registry, and a run downloads nothing; add it with `host plugin add {written}`, then name it as \
             namespace/name",
            quoted(written)
        ));
    }
    let (name, requirement) = split(written);
    let id: PluginId = name.parse()?;
    let found = lock::find(folders, &id).map_err(|error| told(&error))?;
    let Some((lock, locked)) = found else {
        let searched: Vec<String> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        return Err(format!(
            "{} is in no {} of {}; add it with `host plugin add`, from a file or a registry",
            quoted(name),
            lock::FILE_NAME,
            searched.join(", ")
        ));
    };
    if let Some(requirement) = requirement {
        check_version(&locked, requirement)?;
    }
    let trust =
        Trust::read(surroundings.plugin_settings().as_deref()).map_err(|error| told(&error))?;
    trust
        .refuse_revoked(&id, &locked.wasm)
        .map_err(|error| told(&error))?;
    let path = component(&lock, &locked, surroundings).ok_or_else(|| {
        format!(
            "{} is locked, but its component {} is not in the store of this machine; fetch it with `host plugin lock`{}",
            quoted(name),
            locked.wasm,
            match locked.source.starts_with(SCHEME) {
                true => String::new(),
                false => format!(", or add its file ({}) again", locked.source),
            }
        )
    })?;
    Ok(Found {
        path,
        name: id.name().to_owned(),
        grants: locked.grants,
        pinned: Pinned {
            id,
            wasm: locked.wasm,
            requests: locked.requests,
            lock,
        },
    })
}

/// The component's file: beside the lock if it was vendored, else in the user's store.
fn component(lock: &Path, locked: &Locked, surroundings: &Surroundings) -> Option<PathBuf> {
    let beside = Store::new(lock.with_file_name(VENDOR));
    let stores = [Some(beside), surroundings.plugin_store()];
    let holder = stores
        .into_iter()
        .flatten()
        .find(|store| store.has(&locked.wasm))?;
    Some(holder.path(&locked.wasm))
}

#[cfg(feature = "plugin")]
fn check_version(locked: &Locked, requirement: &str) -> Result<(), String> {
    let wanted = semver::VersionReq::parse(requirement).map_err(|error| {
        format!(
            "{} is not a requirement on a version: {error}; write {}@^1.2",
            quoted(requirement),
            locked.id
        )
    })?;
    let fits =
        semver::Version::parse(&locked.version).is_ok_and(|version| wanted.matches(&version));
    match fits {
        true => Ok(()),
        false => Err(format!(
            "{} is locked at version {}, which is not {requirement}; `host plugin update {}` looks for another",
            quoted(&locked.id.to_string()),
            locked.version,
            locked.id
        )),
    }
}

#[cfg(not(feature = "plugin"))]
fn check_version(_: &Locked, _: &str) -> Result<(), String> {
    Err("this build of host has no plugins (it was made without the feature `plugin`)".to_owned())
}
