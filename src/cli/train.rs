//! `host train`.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::start;
use crate::config::run;

pub(super) fn command() -> Command {
    start::command(
        run::Command::Train,
        Command::new("train").about("Fine-tune a model"),
    )
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    start::start(run::Command::Train, matches)
}
