//! What a run has to do with the Hub: where its model and data come from, and what it uploads.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::findings::Place;
use super::super::hub::{
    DatasetFile, Repository, Secret, TOKEN_VARIABLES, is_name, is_repository, is_revision,
};
use super::super::run::{Hub, HubStrategy, Push};
use super::super::setting::{Location, quoted};
use super::Draft;
use super::build::unknown;

const NO_CLIENT: &str =
    "needs the Hub, and this program was built without its client; build it with the feature hub";

impl Draft<'_> {
    /// Deprecated arguments, as the reference replaces them.
    pub(super) fn replace_hub_names(&mut self) {
        let arguments = &mut self.arguments;
        if arguments.push_to_hub_token.is_some() {
            arguments.hub_token = arguments.push_to_hub_token.clone();
            self.notes
                .push("push_to_hub_token is deprecated; use hub_token".to_owned());
        }
        let organization = arguments.push_to_hub_organization.clone();
        let name = match (&arguments.push_to_hub_model_id, &organization) {
            (None, None) => return,
            (Some(name), _) => Some(name.clone()),
            (None, Some(_)) => basename(arguments.output_dir.as_deref()),
        };
        let Some(name) = name else { return };
        let name = match organization {
            Some(organization) => format!("{organization}/{name}"),
            None => name,
        };
        self.notes.push(format!(
            "push_to_hub_model_id and push_to_hub_organization are deprecated; use hub_model_id {name}"
        ));
        arguments.hub_model_id = Some(name);
    }

    pub(super) fn check_hub(&mut self) {
        if self.pushes() {
            self.check_push();
        }
        self.check_access();
    }

    fn check_push(&mut self) {
        match self.repository_to_push() {
            Some(name) if is_name(&name) || is_repository(&name) => {}
            Some(name) => {
                let text = format!(
                    "{} cannot be a repository; give hub_model_id as OWNER/NAME, of letters, digits, -, _ and .",
                    quoted(&name)
                );
                self.contradict(&["hub_model_id", "output_dir"], text);
            }
            None => {}
        }
        if self.surroundings.hub.offline {
            self.wrong(
                "push_to_hub",
                "nothing can be uploaded while HF_HUB_OFFLINE is set; unset it, or leave push_to_hub out",
            );
        } else if self.token().is_none() {
            self.wrong(
                "push_to_hub",
                "needs a token that may write; set HF_TOKEN, or log in with `hf auth login`",
            );
        }
    }

    /// What every use of the Hub needs.
    fn check_access(&mut self) {
        self.check_token();
        let Some(field) = self.hub_user() else { return };
        if !cfg!(feature = "hub") {
            self.wrong(field, NO_CLIENT);
        }
        let hub = &self.surroundings.hub;
        let host = ["http://", "https://"]
            .iter()
            .find_map(|scheme| hub.endpoint.strip_prefix(scheme));
        match host {
            Some(host) if host.contains('@') => self.wrong(
                field,
                "HF_ENDPOINT holds a user name or password; give the token with HF_TOKEN instead",
            ),
            Some("") | None => {
                let text = format!(
                    "HF_ENDPOINT is {}; give an address that begins with https://",
                    quoted(&hub.endpoint)
                );
                self.wrong(field, text);
            }
            Some(_) if hub.cache.is_none() => self.wrong(
                field,
                "there is no home folder for the cache of the Hub; set HF_HUB_CACHE",
            ),
            Some(_) => {}
        }
    }

    fn check_token(&mut self) {
        let Some(token) = self.arguments.hub_token.clone() else {
            return;
        };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.wrong(
                "hub_token",
                "is no token: it holds blanks or other signs; check how it was written",
            );
        }
        let written = ["hub_token", "push_to_hub_token"];
        let on_command_line = |name| self.input.places.get(name) == Some(&Place::CommandLine);
        if written.into_iter().any(on_command_line) {
            self.notes.push(format!(
                "a token on the command line can be seen by others and stays in the history of the shell; {} cannot",
                TOKEN_VARIABLES[0]
            ));
        }
    }

    /// The first argument that needs the Hub.
    fn hub_user(&self) -> Option<&'static str> {
        let arguments = &self.arguments;
        let is_there = |location: &Option<Location>| {
            let location = location.as_ref();
            location.is_some_and(|location| self.on_hub(location).is_some())
        };
        let is_meant = |file: &PathBuf| DatasetFile::is_meant(file);
        let mut validation = arguments.validation_file.iter().map(|file| &file.path);
        let users = [
            ("push_to_hub", self.pushes()),
            ("model", is_there(&arguments.model)),
            ("tokenizer_name", is_there(&arguments.tokenizer_name)),
            ("train_file", arguments.train_file.iter().any(is_meant)),
            ("validation_file", validation.any(is_meant)),
            ("test_file", arguments.test_file.iter().any(is_meant)),
        ];
        let used = users.into_iter().find(|(_, is_used)| *is_used);
        used.map(|(field, _)| field)
    }

    /// The repository that is meant where there is no folder of that name.
    pub(super) fn on_hub<'l>(&self, location: &'l Location) -> Option<&'l str> {
        let name = location.repository.as_deref()?;
        let is_there = || self.absolute(&location.path).symlink_metadata().is_ok();
        (location.is_on_hub || !is_there()).then_some(name)
    }

    /// A repository that stands where a path could; its revision was checked.
    pub(super) fn check_revision(&mut self) {
        let revision = self.arguments.model_revision.clone();
        if !is_revision(&revision) {
            let text = format!(
                "{} is no branch, tag or commit; check how it was written",
                quoted(&revision)
            );
            self.wrong("model_revision", text);
        }
        let model = self.arguments.model.clone();
        let is_local = model.is_some_and(|model| self.on_hub(&model).is_none());
        if self.is_given("model_revision") && is_local {
            let text =
                "is for a model on the Hub, and the model is a local one; leave it out".to_owned();
            self.contradict(&["model_revision", "model"], text);
        }
    }

    fn pushes(&self) -> bool {
        self.arguments.push_to_hub && self.is_training()
    }

    fn token(&self) -> Option<Secret> {
        let own = self.arguments.hub_token.as_deref();
        let own = own.map(Secret::new);
        own.or_else(|| self.surroundings.hub.token.clone())
    }

    fn repository_to_push(&self) -> Option<String> {
        let folder = self.arguments.output_dir.as_deref();
        let folder = folder.map(|folder| self.absolute(folder));
        let named = self.arguments.hub_model_id.clone();
        named.or_else(|| basename(folder.as_deref()))
    }

    pub(super) fn repository(&self, location: Option<&Location>) -> Option<Repository> {
        Some(Repository {
            name: self.on_hub(location?)?.to_owned(),
            revision: self.arguments.model_revision.clone(),
        })
    }

    pub(super) fn hub(&self) -> Result<Option<Hub>> {
        if self.hub_user().is_none() {
            return Ok(None);
        }
        let arguments = &self.arguments;
        let strategy = match arguments.hub_strategy.as_str() {
            "end" => HubStrategy::End,
            "every_save" => HubStrategy::EverySave,
            "checkpoint" => HubStrategy::Checkpoint,
            "all_checkpoints" => HubStrategy::AllCheckpoints,
            other => return Err(unknown("hub_strategy", other)),
        };
        let push = match self.pushes() {
            true => Some(Push {
                repository: self.repository_to_push().context("no output_dir")?,
                strategy,
                private: arguments.hub_private_repo,
                always: arguments.hub_always_push,
            }),
            false => None,
        };
        let hub = &self.surroundings.hub;
        Ok(Some(Hub {
            endpoint: hub.endpoint.clone(),
            cache: hub.cache.clone().context("no cache of the Hub")?,
            token: self.token(),
            offline: hub.offline,
            push,
        }))
    }
}

fn basename(folder: Option<&Path>) -> Option<String> {
    let name = folder?.file_name()?;
    Some(name.to_string_lossy().into_owned())
}
