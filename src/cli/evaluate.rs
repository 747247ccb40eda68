//! `host evaluate`.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::start;
use crate::config::run;

pub(super) fn command() -> Command {
    start::command(
        run::Command::Evaluate,
        Command::new("evaluate")
            .about("Compute loss and metrics of a model (alias: eval)")
            .alias("eval"),
    )
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    start::start(run::Command::Evaluate, matches)
}
