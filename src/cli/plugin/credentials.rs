//! `host plugin login` and `logout`: credentials in the file that container tools share. Passwords come through stdin
//! or a helper, never through arguments, which every process can read.

use std::io::Read;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::place::Place;
use super::{Report, flag, positional, word};
use crate::error::Failure;
use crate::registry::credentials::{Credentials, Secret, forget, keep};
use crate::registry::distribution::Repository;
use crate::registry::name::{Reference, is_registry, shown};

/// A longer password is refused.
const MAX_PASSWORD: u64 = 64 << 10;

pub(super) fn login_command() -> Command {
    Command::new("login")
        .about("Keep a registry's user and password where container tools keep them")
        .arg(positional("registry", "Host and port"))
        .arg(
            Arg::new("username")
                .long("username")
                .short('u')
                .value_name("NAME")
                .required(true)
                .help("The user"),
        )
        .arg(flag("password-stdin", "Read the password from stdin").required(true))
        .after_help("Example: host plugin login registry.example.org -u ada --password-stdin < password.txt")
}

pub(super) fn login(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let registry = registry(matches)?;
    let name = word(matches, "username")?;
    if name.is_empty() || name.contains(':') {
        bail!(Failure::usage(format!(
            "`{}` is no name of a user",
            shown(name)
        )));
    }
    let mut password = String::new();
    let stdin = std::io::stdin().lock();
    stdin
        .take(MAX_PASSWORD)
        .read_to_string(&mut password)
        .context("stdin cannot be read")?;
    let password = Secret::new(password.trim_end_matches(['\n', '\r']));
    if password.reveal().is_empty() {
        bail!(
            Failure::usage("stdin holds no password")
                .hint("give it as in --password-stdin < password.txt")
        );
    }
    let credentials = Credentials::User {
        name: name.to_owned(),
        password: password.clone(),
    };
    let place_there = Reference {
        registry: registry.to_owned(),
        repository: "v2".to_owned(),
        tag: None,
        digest: None,
    };
    Repository::new(place.client()?, &place_there, Some(credentials))?.check_credentials()?;
    let folder = docker(place)?;
    let kept = keep(folder, registry, name, &password)?;
    Ok(Report {
        text: format!("{name} may use {registry}; kept in {kept}\n"),
        value: json!({"registry": registry, "username": name, "kept": kept}),
    })
}

pub(super) fn logout_command() -> Command {
    Command::new("logout")
        .about("Forget a registry's user and password")
        .arg(positional("registry", "Host and port"))
}

pub(super) fn logout(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let registry = registry(matches)?;
    let was_there = forget(docker(place)?, registry)?;
    Ok(Report {
        text: match was_there {
            true => format!("forgot the credentials for {registry}\n"),
            false => format!("there were no credentials for {registry}\n"),
        },
        value: json!({"registry": registry, "forgotten": was_there}),
    })
}

fn registry(matches: &ArgMatches) -> Result<&str> {
    let registry = word(matches, "registry")?;
    if !is_registry(registry) {
        let text = format!("`{}` is no registry", shown(registry));
        bail!(
            Failure::usage(text)
                .hint("name host and port, such as registry.example.org or localhost:5000")
        );
    }
    Ok(registry)
}

fn docker(place: &Place) -> Result<&std::path::Path> {
    place.docker.as_deref().context(
        Failure::usage("there is no folder for credentials").hint("set HOME or DOCKER_CONFIG"),
    )
}
