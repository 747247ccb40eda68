//! `host plugin`: what can be said about a plugin without running it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::output;
use crate::plugin::inspect;

pub(super) fn command() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The component file");
    Command::new("plugin")
        .about("Look at plugins")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("inspect")
                .about("Show what a plugin is and asks for; never runs it")
                .arg(file),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    let (_, matches) = matches
        .subcommand()
        .context("clap accepted a line without a command")?;
    let file = matches
        .get_one::<PathBuf>("file")
        .context("clap accepted a line without a file")?;
    output::print(&inspect::describe(file)?)
}
