//! Where a command of `host plugin` works: its lock file, the store, the user's rules, and the way to registries.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;

use crate::config::surroundings::{Surroundings, date, variable};
use crate::error::{Failure, Kind};
use crate::registry::credentials::{self, Secret};
use crate::registry::distribution::Repository;
use crate::registry::http::Client;
use crate::registry::lock::{FILE_NAME, Lock, Locked};
use crate::registry::name::{PluginId, Reference};
use crate::registry::store::Store;
use crate::registry::trust::Trust;

/// The surroundings of one command.
pub(super) struct Place {
    /// The lock file; it need not exist.
    pub lock: PathBuf,
    /// Components by digest.
    pub store: Store,
    /// Folder of the user's rules.
    pub settings: Option<PathBuf>,
    /// Folder of what is remembered of indexes.
    pub indexes: PathBuf,
    /// Docker's folder.
    pub docker: Option<PathBuf>,
    /// Results as JSON.
    pub json: bool,
    /// Seconds since 1970.
    pub now: u64,
    client: Client,
    offline: bool,
}

impl Place {
    pub(super) fn of(matches: &ArgMatches) -> Result<Self> {
        let surroundings = Surroundings::read()?;
        let settings = surroundings.plugin_settings();
        let homeless = || {
            Failure::usage("there is no home folder for the store of plugins")
                .hint("set HOME, or XDG_DATA_HOME and XDG_CONFIG_HOME")
        };
        let data = surroundings.data.as_ref().ok_or_else(homeless)?;
        let named = matches.get_one::<PathBuf>("lock-file");
        let lock = match (named, matches.get_flag("global")) {
            (Some(path), false) => surroundings.absolute(path),
            (Some(_), true) => bail!(Failure::usage(
                "--global and --lock-file exclude each other"
            )),
            (None, true) => settings.as_ref().ok_or_else(homeless)?.join(FILE_NAME),
            (None, false) => surroundings.current_dir.join(FILE_NAME),
        };
        let docker = env::var_os("DOCKER_CONFIG")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from)
            .or_else(|| Some(surroundings.home.as_ref()?.join(".docker")));
        Ok(Self {
            lock,
            store: surroundings.plugin_store().ok_or_else(homeless)?,
            settings,
            indexes: data.join("host").join("indexes"),
            docker,
            json: matches.get_flag("json"),
            now: surroundings.now,
            client: Client::new(matches.get_flag("plain-http")),
            offline: matches.get_flag("offline"),
        })
    }

    /// The user's rules.
    pub(super) fn trust(&self) -> Result<Trust> {
        Trust::read(self.settings.as_deref())
    }

    /// The way to servers; an error without a network.
    pub(super) fn client(&self) -> Result<&Client> {
        match self.offline {
            false => Ok(&self.client),
            true => bail!(
                Failure::new(Kind::Io, "--offline: no registry is asked")
                    .hint("leave it out once, so that what is missing comes into the store")
            ),
        }
    }

    /// The way to servers, if there is to be one.
    pub(super) fn client_if_online(&self) -> Option<&Client> {
        (!self.offline).then_some(&self.client)
    }

    /// A repository with the user's credentials for its registry.
    pub(super) fn repository(&self, place: &Reference) -> Result<Repository<'_>> {
        let client = self.client()?;
        let credentials = credentials::find(self.docker.as_deref(), &place.registry)?;
        Repository::new(client, place, credentials)
    }

    /// A plugin of the lock file, or an error that says where it was looked for.
    pub(super) fn locked(&self, lock: &Lock, id: &PluginId) -> Result<Locked> {
        lock.get(id).cloned().ok_or_else(|| self.unknown(lock, id))
    }

    pub(super) fn unknown(&self, lock: &Lock, id: &PluginId) -> anyhow::Error {
        let known: Vec<String> = lock
            .plugins()
            .iter()
            .map(|plugin| plugin.id.to_string())
            .collect();
        let text = format!("{id} is not in {}", self.lock.display());
        let hint = match known.is_empty() {
            true => "it holds no plugin; --global and --lock-file name other lock files".to_owned(),
            false => format!(
                "it holds {}; --global and --lock-file name other lock files",
                known.join(", ")
            ),
        };
        Failure::usage(text).hint(hint).into()
    }

    /// Today.
    pub(super) fn today(&self) -> String {
        date(self.now)
    }
}

/// The name of a plugin.
pub(super) fn plugin_id(text: &str) -> Result<PluginId> {
    text.parse()
        .map_err(|reason: String| Failure::usage(reason).into())
}

/// A place in a registry.
pub(super) fn reference(text: &str) -> Result<Reference> {
    text.parse()
        .map_err(|reason: String| Failure::usage(reason).into())
}

/// The password of a secret key.
pub(super) fn key_password() -> Option<Secret> {
    variable("HOST_KEY_PASSWORD").map(Secret::new)
}

/// A path as it is shown and kept in lock files: its last part.
pub(super) fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().context("the path names no file")?;
    Ok(name.to_string_lossy().into_owned())
}
