//! `host predict`.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::start;
use crate::config::run;

pub(super) fn command() -> Command {
    start::command(
        run::Command::Predict,
        Command::new("predict").about("Write a model's predictions"),
    )
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    start::start(run::Command::Predict, matches)
}
